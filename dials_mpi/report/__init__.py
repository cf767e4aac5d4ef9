"""Pictures, tables and a page of runs, from their run files: ``python -m dials_mpi.report DIR... --out X``.

Runs that differ only in their seed are averaged. Unfinished runs are shown and marked as such. runs.py reads
run files, groups.py averages runs; figures.py draws the pictures of the paper's Figures 3 to 8 from
panels.py; tables.py makes the tables, with runtimes.py (Tables 1 to 3), statistics.py and controllers.py
(methods against hand-coded policies), and contents.py collects them; others.py reads runs of another program.
latex.py writes tables for a paper, paired.py compares methods seed by seed, folders.py finds a study's runs.
page/ writes all of it as one HTML file, marl_eval.py the evaluations as JSON for marl-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.report import tables
from dials_mpi.report.contents import notes, tables_of_controllers, tables_of_groups, wide_controllers
from dials_mpi.report.figures import Size, pictures, save_picture
from dials_mpi.report.groups import Group, group_runs, labels_of, short
from dials_mpi.report.latex import write_latex
from dials_mpi.report.marl_eval import write_marl_eval
from dials_mpi.report.others import Other, read_others
from dials_mpi.report.page import write_page
from dials_mpi.report.runs import RunData, read_run, read_runs
from dials_mpi.report.runtimes import Clock
from dials_mpi.results.style import FONT_SIZE, require_report_libraries, require_scipy, style

__all__ = ["group_runs", "notes", "read_run", "read_runs", "report", "short"]


def report(
    directories: Sequence[str],
    out: str | None = None,
    clock: Clock = "wall",
    steps: int | None = None,
    unchecked: bool = False,
    statistic: str | None = None,
    compare: Sequence[str] = (),
    html: str | None = None,
    marl_eval: str | None = None,
    size: Size | None = None,
    font_size: float = FONT_SIZE,
) -> tuple[list[RunData], list[Path]]:
    """Write what is asked for about these runs; the runs, and the files written.

    out: a folder for pictures and tables. clock: of the runtimes in pictures. steps: per agent, to which the
    table of runtimes is scaled. unchecked: also read run files that another program has changed. statistic:
    of the domain, shown in place of the return. compare: files of runs of another program, for which a
    statistic is needed. html: a file for one page with everything. marl_eval: a JSON file. size: of each
    picture; None: what its content needs. font_size: of pictures, points.
    BadInput: see ``read_runs`` and ``read_others``; or matplotlib (for ``out``) or scipy (for ``out`` and
    ``html``) is missing; or a file cannot be written.
    """
    if out is not None:
        require_report_libraries()
    if html is not None:
        require_scipy()
    if compare and statistic is None:
        raise BadInput("--compare needs a statistic that both programs have: add --statistic NAME")
    runs = read_runs(directories, unchecked, statistic)
    groups = group_runs(runs)
    others = read_others(compare, groups)
    files = []
    if out is not None:
        with style(font_size):
            files += _write_folder(Path(out), runs, groups, clock, steps, others, size)
    if html is not None:
        write_page(Path(html), runs, groups, others, clock, steps)
        files.append(Path(html))
    if marl_eval is not None:
        write_marl_eval(Path(marl_eval), groups)
        files.append(Path(marl_eval))
    return runs, files


def _write_folder(
    folder: Path,
    runs: Sequence[RunData],
    groups: Sequence[Group],
    clock: Clock,
    steps: int | None,
    others: Sequence[Other],
    size: Size | None,
) -> list[Path]:
    """The pictures and tables. BadInput: the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, draw in pictures(groups, others).items():
            files += save_picture(folder / name, draw, groups, clock, size)
        return files + _write_tables(folder, runs, groups, steps, others)
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
    """One CSV file for each table, and ``tables.md`` and ``tables.tex`` with those of groups."""
    by_group, labels = tables_of_groups(groups, steps), labels_of(groups)
    recorded = [name for name in runs[0].statistics if any(name in run.recorded for run in runs)]
    everything = {
        "summary": [tables.summary_row(run, labels[run.name]) for run in runs],
        "curves": [row for run in runs for row in tables.curve_rows(run, labels[run.name], recorded)],
        **{name: table.rows if table.data is None else table.data for name, table in by_group.items()},
        "controllers": wide_controllers(groups, others),
    }
    files = [tables.write_csv(folder / f"{name}.csv", rows) for name, rows in everything.items() if rows]
    titled = [*tables_of_controllers(groups, others), *by_group.values()]
    written = {table.title: tables.to_read(table.rows) for table in titled if table.rows}
    files.append(tables.write_markdown(folder / "tables.md", written, notes(groups, steps)))
    return [*files, write_latex(folder / "tables.tex", written)] if written else files
