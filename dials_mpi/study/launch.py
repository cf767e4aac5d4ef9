"""The command line of each run: number of ranks, launcher, time limit."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.parallel.layout import usable_ranks
from dials_mpi.study.plan import StudyRun

RANKS = "{ranks}"


class Launch(NamedTuple):
    """How runs are started. ranks: the most for a run; launcher: words, one of which contains {ranks}."""

    ranks: int
    launcher: tuple[str, ...]

    def ranks_of(self, run: StudyRun) -> int:
        """The number of ranks for a run: as many as it can use; one where only root has work."""
        return usable_ranks(self.ranks, run.regions, run.config.global_ranks, run.config.mode == "global")

    def command(self, run: StudyRun, walltime: str | None) -> list[str]:
        """The command line that starts or continues the run; walltime: as of ``train``."""
        ranks = self.ranks_of(run)
        launcher = [word.replace(RANKS, str(ranks)) for word in self.launcher] if ranks > 1 else []
        limit = ["--walltime", walltime] if walltime else []
        return [
            *launcher,
            *(sys.executable, "-m", "dials_mpi.train", "--resume", *limit),
            *("--config", run.file, *run.overrides, "--output", str(run.directory)),
        ]


def plan_launch(ranks: int, launcher: str | None, runs: Iterable[StudyRun]) -> Launch:
    """How to start these runs. launcher: as on the command line; None: mpirun beside this Python or on PATH.

    BadInput: a launcher is needed and there is none, or the given one has no place for the number of ranks.
    """
    launch = Launch(ranks, ())
    if launcher is not None:
        return launch._replace(launcher=_words(launcher))
    if all(launch.ranks_of(run) == 1 for run in runs):
        return launch
    return launch._replace(launcher=(_mpirun(), "-n", RANKS))


def _words(launcher: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(launcher))
    except ValueError as error:
        raise BadInput(f"--launcher is {shown(launcher)}, which cannot be read ({error})") from None
    if not any(RANKS in word for word in words):
        raise BadInput(
            f"--launcher is {shown(launcher)}: write {RANKS} for the number of ranks, as in 'srun -n {RANKS}'"
        )
    if not shutil.which(words[0]):
        raise BadInput(
            f"--launcher is {shown(launcher)}, and there is no program {shown(words[0])}: correct it"
        )
    return words


def _mpirun() -> str:
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if not found:
        raise BadInput(
            "there is no mpirun: install the extra mpich or openmpi, load your site's MPI, name another "
            "launcher with --launcher, or give --ranks 1"
        )
    return found
