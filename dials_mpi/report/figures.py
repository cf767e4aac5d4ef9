"""The pictures: learning curves, and the predictors' cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.domains import DOMAINS
from dials_mpi.report.groups import Curve, Group, short
from dials_mpi.report.runs import Refreshes
from dials_mpi.report.style import (
    HEIGHT,
    LEGEND_ROW,
    LEVEL,
    LONGEST_LABEL,
    OPEN_CIRCLE,
    REFERENCE_COLOUR,
    WIDTH,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_picture(
    stem: Path, draw: Callable[[Axes, Sequence[Group]], None], groups: Sequence[Group]
) -> list[Path]:
    """Draw into ``stem``.png and .svg; the files written. In ``style``, the same bytes for the same runs."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    draw(figure.add_subplot(), groups)
    files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(files[0])
    figure.savefig(files[1], metadata={"Date": None})
    return files


def draw_learning_curves(axes: Axes, groups: Sequence[Group]) -> None:
    """Mean return against steps per agent, with references where a run has come to its end."""
    for group in groups:
        curve = group.returns
        low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
        axes.fill_between(curve.env_steps, low, high, color=group.colour, alpha=0.2, linewidth=0)
        _draw_curve(axes, group, curve.env_steps, curve.mean)
        _mark_unfinished(axes, group, curve)
    _draw_references(axes, groups)
    axes.set_ylabel("Mean return per agent and episode")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    axes.fill_between([], [], color=REFERENCE_COLOUR, alpha=0.25, linewidth=0, label=_band(groups))
    _finish_axes(axes, groups)


def draw_cross_entropy(axes: Axes, groups: Sequence[Group]) -> None:
    """Cross-entropy against steps, falling at each refresh, with the level of the constant rates.

    Between refreshes it is that of the evaluations' episodes, after a refresh that of the held-out ones.
    """
    for group in groups:
        steps, losses = with_refreshes(group)
        _draw_curve(axes, group, steps, losses)
        _mark_unfinished(axes, group, group.cross_entropy)
        if group.refreshes is not None:
            _draw_refreshes(axes, group, group.refreshes)
    axes.set_ylabel("Cross-entropy (nats per source)")
    axes.set_yscale("log")
    _label_log_axis(axes)
    if any(group.refreshes is not None for group in groups):
        axes.plot([], [], "o", color=REFERENCE_COLOUR, markersize=2.4, label="just refreshed")
        axes.plot([], [], color=REFERENCE_COLOUR, linestyle=LEVEL, label="constant-rate predictor")
    _finish_axes(axes, groups)


def _draw_curve(axes: Axes, group: Group, steps: np.ndarray, values: np.ndarray) -> None:
    count = len(group.runs)
    label = group.label + (f" ({count} seeds)" if count > 1 else "")
    axes.plot(steps, values, color=group.colour, linestyle=group.line, label=label)


def _mark_unfinished(axes: Axes, group: Group, curve: Curve) -> None:
    """An open circle where a run is not there any more."""
    ends = sorted({len(run.env_steps) - 1 for run in group.unfinished})
    axes.plot(curve.env_steps[ends], curve.mean[ends], color=group.colour, **OPEN_CIRCLE)


def with_refreshes(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """The evaluations' steps and cross-entropies, and behind an evaluation those of the refresh there."""
    curve, refreshes = group.cross_entropy, group.refreshes
    if refreshes is None:
        return curve.env_steps, curve.mean
    where = np.searchsorted(curve.env_steps, refreshes.env_steps, side="right")
    steps = np.insert(curve.env_steps, where, refreshes.env_steps)
    return steps, np.insert(curve.mean, where, refreshes.after)


def _draw_refreshes(axes: Axes, group: Group, refreshes: Refreshes) -> None:
    points = {"s": 6, "color": [group.colour], "linewidths": 0, "zorder": 3, "clip_on": False}
    axes.scatter(refreshes.env_steps, refreshes.after, **points)
    steps = np.append(refreshes.env_steps, max(group.cross_entropy.env_steps[-1], refreshes.env_steps[-1]))
    levels = np.append(refreshes.constant, refreshes.constant[-1])
    axes.step(steps, levels, where="post", color=group.colour, linestyle=LEVEL, linewidth=1)


def _draw_references(axes: Axes, groups: Sequence[Group]) -> None:
    """The first hand-coded policy and the random one, each named on the side where curves do not end."""
    runs = [run for group in groups for run in group.runs]
    ends = np.array([group.returns.mean[-1] for group in groups])
    hand_coded = DOMAINS[runs[0].config.domain][0].hand_coded[0]
    known = {
        name: float(np.mean([run.references[name] for run in runs if name in run.references]))
        for name in (hand_coded, "random")
        if any(name in run.references for run in runs)
    }
    close = len(known) == 2 and abs(known[hand_coded] - known["random"]) < 0.25 * ends.max()
    for name, level in known.items():
        label = "random" if name == "random" else f"hand-coded ({name})"
        nearest = ends[np.argmin(np.abs(ends - level))]
        outward = level == max(known.values())  # or the two names would meet
        above = outward if close else level < 0.5 * ends.max() or nearest < level
        _draw_level(axes, level, label, above)


def _draw_level(axes: Axes, level: float, label: str, above: bool) -> None:
    """A dashed line with its name above or below it."""
    from matplotlib.patheffects import withStroke

    axes.axhline(level, color=REFERENCE_COLOUR, linewidth=0.8, linestyle=(0, (5, 2.5)), zorder=1.5)
    axes.annotate(
        label,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1.5 if above else -2),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        fontsize=6.3,
        color=REFERENCE_COLOUR,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )


def _band(groups: Sequence[Group]) -> str:
    """What the bands are."""
    single = [len(group.runs) == 1 for group in groups]
    if all(single):
        return "± standard error over episodes"
    return "± standard error over seeds" if not any(single) else "± s.e. (seeds; 1 run: episodes)"


def _finish_axes(axes: Axes, groups: Sequence[Group]) -> None:
    """What both pictures have in common: the axis of steps, and the legend above."""
    from matplotlib.ticker import MaxNLocator

    if any(group.unfinished for group in groups):
        axes.plot([], [], color=REFERENCE_COLOUR, **OPEN_CIRCLE, label="unfinished run")
    axes.set_xlabel("Steps per agent")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda steps, _: short(steps))
    _, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= LONGEST_LABEL else 1
    axes.figure.legend(loc="outside upper center", ncols=columns)
    axes.figure.set_size_inches(WIDTH, HEIGHT + LEGEND_ROW * -(-len(labels) // columns))


def _label_log_axis(axes: Axes) -> None:
    """Plain numbers, a few in each decade, whether it spans one or many."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
