"""Shared by the drawings of the domains: colours for colour-blind readers, axes, colour bars, legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.transforms import Transform

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"  # Okabe and Ito
ORANGE, VERMILION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#333333", "#8C8C8C", "#EDEDED"

SMALL_PRINT = 6.3
"""Font size of numbers, legends and scales, points."""


def number_size(pitch: float) -> float | None:
    """Font size of the regions' numbers, whose distance is ``pitch`` points; None if too small to read."""
    size = min(SMALL_PRINT, 0.3 * pitch)
    return size if size >= 2.5 else None


class Extent(NamedTuple):
    """The limits of the axes; ``bottom`` may be larger than ``top``, for a y axis that points down."""

    left: float
    right: float
    bottom: float
    top: float


def bare_axes(axes: Axes, extent: Extent) -> float:
    """Remove lines and ticks, and set limits and an equal aspect; returns the length of a unit, points."""
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(extent.left, extent.right), ylim=(extent.bottom, extent.top))
    return 72 * _width(axes) / abs(extent.right - extent.left)


def add_colour_bar(axes: Axes, colours: ScalarMappable, label: str, more: bool = False) -> None:
    """Add a colour bar of about an inch to the right; more: larger values have the colour of the largest."""
    extend = "max" if more else "neither"
    wide, (left, right), (bottom, top) = _width(axes), axes.get_xlim(), axes.get_ylim()
    high = wide * abs((top - bottom) / (right - left))
    length = min(1.2, max(1.0, 0.9 * high))  # longer than its label
    start = 0.02 if length < 0.98 * high else (high - length) / 2 / high
    inset = axes.inset_axes((1 + 0.06 / wide, start, 0.07 / wide, length / high))
    bar = axes.figure.colorbar(colours, cax=inset, extend=extend, extendfrac=0.06)
    bar.set_label(label, fontsize=SMALL_PRINT, labelpad=2)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=SMALL_PRINT, width=0.4, length=2, pad=1.5)


def add_legend(axes: Axes, handles: Sequence[Artist]) -> None:
    """Add a legend in one row below the picture, and below the labels of its x axis if it has one."""
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=_below(axes),
        ncols=len(handles),
        borderpad=0,
        borderaxespad=0.4,
        handlelength=1.0,
        handletextpad=0.5,
        columnspacing=1.2,
        fontsize=SMALL_PRINT,
    )


def _below(axes: Axes) -> Transform:
    """Coordinates of the axes, moved below the labels of the x axis, whatever the figure's height will be."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    labels = axes.xaxis.get_tightbbox() if axes.axison else None
    depth = (axes.get_window_extent().y0 - labels.y0) / figure.dpi if labels else 0.0
    return axes.transAxes + ScaledTranslation(0, -depth, figure.dpi_scale_trans)


def _width(axes: Axes) -> float:
    """The width of the axes, inches, whatever the height of the figure will be."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure.get_figwidth() * axes.get_position(original=True).width
