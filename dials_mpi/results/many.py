"""Several runs read back and stacked along one dimension."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.results import series
from dials_mpi.results.run import Run
from dials_mpi.storage.runfile import RunFile

if TYPE_CHECKING:
    import xarray


def open_many(runs: str | Sequence[str | os.PathLike[str]], *, unchecked: bool = False) -> xarray.Dataset:
    """The evaluations of several runs along the dimension ``run``: ``Run.evaluations``, stacked.

    runs: a pattern such as "runs/warehouse-*", or a list of directories and patterns; what is not a run is
    left out of a pattern.
    Coordinates of ``run`` are its name, and ``domain``, ``agents``, ``mode``, ``F`` (retrain_every) and
    ``seed``. Entries that one run lacks are NaN. BadInput: there is no run, one is there twice, or one
    cannot be read.
    """
    found = [path for one in ([runs] if isinstance(runs, str) else runs) for path in _matching(one)]
    if not found:
        raise BadInput(f"no directory {printable(str(runs))} holds a run: give another pattern")
    for path in found:
        if [other.resolve() for other in found].count(path.resolve()) > 1:
            raise BadInput(f"{printable(str(path))} is given twice: give each run once")
    opened = [Run.open(directory, unchecked=unchecked) for directory in found]
    configs = [run.config for run in opened]
    evaluations = [run.evaluations for run in opened]
    labels: dict[str, list[Any]] = {
        "domain": [config.domain for config in configs],
        "agents": [one.sizes["agent"] for one in evaluations],
        "mode": [config.mode for config in configs],
        "F": [config.retrain_every for config in configs],
        "seed": [config.seed for config in configs],
    }
    names = [directory.resolve().name for directory in found]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in found]
    return series.stacked_runs(dict(zip(names, evaluations, strict=True)), labels)


def _matching(given: str | os.PathLike[str]) -> list[Path]:
    """A directory, or those of runs that a pattern names, sorted by name, seed2 before seed10."""
    pattern = os.path.expanduser(os.fspath(given))
    if not glob.has_magic(pattern) or RunFile(pattern).exists():
        return [Path(pattern)]
    return [Path(one) for one in sorted(glob.glob(pattern), key=series.natural) if RunFile(one).exists()]
