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


def open_many(runs: str | Sequence[str | os.PathLike[str]], unchecked: bool = False) -> xarray.Dataset:
    """The evaluations of several runs along the dimension ``run``: ``Run.evaluations``, stacked.

    runs: directories, or a pattern such as "runs/warehouse-*"; what is not a run is left out of a pattern.
    Coordinates of ``run`` are its name, and ``domain``, ``agents``, ``mode``, ``F`` (retrain_every) and
    ``seed``. Entries that one run lacks are NaN. BadInput: there is no run, or one cannot be read.
    """
    found = _matching(runs) if isinstance(runs, str) else [Path(one) for one in runs]
    if not found:
        raise BadInput(f"no directory {printable(str(runs))} holds a run: give another pattern")
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


def _matching(pattern: str) -> list[Path]:
    """The directories of runs that a pattern names, sorted by name, seed2 before seed10."""
    found = sorted(glob.glob(os.path.expanduser(pattern)), key=series.natural)
    return [Path(one) for one in found if RunFile(one).exists()]
