"""The picture of a region's influence predictor: predictions along an episode, and their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.domains.base import Source
from dials_mpi.domains.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from dials_mpi.learning.calibration import Calibration

WIDTH, MIN_HEIGHT = 7.0, 2.9  # inches
_STRIP, _ROW = 0.4, 0.11  # inches: height of a source's axes without its classes, and of one class
_SMALL = 6
_NARROW = 18  # characters: legend entries of this length fit into two columns
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
_MARKERS = "osD^vP"
_LEGEND: dict[str, Any] = {
    "fontsize": _SMALL,
    "handlelength": 1.2,
    "handletextpad": 0.5,
    "columnspacing": 1.0,
}
_OBSERVED: dict[str, Any] = {"color": VERMILION, "linewidths": 0, "zorder": 3, "clip_on": False}
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_HEAT = LinearSegmentedColormap.from_list("probability", ["white", SKY, BLUE, "#002A44"])


def draw(
    caption: str,
    names: Sequence[Source],
    dataset: Dataset,
    predicted: np.ndarray,
    calibrations: Sequence[Calibration],
    steps: int,
) -> Figure:
    """Draw the first ``steps`` steps of the first of K episodes, and the calibration over all of them.

    predicted: [K, T, M, C], from ``calibration.predict``; calibrations: one per source.
    """
    heat = any(len(source.classes) > 2 for source in names)
    heights = [_STRIP + _ROW * max(2, len(source.classes)) for source in names]
    figure = Figure((WIDTH, max(MIN_HEIGHT, sum(heights))), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.1, 1))[0]
    strips = left.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_strips(strips, names, predicted[0, :steps], dataset.sources[0, :steps])
    strips[-1].set(xlabel="step", xlim=(0.5, steps + 0.5))
    keys: list[Artist] = [Line2D([], [], color=VERMILION, marker="o", ms=2.5, ls="", label="observed")]
    if heat:
        keys.append(Line2D([], [], ls="", label="predicted:"))
        keys += [Patch(facecolor=_HEAT(p), label=f"{p:g}", edgecolor=GREY, linewidth=0.4) for p in _STEPS]
    left.legend(handles=keys, loc="outside lower center", ncols=len(keys), **_LEGEND)
    left.suptitle(f"{caption}: one episode", x=0.01, ha="left", fontsize=7)
    axes = right.subplots()
    _draw_calibration(axes, names, calibrations)
    columns = 2 if max(len(source.name) for source in names) <= _NARROW else 1
    right.legend(loc="outside lower center", ncols=columns, **_LEGEND)
    right.suptitle(f"{len(predicted)} episodes", fontsize=7)
    return figure


def _draw_strips(
    strips: Sequence[Axes], names: Sequence[Source], predicted: np.ndarray, observed: np.ndarray
) -> None:
    """predicted: [T, M, C]; observed: int [T, M]."""
    binary = [m for m, source in enumerate(names) if len(source.classes) == 2]
    largest = predicted[:, binary, 1].max(initial=0)
    scale = next(top for top in (0.25, 0.5, 1.0) if top >= largest or top == 1)
    for m, (axes, source) in enumerate(zip(strips, names, strict=True)):
        if len(source.classes) == 2:
            _draw_probability(axes, predicted[:, m, 1], observed[:, m], scale)
        else:
            _draw_probabilities(axes, source.classes, predicted[:, m], observed[:, m])
        axes.set_title(source.name, loc="left", fontsize=_SMALL, pad=2)
        axes.grid(False)
        axes.tick_params(labelsize=_SMALL, length=2)


def _draw_probability(axes: Axes, predicted: np.ndarray, observed: np.ndarray, scale: float) -> None:
    """Draw a binary source; predicted: float [T]; observed: int [T]; scale: the end of the axis."""
    step = np.arange(1, len(observed) + 1)
    axes.fill_between(step, predicted, step="mid", color=BLUE, linewidth=0)
    ones = step[observed == 1]
    axes.scatter(ones, np.full(len(ones), 1.12 * scale), s=5, **_OBSERVED)
    axes.set(ylim=(0, 1.2 * scale), yticks=(0, scale))


def _draw_probabilities(
    axes: Axes, classes: Sequence[str], predicted: np.ndarray, observed: np.ndarray
) -> None:
    """Draw a source of C > 2 classes; predicted: float [T, C or more]; observed: int [T]."""
    steps, count = len(observed), len(classes)
    axes.imshow(
        predicted[:, :count].T,
        cmap=_HEAT,
        vmin=0,
        vmax=1,
        extent=(0.5, steps + 0.5, count - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    axes.scatter(np.arange(1, steps + 1), observed, s=3.5, **_OBSERVED)
    axes.set_yticks(range(count), classes)


def _draw_calibration(axes: Axes, names: Sequence[Source], calibrations: Sequence[Calibration]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for m, (source, of) in enumerate(zip(names, calibrations, strict=True)):
        axes.errorbar(
            of.predicted,
            of.observed,
            yerr=np.maximum(0, (of.observed - of.low, of.high - of.observed)),  # not -1e-17
            color=_COLOURS[m % len(_COLOURS)],
            marker=_MARKERS[m // len(_COLOURS) % len(_MARKERS)],
            markersize=3,
            linestyle="",
            elinewidth=0.8,
            label=source.name,
        )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="predicted probability",
        ylabel="observed frequency",
    )
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=_SMALL)
