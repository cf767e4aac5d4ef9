"""What a report says in tables and notes, for its files and for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dials_mpi.report import controllers, paired, tables
from dials_mpi.report.groups import Group
from dials_mpi.report.others import Other
from dials_mpi.report.runs import RETURN, named
from dials_mpi.report.runtimes import timed
from dials_mpi.report.statistics import ENOUGH
from dials_mpi.report.tables import Row

RESULTS = ("returns", "finals", "paired", "paired-seeds", "improvement", "statistics")
"""The names of the tables about results; the others are about costs."""


class Titled(NamedTuple):
    """A table and its title; it may have no rows. data: the rows of its CSV file, None: the same ones."""

    title: str
    rows: Sequence[Row]
    data: Sequence[Row] | None = None


def tables_of_groups(groups: Sequence[Group], steps: int | None) -> dict[str, Titled]:
    """The tables of groups, by the names of their files; steps: to which runtimes are scaled."""
    measure = groups[0].measure
    finals, better = ("returns", "higher") if measure is RETURN else ("finals", measure.better or "higher")
    compared = _compared(groups)
    return {
        finals: Titled(f"F{compared[1:]}", tables.final_rows(groups)),
        "paired": paired_table(groups),
        "paired-seeds": Titled(f"Paired differences of {compared}, by seed", paired.seed_rows(groups)),
        "improvement": Titled(
            f"Probability of a {better} final {measure.name.replace('_', ' ')}",
            tables.improvement_rows(groups),
        ),
        "statistics": Titled("Statistics of the domain at the end", tables.statistic_rows(groups)),
        "runtimes": Titled(
            "Runtimes (Tables 1 and 2)",
            tables.runtime_rows(groups, steps, unit=None),
            tables.runtime_rows(groups, steps),
        ),
        "memory": Titled("Memory (Table 3)", tables.memory_rows(groups)),
    }


def paired_table(groups: Sequence[Group]) -> Titled:
    """Each method's difference from the first one."""
    return Titled(f"Paired differences of {_compared(groups)}", paired.difference_rows(groups))


def _compared(groups: Sequence[Group]) -> str:
    measure = groups[0].measure
    return f"final {'returns' if measure is RETURN else named(measure)}"


def tables_of_controllers(groups: Sequence[Group], others: Sequence[Other]) -> list[Titled]:
    """Methods against hand-coded policies; none in a report of returns."""
    measure = groups[0].measure
    if measure is RETURN:
        return []
    against = controllers.comparisons(groups, others)
    unit = controllers.effort_unit(groups)
    return [
        Titled(f"Controllers and methods, {named(measure)}", controllers.final_rows(against)),
        Titled(
            "Until the mean over seeds passes the best controller", controllers.effort_rows(against, unit)
        ),
    ]


def wide_controllers(groups: Sequence[Group], others: Sequence[Other]) -> Sequence[Row]:
    """Both tables of controllers in one, a row for each system; empty in a report of returns."""
    if groups[0].measure is RETURN:
        return []
    return controllers.wide_rows(controllers.comparisons(groups, others), controllers.effort_unit(groups))


def notes(groups: Sequence[Group], steps: int | None) -> list[str]:
    """Notes on the tables: missing seeds, unfinished runs, intervals."""
    lines = [
        f"{group.label}, {group.system.title}: seed {', '.join(map(str, group.missing))} is missing."
        for group in groups
        if group.missing
    ]
    lines += [
        f"{run.name} is unfinished, at {run.env_steps[-1]:,} of {run.config.total_steps:,} steps: it is "
        f"in the curves, not in final {'returns' if run.measure is RETURN else 'values'}."
        for group in groups
        for run in group.unfinished
    ]
    lines.append(
        "from, to: 95 % intervals, by Student's t for means over seeds, by Newcombe's method for "
        f"probabilities, by a bootstrap for interquartile means of at least {ENOUGH} runs of each size; with "
        f"{ENOUGH} runs the bootstrap interval contains the true value in about 90 % of cases. An "
        "interval of a difference that contains 0 shows no difference."
    )
    lines += paired.notes(groups)
    if groups[0].measure is not RETURN:
        lines.append(
            "better than the best: whether all of the interval is better than the best hand-coded policy; "
            f"{controllers.NEVER}: the mean over seeds never is. core-seconds: CPU time of all ranks for "
            "training, data and predictors."
        )
    if steps is not None:
        lines.append(f"Runtimes are scaled to {steps:,} steps per agent.")
        lines += [
            f"{group.label}, {group.system.title}: no run is finished, the runtimes are of unfinished ones."
            for group in groups
            if not group.finished and timed(group, steps)
        ]
    return lines
