"""Colours of the groups, for a light and a dark page, and their samples in legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dials_mpi.report.groups import Group
from dials_mpi.report.page.charts import DASHES
from dials_mpi.report.page.markup import Markup, element
from dials_mpi.results.style import RGB

DARK_LUMINANCE = 0.22
"""The least relative luminance on a dark page: a contrast of about 4.5 to its background."""


def variables(groups: Sequence[Group]) -> Markup:
    """CSS that defines the colours of all groups, for ``colour``."""
    light = dict(zip(_names(groups), _colours(groups), strict=True))
    dark = {name: _lightened(rgb) for name, rgb in light.items()}
    return Markup(f":root{_block(light)}@media (prefers-color-scheme: dark){{:root{_block(dark)}}}")


def colour(group: Group, groups: Sequence[Group]) -> str:
    """The CSS colour of a group; groups with one label have one colour."""
    return f"var({_names(groups)[_labels(groups).index(group.label)]})"


def dash(line: Any) -> str | None:
    """matplotlib's line style as that of SVG; None: solid."""
    return None if isinstance(line, str) else " ".join(f"{DASHES * length:g}" for length in line[1])


def sample(css: str, dashes: str | None = None) -> Markup:
    """A short line for a legend."""
    line = element("line", x1=1, x2=27, y1=6, y2=6, stroke=css, stroke_width=2.4, stroke_dasharray=dashes)
    return element("svg", line, viewBox="0 0 28 12", class_="sample", aria_hidden="true")


def _labels(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.label for group in groups))


def _names(groups: Sequence[Group]) -> list[str]:
    return [f"--group-{k}" for k in range(len(_labels(groups)))]


def _colours(groups: Sequence[Group]) -> list[RGB]:
    return [next(g.colour for g in groups if g.label == label) for label in _labels(groups)]


def _block(colours: Mapping[str, RGB]) -> str:
    texts = {name: ",".join(f"{round(255 * part)}" for part in rgb) for name, rgb in colours.items()}
    return "{" + "".join(f"{name}:rgb({text});" for name, text in texts.items()) + "}"


def _lightened(rgb: RGB) -> RGB:
    """The colour mixed with as little white as a dark page needs."""
    for share in range(0, 21):
        red, green, blue = (part + share / 20 * (1 - part) for part in rgb)
        if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 >= DARK_LUMINANCE:
            break
    return red, green, blue
