"""Folders of runs, such as that of a study, in place of the directories of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dials_mpi.core.errors import BadInput
from dials_mpi.results.series import natural
from dials_mpi.storage.hdf5 import READ_ERRORS
from dials_mpi.storage.runfile import RunFile


class Found(NamedTuple):
    """runs: directories; begun: those of runs in folders that have no evaluation yet."""

    runs: Sequence[str]
    begun: Sequence[str]


def runs_in(given: Sequence[str]) -> Found:
    """The runs in these directories, each of which is a run or a folder of runs.

    What is neither is kept: it is refused where it is read.
    """
    runs: list[str] = []
    begun: list[str] = []
    for one in given:
        inside = [] if RunFile(one).exists() else _inside(one)
        for directory in inside:
            (runs if _is_evaluated(directory) else begun).append(directory)
        if not inside:
            runs.append(one)
    return Found(runs or [*begun], begun if runs else [])


def _inside(folder: str) -> list[str]:
    """The directories of runs in a folder, seed2 before seed10; "" is no folder."""
    if not folder:
        return []
    try:
        names = sorted((path.name for path in Path(folder).iterdir()), key=natural)
    except (OSError, ValueError):
        return []
    return [str(Path(folder) / name) for name in names if RunFile(Path(folder) / name).exists()]


def _is_evaluated(directory: str) -> bool:
    """Whether a run has an evaluation; also if its file cannot be read, which is reported later."""
    try:
        return RunFile.open(directory, unchecked=True).has("evaluation/env_steps")
    except (BadInput, *READ_ERRORS):
        return True
