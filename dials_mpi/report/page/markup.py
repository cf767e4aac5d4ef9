"""HTML and SVG as text in which everything that is not markup is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

EMPTY_ELEMENTS = ("br", "col")
SHORT = 24
"""The most characters of a cell that is on one line."""


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, *content: str, **attributes: object) -> Markup:
    """An element; text that is not Markup is escaped.

    attributes: those that are None are left out; ``class_`` and ``data_x`` stand for class and data-x.
    """
    given = {name.rstrip("_").replace("_", "-"): v for name, v in attributes.items() if v is not None}
    start = "".join(f' {name}="{escape(str(value))}"' for name, value in given.items())
    if tag in EMPTY_ELEMENTS:
        return Markup(f"<{tag}{start}>")
    return Markup(f"<{tag}{start}>{joined(content)}</{tag}>")


def joined(parts: Sequence[str]) -> Markup:
    """The parts one after another."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def json_text(content: Any) -> Markup:
    """JSON for a ``script`` element: NaN becomes null, and no character can end the element."""
    text = json.dumps(_finite(content), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    """The same with lists in place of arrays and null in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


class Sorted(NamedTuple):
    """A cell that shows a text and is sorted by a number."""

    text: str
    number: float


def table(rows: Sequence[Mapping[str, Any]], caption: str, titled: bool = False) -> Markup:
    """Rows with the same keys, which become the headings; columns without any value are left out.

    NaN is an empty cell. titled: a heading of the page already says what the caption says.
    """
    names = [name for name in rows[0] if any(shown(row[name]) for row in rows)]
    numeric = {name: all(isinstance(row[name], int | float | Sorted) for row in rows) for name in names}
    classes = {name: "number" if numeric[name] else None for name in names}
    head = [element("th", name, scope="col", class_=classes[name]) for name in names]
    body = [
        element("tr", *(_cell(name, row[name], name == names[0], classes[name]) for name in names))
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", caption, class_="same" if titled else None),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(name: str, value: Any, first: bool, class_: str | None) -> Markup:
    number = value.number if isinstance(value, Sorted) else value
    exact = repr(number) if isinstance(number, int | float) and np.isfinite(number) else None
    text = shown(value)
    class_ = class_ or ("short" if isinstance(text, Markup) or len(text) <= SHORT else None)
    if first:
        return element("th", text, scope="row", data_value=exact)
    return element("td", text, class_=class_, data_value=exact)


def shown(value: Any) -> str:
    """A value of a table as text: numbers with four digits, whole ones with all."""
    if isinstance(value, Sorted):
        return value.text
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}" if np.isfinite(value) else ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def details(summary: str, *content: str) -> Markup:
    """A part that is folded until its summary is clicked."""
    return element("details", element("summary", summary), *content)
