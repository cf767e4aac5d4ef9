"""The panels of the pictures: curves, bars and maps of groups of runs."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dials_mpi.domains import find
from dials_mpi.domains.pictures import SMALL_PRINT
from dials_mpi.report.groups import Curve, Group, short
from dials_mpi.report.runs import Refits
from dials_mpi.report.runtimes import CLOCKS, Clock, mean_runtime, runtime, spent
from dials_mpi.results.style import LEVEL, MAP_COLOURS, OPEN_CIRCLE, REFERENCE_COLOUR, UNFINISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 0.8  # width of all bars of a size, in distances between two sizes
NARROW = 24  # characters in a line of a map's title


# Curves --------------------------------------------------------------------------------------------------


def draw_learning_curves(axes: Axes, groups: Sequence[Group]) -> None:
    """Mean return against steps per agent, with the levels of references if a run is finished."""
    for group in groups:
        _draw_returns(axes, group, group.returns.env_steps)
    _draw_references(axes, groups)
    _label_returns(axes)
    _label_steps(axes)


def draw_returns_in_time(axes: Axes, groups: Sequence[Group], clock: Clock) -> None:
    """Mean return against the runtime (Figures 4, 7 and 8); the final level of shorter curves is dotted."""
    times = [mean_elapsed(group, clock) for group in groups]
    end = max(time[-1] for time in times)
    unit = _time_unit(end)
    for group, time in zip(groups, times, strict=True):
        _draw_returns(axes, group, time * unit.factor)
        level = group.returns.mean[-1]
        axes.plot(
            [time[-1] * unit.factor, end * unit.factor],
            [level, level],
            color=group.colour,
            linestyle=LEVEL,
            linewidth=0.8,
        )
    _draw_references(axes, groups)
    _label_returns(axes)
    _label_time(axes, clock, unit)


def draw_cross_entropy(axes: Axes, groups: Sequence[Group]) -> None:
    """Cross-entropy against steps, with the refits, and the level of the baseline: class frequencies.

    At evaluations it is measured on their episodes, after a refit on the held-out episodes.
    """
    for group in groups:
        curve = loss_curve(group)
        steps, losses = with_refits(group)
        axes.plot(steps, losses, color=group.colour, linestyle=group.line)
        _mark_unfinished(axes, group, curve.env_steps, curve)
        if group.refits is not None:
            _draw_refits(axes, group, group.refits)
    if any(group.refits is not None for group in groups):
        axes.plot([], [], "o", color=REFERENCE_COLOUR, markersize=2.4, label="just refitted")
        axes.plot([], [], color=REFERENCE_COLOUR, linestyle=LEVEL, label="class frequencies")
    _label_losses(axes)
    _label_steps(axes)


def draw_cross_entropy_in_time(axes: Axes, groups: Sequence[Group], clock: Clock) -> None:
    """Cross-entropy at the evaluations against the runtime (Figures 4, 7 and 8)."""
    times = [mean_elapsed(group, clock) for group in groups]
    unit = _time_unit(max(time[-1] for time in times))
    for group, time in zip(groups, times, strict=True):
        curve = loss_curve(group)
        axes.plot(time * unit.factor, curve.mean, color=group.colour, linestyle=group.line)
        _mark_unfinished(axes, group, time * unit.factor, curve)
    _label_losses(axes)
    _label_time(axes, clock, unit)


def mean_elapsed(group: Group, clock: Clock) -> np.ndarray:
    """Hours up to each evaluation [T]; between two, the mean over the runs that have reached both."""
    hours = [spent(run, clock).sum(axis=1) for run in group.runs]
    return group.average(hours).mean.cumsum()


def loss_curve(group: Group) -> Curve:
    """The cross-entropy of a group that has influence predictors."""
    assert group.cross_entropy is not None
    return group.cross_entropy


def with_refits(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Steps and cross-entropies of evaluations and refits, in order; a refit follows its evaluation."""
    curve, refits = loss_curve(group), group.refits
    if refits is None:
        return curve.env_steps, curve.mean
    where = np.searchsorted(curve.env_steps, refits.env_steps, side="right")
    steps = np.insert(curve.env_steps, where, refits.env_steps)
    return steps, np.insert(curve.mean, where, refits.after)


def _draw_returns(axes: Axes, group: Group, places: np.ndarray) -> None:
    curve = group.returns
    low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
    axes.fill_between(places, low, high, color=group.colour, alpha=0.2, linewidth=0)
    axes.plot(places, curve.mean, color=group.colour, linestyle=group.line)
    _mark_unfinished(axes, group, places, curve)


def _mark_unfinished(axes: Axes, group: Group, places: np.ndarray, curve: Curve) -> None:
    """Draw an open circle where an unfinished run ends."""
    for end in sorted({len(run.env_steps) - 1 for run in group.unfinished}):
        _draw_circle(axes, group.colour, places[end], curve.mean[end])


def _draw_circle(axes: Axes, colour: Any, x: float, y: float) -> None:
    """Draw one circle: an unclipped line without points would disturb the layout."""
    axes.plot([x], [y], color=colour, **OPEN_CIRCLE)


def _draw_refits(axes: Axes, group: Group, refits: Refits) -> None:
    points: dict[str, Any] = {"s": 6, "color": [group.colour], "linewidths": 0, "zorder": 3}
    axes.scatter(refits.env_steps, refits.after, clip_on=False, **points)
    steps = np.append(refits.env_steps, max(loss_curve(group).env_steps[-1], refits.env_steps[-1]))
    levels = np.append(refits.constant, refits.constant[-1])
    axes.step(steps, levels, where="post", color=group.colour, linestyle=LEVEL, linewidth=1)


# Levels of policies that need no training ----------------------------------------------------------------


def references(groups: Sequence[Group]) -> dict[str, float]:
    """Mean returns of the first hand-coded policy and of the random one, over the runs that have them."""
    runs = [run for group in groups for run in group.runs]
    domain: type[Any] = find(runs[0].config.domain)[0]
    hand_coded = domain.hand_coded[:1]
    return {
        name: float(np.mean([run.references[name] for run in runs if name in run.references]))
        for name in (*hand_coded, "random")
        if any(name in run.references for run in runs)
    }


def _draw_references(axes: Axes, groups: Sequence[Group]) -> None:
    """Draw a line for each, with its name on the side that curves leave free."""
    ends, known = np.array([group.returns.mean[-1] for group in groups]), references(groups)
    bottom, top = axes.get_ylim()
    bottom = min(bottom, 0.0)  # the axis begins there
    close = len(known) == 2 and np.ptp([*known.values()]) < 0.25 * (top - bottom)
    for name, level in known.items():
        label = "random" if name == "random" else f"hand-coded ({name})"
        nearest = ends[np.argmin(np.abs(ends - level))]
        outward = level == max(known.values())  # so that the two names do not overlap
        above = outward if close else level < (top + bottom) / 2 or nearest < level
        _draw_level(axes, level, label, above)


def _draw_level(axes: Axes, level: float, label: str, above: bool) -> None:
    """Draw a dashed line with its name above or below it."""
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
        fontsize=SMALL_PRINT,
        color=REFERENCE_COLOUR,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )


# Bars by size --------------------------------------------------------------------------------------------


def draw_final_returns(axes: Axes, sizes: Sequence[Sequence[Group]]) -> None:
    """The last return of finished runs for each size of the system, ± standard error over seeds (Figure 3).

    An unfinished run is an open circle at its last return, and is not averaged.
    """
    for group, place, width in _places(axes, sizes):
        scores = group.scores
        if scores.size:
            axes.bar(place, scores.mean(), width, color=group.colour)
        if scores.size > 1:
            error = scores.std(ddof=1) / np.sqrt(scores.size)
            axes.errorbar(place, scores.mean(), error, color="black", linewidth=0.7, capsize=1.5)
        for run in group.unfinished:
            _draw_circle(axes, "black", place, run.mean[-1])
    for k, groups in enumerate(sizes):
        for level in list(references(groups).values())[:1]:
            axes.hlines(level, k - 0.48, k + 0.48, color=REFERENCE_COLOUR, linewidth=0.8, linestyles="dashed")
    axes.set_ylabel("Final return per agent")


def draw_runtimes(
    axes: Axes, sizes: Sequence[Sequence[Group]], clock: Clock, beside: Sequence[Group] = ()
) -> None:
    """Hours of finished runs for each size of the system, on a log2 axis (Figures 3, 5 and 6).

    If no run of a group is finished, the bar shows the longest one, hatched. beside: groups in other panels
    with the same axis.
    """
    shown = [group for groups in sizes for group in groups]
    heights = np.array([_bar_hours(group, clock) for group in [*shown, *beside]])
    unit = _time_unit(np.nanmax(heights, initial=0))
    for group, place, width in _places(axes, sizes):
        hollow: dict[str, Any] = {"facecolor": "white", "edgecolor": group.colour, "hatch": UNFINISHED}
        how = {"color": group.colour} if group.finished else hollow
        axes.bar(place, _bar_hours(group, clock) * unit.factor, width, **how)
    if np.nanmax(heights, initial=0) > 0:
        axes.set_yscale("log", base=2)
        least, most = np.nanmin(heights[heights > 0]), np.nanmax(heights)
        low, high = np.log2([least * unit.factor, most * unit.factor])
        axes.set_ylim(2 ** np.floor(low - 0.5), 1.05 * 2 ** np.ceil(high))  # with two ticks at least
    axes.yaxis.set_major_formatter(lambda time, _: f"{time:.3g}")
    axes.set_ylabel(f"Runtime ({unit.name}), {CLOCKS[clock]}")


def _bar_hours(group: Group, clock: Clock) -> float:
    """The mean over finished runs; if there are none, the longest runtime."""
    if group.finished:
        return mean_runtime(group, clock).total
    return max(runtime(run, clock).total for run in group.runs)


def _places(axes: Axes, sizes: Sequence[Sequence[Group]]) -> list[tuple[Group, float, float]]:
    """Each group with the centre and width of its bar; a label has the same place in each size."""
    labels = list(dict.fromkeys(group.label for groups in sizes for group in groups))
    width = BARS / len(labels)
    axes.set_xticks(range(len(sizes)), [str(groups[0].agents) for groups in sizes])
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_xlabel("Agents")
    axes.grid(visible=False, axis="x")
    left = (width - BARS) / 2
    return [
        (group, k + left + width * labels.index(group.label), 0.9 * width)
        for k, groups in enumerate(sizes)
        for group in groups
    ]


# Maps ----------------------------------------------------------------------------------------------------


def draw_map(axes: Axes, group: Group, low: float, high: float) -> None:
    """A map of the regions' last returns, means over seeds; colours from low to high.

    In small systems the returns are also written as numbers.
    """
    returns = regional_returns(group)
    rows, columns = returns.shape
    axes.imshow(returns, cmap=MAP_COLOURS, vmin=low, vmax=high, aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    left_out = f", {len(group.unfinished)} unfinished" if group.unfinished else ""
    axes.set_title("\n".join([*wrap(group.label, NARROW), f"{group.agents} agents{left_out}"]))
    if max(rows, columns) > 7:
        return
    decimals = three_digits(max(abs(low), abs(high)))
    for (row, column), value in np.ndenumerate(returns):
        colour = "white" if value < low + 0.6 * (high - low) else "black"
        axes.text(column, row, f"{value:.{decimals}f}", ha="center", va="center", color=colour, size=5.5)


def three_digits(largest: float) -> int:
    """The decimals (2, 1 or 0) that give numbers up to ``largest`` at most three digits."""
    return 2 - sum(round(largest, 3 - power) >= 10**power for power in (1, 2))


def regional_returns(group: Group) -> np.ndarray:
    """Mean final returns of the regions, by row and column, over finished runs, or all if none is."""
    returns = np.mean([run.returns[-1].mean(axis=0) for run in group.finished or group.runs], axis=0)
    return returns.reshape(group.runs[0].grid)


# Axes ----------------------------------------------------------------------------------------------------


def _label_returns(axes: Axes) -> None:
    axes.set_ylabel("Mean return per agent and episode")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)


def _label_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("Steps per agent")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda steps, _: short(steps))


class TimeUnit(NamedTuple):
    """name: of the unit; factor: units per hour."""

    name: str
    factor: float


def _time_unit(hours: float) -> TimeUnit:
    """Minutes if all times are below an hour."""
    return TimeUnit("h", 1.0) if not hours < 1 else TimeUnit("min", 60.0)


def _label_time(axes: Axes, clock: Clock, unit: TimeUnit) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(f"Runtime ({unit.name}), {CLOCKS[clock]}")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _label_losses(axes: Axes) -> None:
    """Label a log axis with plain numbers, a few in each decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_ylabel("Cross-entropy (nats per source)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
