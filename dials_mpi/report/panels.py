"""The panels of the pictures: curves, bars and maps of groups of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dials_mpi.domains import find
from dials_mpi.domains.pictures import SMALL_PRINT
from dials_mpi.report.groups import Curve, Group, best_controller, reference_levels, short
from dials_mpi.report.others import Other
from dials_mpi.report.runs import RETURN, Refits, named
from dials_mpi.report.runtimes import CLOCKS, Clock, TimeUnit, mean_runtime, runtime, spent, time_unit
from dials_mpi.results.style import LEVEL, MAP_COLOURS, OPEN_CIRCLE, REFERENCE_COLOUR, UNFINISHED, font_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 0.8  # width of all bars of a system, in distances between two systems
NARROW = 24  # characters in a line of a map's title
ROOMY = 16  # characters of all names below an axis that are not turned
DECADE = 10.0
MOST_TICKS = 14  # labels of a log axis
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9")  # of other programs
LINE_HEIGHT = 0.065  # of small print, as a share of the height of the axes
SMALLEST = 5.5  # points, of numbers in a map
DASHED: dict[str, Any] = {
    "color": REFERENCE_COLOUR,
    "linewidth": 0.8,
    "linestyle": (0, (5, 2.5)),
    "zorder": 1.5,
}


# Curves --------------------------------------------------------------------------------------------------


def draw_learning_curves(axes: Axes, groups: Sequence[Group], others: Sequence[Other] = ()) -> None:
    """Mean of the measure against steps per agent, with the levels of references if a run is finished.

    others: runs of another program, of which those of the same system are drawn.
    """
    for group in groups:
        _draw_curve(axes, group, group.curve.env_steps)
    for k, other in enumerate(other for other in others if other.system == groups[0].system):
        line: dict[str, Any] = {
            "color": OTHER_COLOURS[k % len(OTHER_COLOURS)],
            "linestyle": "--",
            "label": other.label,
        }
        axes.plot(other.steps, other.values.mean(axis=0), **line)
    _draw_references(axes, groups)
    _label_steps(axes)


def draw_curves_in_time(axes: Axes, groups: Sequence[Group], clock: Clock) -> None:
    """The measure against the runtime (Figures 4, 7 and 8); the final level of shorter curves is dotted."""
    times = [mean_elapsed(group, clock) for group in groups]
    end = max(time[-1] for time in times)
    unit = time_unit(end)
    for group, time in zip(groups, times, strict=True):
        _draw_curve(axes, group, time * unit.factor)
        level = group.curve.mean[-1]
        axes.plot(
            [time[-1] * unit.factor, end * unit.factor],
            [level, level],
            color=group.colour,
            linestyle=LEVEL,
            linewidth=0.8,
        )
    _draw_references(axes, groups)
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
        axes.plot([], [], color=REFERENCE_COLOUR, linestyle=LEVEL, label="class frequencies at the refit")
    _label_losses(axes)
    _label_steps(axes)


def draw_cross_entropy_in_time(axes: Axes, groups: Sequence[Group], clock: Clock) -> None:
    """Cross-entropy at the evaluations against the runtime (Figures 4, 7 and 8)."""
    times = [mean_elapsed(group, clock) for group in groups]
    unit = time_unit(max(time[-1] for time in times))
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


def _draw_curve(axes: Axes, group: Group, places: np.ndarray) -> None:
    curve = group.curve
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


def _draw_references(axes: Axes, groups: Sequence[Group]) -> None:
    """Draw a line for each policy, with its name; of returns the main hand-coded policy and random only."""
    if groups[0].measure is RETURN:
        _draw_main_references(axes, groups)
        _label_returns(axes)
    else:
        levels = reference_levels(groups)
        _label_statistic(axes, groups, levels)
        _draw_levels(axes, levels)


def main_references(groups: Sequence[Group]) -> dict[str, float]:
    """Mean returns of the first hand-coded policy, if the domain has any, and of the random one."""
    domain: type[Any] = find(groups[0].runs[0].config.domain)[0]
    main = (*domain.hand_coded[:1], "random")
    return {name: level for name, level in reference_levels(groups).items() if name in main}


def _draw_main_references(axes: Axes, groups: Sequence[Group]) -> None:
    """Draw a line for each, with its name on the side that curves leave free."""
    ends, known = np.array([group.curve.mean[-1] for group in groups]), main_references(groups)
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

    axes.axhline(level, **DASHED)
    axes.annotate(
        label,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1.5 if above else -2),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        fontsize=SMALL_PRINT * font_scale(),
        color=REFERENCE_COLOUR,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Draw dashed lines, with their names to the right of the axes, as close to the lines as there is room.

    The limits of the axes must be final.
    """
    for level in levels.values():
        axes.axhline(level, **DASHED)
    inside = axes.transScale + axes.transLimits
    heights = {name: float(inside.transform((0, level))[1]) for name, level in levels.items()}
    places = apart(list(heights.values()), LINE_HEIGHT * font_scale())
    for (name, height), place in zip(heights.items(), places, strict=True):
        axes.annotate(
            name,
            (1, height),
            xycoords="axes fraction",
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL_PRINT * font_scale(),
            color=REFERENCE_COLOUR,
            arrowprops={
                "arrowstyle": "-",
                "color": REFERENCE_COLOUR,
                "linewidth": 0.4,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def apart(places: Sequence[float], least: float) -> list[float]:
    """Places from 0 to 1 moved until they are ``least`` apart, in their order and around their common middle.

    They remain between 0 and 1 if there is room.
    """

    def cluster(members: list[int]) -> _Cluster:
        half = min(0.5, len(members) * least / 2)
        return _Cluster(float(np.clip(np.mean([places[k] for k in members]), half, 1 - half)), members)

    clusters: list[_Cluster] = []
    for k in sorted(range(len(places)), key=lambda k: places[k]):
        clusters.append(cluster([k]))
        while len(clusters) > 1 and _overlap(clusters[-2], clusters[-1], least):
            clusters[-2:] = [cluster([*clusters[-2].members, *clusters[-1].members])]
    moved = [0.0] * len(places)
    for middle, members in clusters:
        for i, k in enumerate(members):
            moved[k] = middle + (i - (len(members) - 1) / 2) * least
    return moved


class _Cluster(NamedTuple):
    """Places that are moved as one: the indices of its members, the lowest first."""

    middle: float
    members: list[int]


def _overlap(below: _Cluster, above: _Cluster, least: float) -> bool:
    """Whether places of the two are closer than ``least``."""
    return above.middle - below.middle < least * (len(below.members) + len(above.members)) / 2


# Bars by system ------------------------------------------------------------------------------------------


def draw_final_values(axes: Axes, systems: Sequence[Sequence[Group]]) -> None:
    """The last value of finished runs for each system, ± standard error over seeds (Figure 3).

    An unfinished run is an open circle at its last value, and is not averaged. On a log axis, which has no
    zero, values are points instead of bars.
    """
    measure = systems[0][0].measure
    lines = [_compared(groups) for groups in systems]
    values = [run.level[-1] for groups in systems for group in groups for run in group.runs]
    values += [level for known in lines for level in known.values()]
    wide = measure is not RETURN and spans_a_decade(np.array(values))
    for group, place, width in _places(axes, systems):
        scores = group.scores
        error = scores.std(ddof=1) / np.sqrt(scores.size) if scores.size > 1 else None
        if scores.size and wide:
            axes.errorbar(place, scores.mean(), error, fmt="o", color=group.colour, markersize=2.8)
        elif scores.size:
            axes.bar(place, scores.mean(), width, color=group.colour)
        if error is not None and not wide:
            axes.errorbar(place, scores.mean(), error, color="black", linewidth=0.7, capsize=1.5)
        for run in group.unfinished:
            _draw_circle(axes, "black", place, run.level[-1])
    for k, known in enumerate(lines):
        for name, level in known.items():
            line: dict[str, Any] = {"color": REFERENCE_COLOUR, "linewidth": 0.8, "label": name or None}
            axes.hlines(
                level, k - 0.48, k + 0.48, linestyles="dotted" if name == RANDOM else "dashed", **line
            )
    if wide:
        _plain_log_axis(axes, (1, 2, 5))
    axes.set_ylabel(f"Final {'return per agent' if measure is RETURN else named(measure)}")


RANDOM = "random policy"


def _compared(groups: Sequence[Group]) -> dict[str, float]:
    """The levels that final values of a system are compared with, by their label, "" for none."""
    if groups[0].measure is RETURN:
        return dict(zip([""], main_references(groups).values(), strict=False))
    levels = reference_levels(groups)
    best = best_controller(levels, groups[0].measure)
    shown = {} if best is None else {"best hand-coded policy": levels[best]}
    return shown | ({RANDOM: levels["random"]} if "random" in levels else {})


def spans_a_decade(values: np.ndarray) -> bool:
    """Whether all values are positive, and the largest is ten times the least."""
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() >= DECADE * known.min())


def draw_runtimes(
    axes: Axes, systems: Sequence[Sequence[Group]], clock: Clock, beside: Sequence[Group] = ()
) -> None:
    """Hours of finished runs for each system, on a log2 axis (Figures 3, 5 and 6).

    If no run of a group is finished, the bar shows the longest one, hatched. beside: groups in other panels
    with the same axis.
    """
    shown = [group for groups in systems for group in groups]
    heights = np.array([_bar_hours(group, clock) for group in [*shown, *beside]])
    unit = time_unit(np.nanmax(heights, initial=0))
    for group, place, width in _places(axes, systems):
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


def _places(axes: Axes, systems: Sequence[Sequence[Group]]) -> list[tuple[Group, float, float]]:
    """Each group with the centre and width of its bar; a label has the same place in each system."""
    labels = list(dict.fromkeys(group.label for groups in systems for group in groups))
    width = BARS / len(labels)
    described = [groups[0].system for groups in systems]
    names = [system.name or f"{system.agents:,}" for system in described]
    axes.set_xticks(range(len(systems)), names)
    if len("".join(names)) > ROOMY:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(systems) - 0.5)
    axes.set_xlabel("" if any(system.name for system in described) else "Agents")
    axes.grid(visible=False, axis="x")
    left = (width - BARS) / 2
    return [
        (group, k + left + width * labels.index(group.label), 0.9 * width)
        for k, groups in enumerate(systems)
        for group in groups
    ]


# Maps ----------------------------------------------------------------------------------------------------


def draw_map(axes: Axes, group: Group, low: float, high: float, narrow: int = NARROW) -> None:
    """A map of the regions' last returns, means over seeds; colours from low to high.

    In small systems the returns are also written as numbers. narrow: characters in a line of the title.
    """
    returns = regional_returns(group)
    rows, columns = returns.shape
    axes.imshow(returns, cmap=MAP_COLOURS, vmin=low, vmax=high, aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    left_out = f", {len(group.unfinished)} unfinished" if group.unfinished else ""
    axes.set_title("\n".join([*wrap(group.label, narrow), f"{group.system.title}{left_out}"]))
    if max(rows, columns) > 7:
        return
    decimals = three_digits(max(abs(low), abs(high)))
    for (row, column), value in np.ndenumerate(returns):
        colour = "white" if value <= low + 0.6 * (high - low) else "black"
        axes.text(
            column,
            row,
            f"{value:.{decimals}f}",
            ha="center",
            va="center",
            color=colour,
            size=SMALLEST * font_scale(),
        )


def three_digits(largest: float) -> int:
    """The decimals (2, 1 or 0) that give numbers up to ``largest`` at most three digits."""
    return 2 - sum(round(largest, 3 - power) >= 10**power for power in (1, 2))


def final_returns(group: Group) -> np.ndarray:
    """Mean final returns of the agents [N], over finished runs, or all if none is."""
    return np.mean([run.returns[-1].mean(axis=0) for run in group.finished or group.runs], axis=0)


def regional_returns(group: Group) -> np.ndarray:
    """``final_returns`` by row and column of a grid."""
    return final_returns(group).reshape(group.runs[0].grid)


# Axes ----------------------------------------------------------------------------------------------------


def _label_returns(axes: Axes) -> None:
    axes.set_ylabel("Mean return per agent and episode")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)


def _label_statistic(axes: Axes, groups: Sequence[Group], levels: Mapping[str, float]) -> None:
    """Name the statistic and set the limits; a log axis if the values span a decade."""
    values = np.concatenate([[*levels.values()], *(np.asarray(line.get_ydata()) for line in axes.lines)])
    name = named(groups[0].measure)
    axes.set_ylabel(name[:1].upper() + name[1:])
    if spans_a_decade(values):
        axes.set_ylim(np.nanmin(values) / 1.15, np.nanmax(values) * 1.15)
        _plain_log_axis(axes, (1, 2, 5))
        return
    axes.update_datalim([(0, value) for value in levels.values()], updatex=False)
    axes.autoscale_view(scalex=False)
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)


def _label_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("Steps per agent")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda steps, _: short(steps))


def _label_time(axes: Axes, clock: Clock, unit: TimeUnit) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(f"Runtime ({unit.name}), {CLOCKS[clock]}")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _label_losses(axes: Axes) -> None:
    axes.set_ylabel("Cross-entropy (nats per source)")
    _plain_log_axis(axes, (1, 1.5, 2, 3, 4, 5, 7))


def _plain_log_axis(axes: Axes, subs: Sequence[float]) -> None:
    """A log axis with plain numbers; subs: those of each decade, divided by its power of ten.

    Only powers of ten are labelled if there is no room for all.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    roomy = len(subs) * np.log10(high / low) <= MOST_TICKS
    axes.yaxis.set_major_locator(LogLocator(subs=subs if roomy else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
