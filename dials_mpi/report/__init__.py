"""Pictures and tables of runs, from run files alone: ``python -m dials_mpi.report DIR... --out FOLDER``.

Runs that differ only in their seed are averaged. An unfinished run is shown as far as it is, and as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dials_mpi.errors import BadInput
from dials_mpi.report.figures import draw_cross_entropy, draw_learning_curves, save_picture
from dials_mpi.report.groups import group_runs, short
from dials_mpi.report.runs import Run, read_run, read_runs
from dials_mpi.report.style import style
from dials_mpi.report.tables import curve_rows, summary_row, write_csv
from dials_mpi.values import printable

__all__ = [
    "draw_cross_entropy",
    "draw_learning_curves",
    "group_runs",
    "read_run",
    "read_runs",
    "report",
    "short",
]


@style()  # which refuses a missing matplotlib before anything is written
def report(directories: Sequence[str], out: str) -> tuple[list[Run], list[Path]]:
    """Write the pictures and tables of these runs; the runs, and the files written.

    BadInput: see ``read_runs``, or matplotlib is missing, or the folder cannot be written.
    """
    runs = read_runs(directories)
    groups = group_runs(runs)
    predicted = [group for group in groups if group.cross_entropy is not None]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = save_picture(folder / "learning-curves", draw_learning_curves, groups)
        if predicted:
            files += save_picture(folder / "cross-entropy", draw_cross_entropy, predicted)
        files.append(write_csv(folder / "summary.csv", [summary_row(run) for run in runs]))
        files.append(write_csv(folder / "curves.csv", [row for run in runs for row in curve_rows(run)]))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{printable(str(folder))} cannot be written ({reason}): choose another folder with --out"
        ) from error
    return runs, files
