"""Pictures and tables of runs, from their run files: ``python -m dials_mpi.report DIR... --out FOLDER``.

Runs that differ only in their seed are averaged. Unfinished runs are shown and marked as such. runs.py reads
run files, groups.py averages runs; figures.py draws the pictures of the paper's Figures 3 to 8 from
panels.py; tables.py writes the tables, with runtimes.py (Tables 1 to 3), statistics.py and controllers.py
(methods against hand-coded policies); others.py reads runs of another program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.report import controllers, tables
from dials_mpi.report.figures import pictures, save_picture
from dials_mpi.report.groups import Group, group_runs, short
from dials_mpi.report.others import Other, read_others
from dials_mpi.report.runs import RETURN, RunData, named, read_run, read_runs
from dials_mpi.report.runtimes import Clock, timed
from dials_mpi.report.statistics import ENOUGH
from dials_mpi.report.tables import Row
from dials_mpi.results.style import require_report_libraries, style

__all__ = ["group_runs", "read_run", "read_runs", "report", "short"]


@style()  # raises BadInput if matplotlib is missing, before anything is written
def report(
    directories: Sequence[str],
    out: str,
    clock: Clock = "wall",
    steps: int | None = None,
    unchecked: bool = False,
    statistic: str | None = None,
    compare: Sequence[str] = (),
) -> tuple[list[RunData], list[Path]]:
    """Write the pictures and tables of these runs; the runs, and the files written.

    clock: of the runtimes in pictures. steps: per agent, to which the table of runtimes is scaled.
    unchecked: also read run files that another program has changed. statistic: of the domain, shown in place
    of the return. compare: files of runs of another program, for which a statistic is needed. BadInput: see
    ``read_runs`` and ``read_others``; or matplotlib or scipy is missing; or the folder cannot be written.
    """
    require_report_libraries()
    if compare and statistic is None:
        raise BadInput("--compare needs a statistic that both programs have: add --statistic NAME")
    runs = read_runs(directories, unchecked, statistic)
    groups = group_runs(runs)
    others = read_others(compare, groups)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, draw in pictures(groups, others).items():
            files += save_picture(folder / name, draw, groups, clock)
        return runs, files + _write_tables(folder, runs, groups, steps, others)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{printable(str(folder))} cannot be written ({reason}): choose another folder with --out"
        ) from error


def _write_tables(
    folder: Path,
    runs: Sequence[RunData],
    groups: Sequence[Group],
    steps: int | None,
    others: Sequence[Other],
) -> list[Path]:
    """One CSV file for each table, and ``tables.md`` with those of groups."""
    measure = groups[0].measure
    finals, better = ("returns", "higher") if measure is RETURN else ("finals", measure.better or "higher")
    by_run = {
        "summary": [tables.summary_row(run) for run in runs],
        "curves": [row for run in runs for row in tables.curve_rows(run)],
    }
    by_group: dict[str, tuple[str, Sequence[Row]]] = {
        finals: (f"Final {'returns' if measure is RETURN else named(measure)}", tables.final_rows(groups)),
        "improvement": (
            f"Probability of a {better} final {measure.name.replace('_', ' ')}",
            tables.improvement_rows(groups),
        ),
        "runtimes": ("Runtimes (Tables 1 and 2)", tables.runtime_rows(groups, steps)),
        "memory": ("Memory (Table 3)", tables.memory_rows(groups)),
    }
    written = {title: rows for title, rows in by_group.values() if rows}
    everything = by_run | {name: rows for name, (_, rows) in by_group.items()}
    if measure is not RETURN:
        against = controllers.comparisons(groups, others)
        unit = controllers.effort_unit(groups)
        written = {
            f"Controllers and methods, {named(measure)}": controllers.final_rows(against),
            "Until the mean over seeds passes the best controller": controllers.effort_rows(against, unit),
        } | written
        everything["controllers"] = controllers.wide_rows(against, unit)
    files = [tables.write_csv(folder / f"{name}.csv", rows) for name, rows in everything.items() if rows]
    return [*files, tables.write_markdown(folder / "tables.md", written, notes(groups, steps))]


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
        f"{ENOUGH} runs the bootstrap interval contains the true value in about 90 % of cases."
    )
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
