"""The command ``archive``: small copies of run files, without or with networks, to keep and to share.

``python -m dials_mpi.archive DIR [DIR ...] --out FOLDER [--with-policies]``
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
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable
from dials_mpi.results import membership
from dials_mpi.storage.runfile import RunFile

EXAMPLES = """examples:
  python -m dials_mpi.archive runs/figure-3-warehouse/* --out results/runs
  python -m dials_mpi.report results/runs/* --out figures         the same figures as of the runs themselves
  python -m dials_mpi.archive runs/four --out shared --with-policies
  python -m dials_mpi.evaluate shared/four                        the policies, without the run itself

FOLDER/NAME/run.h5 is a copy of the run file in the directory NAME without the parameters of policies and
predictors: kilobytes, not megabytes, for any HDF5 library and for report. With --with-policies it has them,
and evaluate, watch, check, export and train --policies-from can use it. --resume and --checkpoint need the
run itself. A copy that exists is replaced if it is of the same run and has nothing more."""


POLICIES = "policy/parameters"


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("archive", "Copy the results of runs, without or with their networks.", EXAMPLES)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the directory of a run")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", type=word, help="folder for the copies; created if missing"
    )
    parser.add_argument(
        "--with-policies", action="store_true", help="keep the policies and predictors of finished runs"
    )
    add_unchecked(parser)
    options = parser.parse_args(argv)
    try:
        for copy in archive(options.directories, options.out, options.unchecked, options.with_policies):
            print(f"{printable(str(copy))}: {copy.stat().st_size / 1e3:.0f} kB")
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(0)


def archive(
    directories: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    unchecked: bool = False,
    with_policies: bool = False,
) -> list[Path]:
    """Copy the results of these runs below ``out``, each under the name of its directory; the copies.

    All runs are checked before the first copy is written. unchecked: also copy files that another program has
    changed. with_policies: the copies keep policies and predictors. BadInput: a directory is no run; or two
    have one name; or a run file has no networks to keep; or the place of a copy holds anything but an older
    copy of the same run, or one with networks that would be lost; or a copy cannot be written.
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
        if with_policies:
            _require_networks(run)
        _require_free(run, copy, with_policies)
    for run, copy in zip(runs, copies, strict=True):
        try:
            copy.directory.mkdir(parents=True, exist_ok=True)
            run.archive(copy.directory, with_policies)
            if found := membership.read(run.directory):
                membership.write(copy.directory, found)
        except (OSError, ValueError, Unwritable) as error:
            cause = error.__cause__ or error  # the text of Unwritable is about runs
            reason = getattr(cause, "strerror", None) or cause
            where = printable(str(copy.path))
            raise BadInput(f"{where} cannot be written ({reason}): choose another --out") from error
    return [copy.path for copy in copies]


def _require_networks(run: RunFile) -> None:
    """BadInput: the run file has no policies."""
    if not run.has(POLICIES):
        why = "it is a copy without them" if run.archived() else "the run is not finished"
        remedy = "give the run itself" if run.archived() else f"finish it with {option('resume')}"
        raise BadInput(
            f"{printable(str(run.path))} has no policies, {why}: {remedy}, or omit --with-policies"
        )


def _require_free(run: RunFile, copy: RunFile, with_policies: bool) -> None:
    """BadInput: there is a run, or a copy of another run, or a copy with more of this one."""
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
    elif there.has(POLICIES) and not with_policies:
        what = "an archived copy with policies"
    if what:
        remedy = "choose another --out" + ", or keep them with --with-policies" * what.endswith("policies")
        raise BadInput(f"there is {what} in {printable(str(copy.directory))}: {remedy}")


if __name__ == "__main__":
    main()
