"""The parts of the page about results: curves, final values, predictors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.report import panels
from dials_mpi.report.figures import band_text
from dials_mpi.report.groups import Curve, Group, best_controller, by_system, reference_levels, short
from dials_mpi.report.others import Other
from dials_mpi.report.page import charts, colours
from dials_mpi.report.page.charts import Chart, Line
from dials_mpi.report.page.markup import Markup, element, joined
from dials_mpi.report.runs import RETURN, named
from dials_mpi.report.runtimes import CLOCKS, Clock, time_unit
from dials_mpi.report.statistics import mean

OTHER_COLOURS = panels.OTHER_COLOURS
LEVEL_DASH = "2 3"
ABOUT_LOSSES = (
    "Points: at evaluations and just after refits. Dotted: class frequencies in the data of the last refit; "
    "they are no baseline for later evaluations, whose policies are others."
)


class Part(NamedTuple):
    """Content of a section, and the data of its charts that the script uses, in their order."""

    content: Markup
    data: Sequence[Mapping[str, object]] = ()


def measure_name(groups: Sequence[Group]) -> str:
    """What the report is about."""
    measure = groups[0].measure
    return "mean return per agent" if measure is RETURN else named(measure)


def _legend(groups: Sequence[Group], shown: Sequence[Group], others: Sequence[Other] = ()) -> Markup:
    """The colours and lines of the groups that are shown, of all groups of the page, and what bands are."""
    looks = {group.label: group for group in shown}
    items = [
        element("li", colours.sample(colours.colour(group, groups), colours.dash(group.line)), label)
        for label, group in looks.items()
    ]
    items += [
        element("li", colours.sample(_other_colour(other, others), "6 3"), label)
        for label, other in {other.label: other for other in others}.items()
    ]
    items.append(element("li", f"bands: {band_text(shown)}"))
    if any(group.unfinished for group in shown):
        items.append(element("li", "open circles: ends of unfinished runs"))
    return element("ul", *items, class_="legend")


def curves(groups: Sequence[Group], others: Sequence[Other], clock: Clock) -> Part:
    """Learning curves of each system, against steps and against the runtime."""
    found = []
    for same in by_system(groups):
        theirs = [other for other in others if other.system == same[0].system]
        found.append(_learning_curves(same, groups, theirs, others))
        if all(run.timing for group in same for run in group.runs):
            found.append(_curves_in_time(same, groups, clock))
    return _charts(found, _legend(groups, groups, others))


def _learning_curves(
    same: Sequence[Group], groups: Sequence[Group], theirs: Sequence[Other], others: Sequence[Other]
) -> Chart:
    lines = [_curve_line(group, groups, group.curve.env_steps) for group in same]
    lines += [
        Line(other.label, _other_colour(other, others), "6 3", other.steps, other.values.mean(axis=0))
        for other in theirs
    ]
    return _curve_chart(f"{same[0].system.title}, by steps", same, lines, "steps per agent", short)


def _curves_in_time(same: Sequence[Group], groups: Sequence[Group], clock: Clock) -> Chart:
    times = [panels.mean_elapsed(group, clock) for group in same]
    unit = time_unit(max(time[-1] for time in times))
    lines = [_curve_line(group, groups, time * unit.factor) for group, time in zip(same, times, strict=True)]
    name = f"runtime, {unit.name}, {CLOCKS[clock]}"
    return _curve_chart(f"{same[0].system.title}, by runtime", same, lines, name, "{:g}".format)


def _curve_chart(
    title: str, same: Sequence[Group], lines: Sequence[Line], x_name: str, text: Callable[[float], str]
) -> Chart:
    levels = _levels(same)
    shown = np.concatenate([*(line.y for line in lines), [*levels.values()]])
    log = same[0].measure is not RETURN and panels.spans_a_decade(shown)
    x = charts.x_axis(x_name, lines, levels, text=text)
    y = charts.y_axis(measure_name(same), lines, levels, log=log, zero=True)
    return charts.line_chart(title, lines, x, y, levels)


def _levels(same: Sequence[Group]) -> dict[str, float]:
    """The levels of policies that need no training: of returns the main ones."""
    return panels.main_references(same) if same[0].measure is RETURN else reference_levels(same)


def _curve_line(group: Group, groups: Sequence[Group], places: np.ndarray) -> Line:
    return _line(group, groups, places, group.curve)


def _line(group: Group, groups: Sequence[Group], places: np.ndarray, curve: Curve) -> Line:
    ends = sorted({len(run.env_steps) - 1 for run in group.unfinished})
    look = colours.colour(group, groups), colours.dash(group.line)
    return Line(group.label, *look, places, curve.mean, curve.standard_error, ends)


def _other_colour(other: Other, others: Sequence[Other]) -> str:
    labels = list(dict.fromkeys(one.label for one in others))
    return OTHER_COLOURS[labels.index(other.label) % len(OTHER_COLOURS)]


def _charts(found: Sequence[Chart], *above: Markup) -> Part:
    grid = element("div", *(chart.figure for chart in found), class_="grid")
    return Part(joined([*above, grid]), [chart.data for chart in found])


# Final values --------------------------------------------------------------------------------------------


def final_values(groups: Sequence[Group]) -> Part:
    """Final values of each system's methods, with 95 % intervals, and each run's own."""
    figures = [_final_chart(same, groups) for same in by_system(groups)]
    return Part(element("div", *figures, class_="grid"))


def _final_chart(same: Sequence[Group], groups: Sequence[Group]) -> Markup:
    rows = [_final_row(group, groups) for group in same]
    levels = _compared(same)
    values = np.array([v for row in rows for v in (*row.values, *row.unfinished)] + [*levels.values()])
    log = same[0].measure is not RETURN and panels.spans_a_decade(values)
    name = f"final {measure_name(same)}"
    return charts.interval_chart(same[0].system.title, name, rows, levels, log)


def _final_row(group: Group, groups: Sequence[Group]) -> charts.Interval:
    scores = group.scores
    interval = mean(scores) if scores.size else (np.nan, np.nan, np.nan)
    unfinished = [float(run.level[-1]) for run in group.unfinished]
    return charts.Interval(group.label, colours.colour(group, groups), *interval, scores.tolist(), unfinished)


def _compared(same: Sequence[Group]) -> dict[str, float]:
    """The random policy, and the best hand-coded one (of returns: the first one)."""
    levels = reference_levels(same)
    best = best_controller(levels, same[0].measure)
    names = [*panels.main_references(same)] if same[0].measure is RETURN else [best, "random"]
    return {name: levels[name] for name in names if name in levels}


# Predictors ----------------------------------------------------------------------------------------------


def predictors(groups: Sequence[Group]) -> Part:
    """Cross-entropies of each system's predictors, with each refit and the baseline: class frequencies."""
    predicted = [group for group in groups if group.cross_entropy is not None]
    found = [_entropy_chart(same, groups) for same in by_system(predicted)]
    return _charts(found, _legend(groups, predicted), element("p", ABOUT_LOSSES))


def _entropy_chart(same: Sequence[Group], groups: Sequence[Group]) -> Chart:
    lines = [line for group in same for line in _entropy_lines(group, groups)]
    x = charts.x_axis("steps per agent", lines, text=short)
    y = charts.y_axis("cross-entropy, nats per source", lines, log=True)
    return charts.line_chart(same[0].system.title, lines, x, y)


def _entropy_lines(group: Group, groups: Sequence[Group]) -> list[Line]:
    curve, refits = panels.loss_curve(group), group.refits
    line = _line(group, groups, curve.env_steps, curve)
    if refits is None:
        return [line]
    steps, losses = panels.with_refits(group)
    path = Line(line.label, line.colour, line.dash, steps, losses, exact=False)
    points = Line(line.label, line.colour, None, curve.env_steps, curve.mean, ends=line.ends, dots=True)
    after = Line(f"{line.label}, refitted", line.colour, None, refits.env_steps, refits.after, dots=True)
    return [path, points, after, _baseline(group, line)]


def _baseline(group: Group, line: Line) -> Line:
    """The level of class frequencies from each refit to the next one."""
    refits = group.refits
    assert refits is not None
    ends = np.append(refits.env_steps[1:], max(line.x[-1], refits.env_steps[-1]))
    steps, levels = np.stack([refits.env_steps, ends], axis=1).ravel(), np.repeat(refits.constant, 2)
    return Line(f"{line.label}, class frequencies", line.colour, LEVEL_DASH, steps, levels, exact=False)
