"""The style of pictures: colours and lines of the methods, and settings of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.pictures import BLUE, GREEN, SMALL_PRINT, VERMILION

RGB = tuple[float, float, float]

COLOURS = {"dials": BLUE, "untrained": VERMILION, "global": GREEN}
REFERENCE_COLOUR = "#555555"
SHADES = (0.0, -0.6, 0.35, 0.6, -0.3, 0.78)  # towards white, or black where negative
LINES = ("-", (0, (4, 1.2)), (0, (4, 1.2, 1, 1.2)), (0, (1.6, 0.8)), (0, (4, 1, 1, 1, 1, 1)))
LEVEL = (0, (1, 1.5))
WIDTH, HEIGHT, LEGEND_ROW = 3.3, 2.2, 0.13  # inches: a column of a paper
PAGE = 7.0  # inches, of text
BAR_WIDTH, MAP_SIDE, TITLE_ROW = 1.2, 1.5, 0.15
STILLS = (".png", ".svg", ".pdf")
"""The formats of pictures, by the extension of the file."""
MAP_COLOURS = "viridis"
UNFINISHED = "////"  # hatches
OPEN_CIRCLE: dict[str, Any] = {
    "marker": "o",
    "markersize": 3.5,
    "markerfacecolor": "white",
    "ls": "",
    "clip_on": False,
}
FONT_SIZE = 7.0  # points
SETTINGS = {
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.025,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "savefig.dpi": 300,
    "text.parse_math": False,  # names of runs may contain $
    "svg.hashsalt": "dials_mpi",
}


def look(method: str, k: int) -> tuple[RGB, Any]:
    """Colour and line of the k-th group of a method."""
    return _shade(COLOURS[method], SHADES[k % len(SHADES)]), LINES[k % len(LINES)]


def _shade(colour: str, amount: float) -> RGB:
    """The colour mixed with white or, for a negative amount, with black."""
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    red, green, blue = (round(part + abs(amount) * ((amount > 0) - part), 4) for part in parts)
    return red, green, blue


def require_report_libraries() -> None:
    """BadInput: matplotlib or scipy, which the report's pictures and tables need, is missing."""
    require_scipy()
    with style():
        pass


def require_scipy() -> None:
    """BadInput: scipy is missing."""
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "scipy, which makes the report's statistics, is not installed: pip install 'dials_mpi[report]'"
        ) from error


def font_scale() -> float:
    """The font size in use, divided by FONT_SIZE."""
    from matplotlib import rcParams

    return float(rcParams["font.size"]) / FONT_SIZE


@contextmanager
def style(font_size: float = FONT_SIZE) -> Iterator[None]:
    """Use this style of pictures in place of the user's; font_size: in points.

    BadInput: matplotlib is not installed.
    """
    try:
        from matplotlib import style as matplotlib_style
    except ImportError as error:
        raise BadInput(
            "matplotlib, which draws the pictures, is not installed: pip install 'dials_mpi[report]'"
        ) from error
    small = SMALL_PRINT * font_size / FONT_SIZE
    fonts = {"font.size": font_size, "axes.titlesize": font_size, "legend.fontsize": small}
    with matplotlib_style.context(["default", {**SETTINGS, **fonts}]):
        yield
