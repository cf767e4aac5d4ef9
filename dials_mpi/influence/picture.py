"""The picture of a comparison: cross-entropies of the variants, and their calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dials_mpi.domains.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from dials_mpi.influence.fits import Fitted

WIDTH, ROW, MARGIN = 7.0, 0.2, 0.9  # inches
MIN_HEIGHT = 2.6
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)


def draw(fitted: Sequence[Fitted]) -> Figure:
    """One row per variant: a point per region, a line at the mean; beside it the calibration of each."""
    height = max(MIN_HEIGHT, MARGIN + ROW * len(fitted))
    figure = Figure((WIDTH, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_losses(left, fitted)
    _draw_calibrations(right, fitted)
    return figure


def _draw_losses(axes: Axes, fitted: Sequence[Fitted]) -> None:
    for row, one in enumerate(fitted):
        own = [fit.after for fit in one.fits]
        axes.plot(own, np.full(len(own), row), "o", ms=3, alpha=0.5, color=_colour(row), clip_on=False)
        axes.plot([one.loss] * 2, [row - 0.3, row + 0.3], color=_colour(row), lw=2)
        axes.plot([one.baseline] * 2, [row - 0.45, row + 0.45], color=GREY, lw=1, ls=(0, (3, 1.5)))
    axes.plot([], [], color=GREY, lw=1, ls=(0, (3, 1.5)), label="class frequencies")
    axes.set(
        yticks=range(len(fitted)),
        yticklabels=[one.variant.name or "as configured" for one in fitted],
        ylim=(len(fitted) - 0.5, -0.5),
        xlabel="cross-entropy on held-out episodes (nats per source)",
    )
    axes.set_xlim(left=0)
    axes.legend(loc="best")


def _draw_calibrations(axes: Axes, fitted: Sequence[Fitted]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=(0, (4, 2)))
    for row, one in enumerate(fitted):
        predicted, observed, share = _pooled(one)
        axes.plot(predicted, observed, lw=0.8, color=_colour(row))
        axes.scatter(predicted, observed, s=3 + 60 * share, color=_colour(row), alpha=0.7, lw=0)
    axes.set_title("area: share of the predictions", loc="left")
    axes.set(
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="observed frequency"
    )
    axes.set_box_aspect(1)


def _pooled(fitted: Fitted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin that has predictions, over regions and sources: the mean prediction, the observed
    frequency, and the share of all predictions."""
    every = [one for region in fitted.calibrations for one in region]
    number = np.sum([one.number for one in every], axis=0)
    known = number > 0
    predicted = np.nansum([one.predicted * one.number for one in every], axis=0)
    observed = np.nansum([one.observed * one.number for one in every], axis=0)
    return predicted[known] / number[known], observed[known] / number[known], number[known] / number.sum()


def _colour(row: int) -> str:
    return COLOURS[row % len(COLOURS)]
