"""Small copies of run files, without networks: results to keep, to share, and to put into a repository.

As a program: ``python -m dials_mpi.archive DIR [DIR ...] --out FOLDER``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dials_mpi.cli import Parser, add_unchecked, word
from dials_mpi.config import from_yaml
from dials_mpi.config.comparison import differences
from dials_mpi.core.errors import BadInput, Unwritable, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.storage.runfile import RunFile

EXAMPLES = """examples:
  python -m dials_mpi.archive runs/figure-3-warehouse/* --out results/runs
  python -m dials_mpi.report results/runs/* --out figures         the same figures as of the runs themselves

FOLDER/NAME/run.h5 holds all that the run file in the directory NAME does, but for the parameters of its
policies and predictors: kilobytes in place of megabytes, for any HDF5 library and for report. What needs
networks or checkpoints (--resume, evaluate, watch, export) needs the run itself. A copy that is there is
replaced by one of the same run that has come as far."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("archive", "Copy the results of runs, without their networks.", EXAMPLES)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the directory of a run")
    parser.add_argument("--out", required=True, metavar="FOLDER", type=word, help="made if missing")
    add_unchecked(parser)
    options = parser.parse_args(argv)
    try:
        for copy in archive(options.directories, options.out, options.unchecked):
            print(f"{printable(str(copy))}: {copy.stat().st_size / 1e3:.0f} kB")
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(0)


def archive(
    directories: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], unchecked: bool = False
) -> list[Path]:
    """Copy the results of these runs below ``out``, each under the name of its directory; the copies.

    All are looked at before the first is written. unchecked: files that another program has changed are
    copied as well. BadInput: one is no run, or has the name of another one, or its place is taken by anything
    but an older copy of it, or the disk does not take it.
    """
    runs = [RunFile.open(directory, unchecked) for directory in directories]
    copies = [RunFile(Path(out) / run.directory.resolve().name) for run in runs]
    taken: dict[Path, RunFile] = {}
    for run, copy in zip(runs, copies, strict=True):
        twin = taken.setdefault(copy.path, run)
        if twin is not run:
            raise BadInput(
                f"{printable(str(twin.directory))} and {printable(str(run.directory))} have the same name: "
                "archive them in two folders"
            )
        _require_free(run, copy)
    for run, copy in zip(runs, copies, strict=True):
        try:
            copy.directory.mkdir(parents=True, exist_ok=True)
            run.archive(copy.directory)
        except (OSError, ValueError, Unwritable) as error:
            cause = error.__cause__ or error  # Unwritable speaks of runs
            reason = getattr(cause, "strerror", None) or cause
            where = printable(str(copy.path))
            raise BadInput(f"{where} cannot be written ({reason}): choose another --out") from error
    return [copy.path for copy in copies]


def _require_free(run: RunFile, copy: RunFile) -> None:
    """BadInput: there is a run itself, or a copy of another one, or of this one when it had come further."""
    if not copy.exists():
        return
    there = RunFile.open(copy.directory)
    older, newer = (from_yaml(one.configuration(), printable(str(one.path))) for one in (there, run))
    what = None
    if not there.archived():
        what = "a run"
    elif differences(older, newer):
        what = "an archived copy of another run"
    elif there.trained() > run.trained():
        what = f"an archived copy after {there.trained():,} steps, more than {run.trained():,},"
    if what:
        raise BadInput(f"there is {what} in {printable(str(copy.directory))}: choose another --out")


if __name__ == "__main__":
    main()
