"""The value of one setting: its type, bounds and choices, and the messages about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import Any, get_args, get_origin

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.settings import numerals
from dials_mpi.settings.mappings import PlainMapping, plain_mapping


@dataclass(frozen=True)
class Given:
    """A value as the user wrote it, and its origin (a file or an override) for messages."""

    value: Any
    origin: str


def checked(key: str, item: tuple[Field[Any], Any], given: Given) -> Any:
    """The value of the setting, converted to its field's type. BadInput: wrong type, or out of bounds."""
    entry, kind = item
    try:
        return _convert(kind, entry.metadata, given.value)
    except (ValueError, OverflowError):
        must = f"{key} is {shown(given.value)}, but must be {_expected(kind, entry.metadata)}"
        raise BadInput(f"{given.origin}: {must}{_hint(kind, given.value)}") from None


def _convert(kind: Any, metadata: Mapping[str, Any], value: Any) -> Any:
    """The value as the type ``kind``. ValueError, OverflowError: wrong type, out of bounds, or no choice."""
    if get_origin(kind) is tuple:
        inner = _element_kinds(kind, value)
        return tuple(_convert(one, metadata, part) for one, part in zip(inner, value, strict=True))
    if kind is PlainMapping:
        return plain_mapping(value)
    if kind is float and (
        type(value) is int or (isinstance(value, str) and numerals.NUMBER.fullmatch(value))
    ):
        value = float(value)  # in YAML 1 is an int, and 1e-4 is a text
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError
    low, high, choices = (metadata.get(name) for name in ("low", "high", "choices"))
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError
    if choices is not None and value not in choices:
        raise ValueError
    return value


def _element_kinds(kind: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    inner = get_args(kind)
    return inner[:1] * len(value) if inner[-1] is Ellipsis else inner


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    PlainMapping: "a mapping of plain values, such as {layers: 2} with a space after the colon",
}


def _expected(kind: Any, metadata: Mapping[str, Any]) -> str:
    """The requirement on a value, for a message: 'a whole number from 1 to 9'."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {count}values, each {_expected(inner[0], metadata)}"
    low, high, choices = (metadata.get(name) for name in ("low", "high", "choices"))
    if choices is not None:
        return f"one of {', '.join(map(str, choices))}"
    bounds = "" if low is None else f" from {low}" if high is not None else f" of at least {low}"
    if high is not None:
        bounds += f" to {high}" if bounds else f" of at most {high}"
    return _NAMES[kind] + bounds


_TRUTHS = {"y": "true", "yes": "true", "on": "true", "n": "false", "no": "false", "off": "false"}


def _hint(kind: Any, value: Any) -> str:
    """A correction for a whole number written as 1e6, and for a truth value written as y."""
    if kind is bool and isinstance(value, str) and value.lower() in _TRUTHS:
        return f" (write {_TRUTHS[value.lower()]})"
    if kind is not int or not isinstance(value, float | str):
        return ""
    try:
        number = float(value)
        return f" (write {int(number)})" if number == int(number) and abs(number) < 1e15 else ""
    except (ValueError, OverflowError):
        return ""
