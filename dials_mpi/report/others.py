"""Runs of another program, from JSON files, for comparison: Stable-Baselines3 on sumo-rl.

A file is one run: ``{"map": "resco:cologne8", "algorithm": "ppo", "seed": 0, "cpu_seconds": 900.0,
"evaluations": [{"hours": 0, "delay": 150.0}, ...]}``. Hours are simulated ones, of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.report.groups import Group
from dials_mpi.report.runs import System

LABEL = "Stable-Baselines3 {} on sumo-rl"
HOUR = 3600.0


@dataclass(frozen=True)
class Other:
    """The runs of one algorithm on one system, K seeds with T evaluations.

    hours: simulated, [T]; steps: the decisions of an agent in these hours, [T]; values: of the statistic,
    [K, T]; cpu_seconds: of each whole run, [K], NaN if not known.
    """

    system: System
    label: str
    hours: np.ndarray
    steps: np.ndarray
    values: np.ndarray
    cpu_seconds: np.ndarray


class _File(NamedTuple):
    """One run as its file says."""

    path: str
    map: str
    algorithm: str
    seed: int
    hours: np.ndarray
    values: np.ndarray
    cpu_seconds: float


def read_others(files: Sequence[str], groups: Sequence[Group]) -> list[Other]:
    """The runs in these files by system and algorithm, of the measure of the groups.

    BadInput: a file cannot be read or is not as described above; no group is of its map; two files are of one
    run; runs of one algorithm are not evaluated at the same hours; or the domain has no ``decision_every``.
    """
    read: dict[tuple[str, str], list[_File]] = {}
    for path in files:
        file = _read(path, groups[0].measure.name)
        read.setdefault((file.map, file.algorithm), []).append(file)
    found = [_other(runs, groups) for runs in read.values()]
    return sorted(found, key=lambda other: (other.system, other.label))


def _other(runs: Sequence[_File], groups: Sequence[Group]) -> Other:
    first, where = runs[0], printable(runs[0].path)
    name = first.map.rpartition(":")[2]
    group = next((group for group in groups if group.system.name == name), None)
    if group is None:
        raise BadInput(f"{where} is of the map {shown(first.map)}, and no run is: leave it out")
    section = group.runs[0].config.domain_section
    if not hasattr(section, "decision_every"):
        raise BadInput(f"{where} counts hours, and this domain has no decision_every: leave it out")
    _require_one_design(runs)
    return Other(
        group.system,
        LABEL.format(first.algorithm),
        first.hours,
        first.hours * HOUR / decision_steps(section),
        np.array([run.values for run in runs]),
        np.array([run.cpu_seconds for run in runs]),
    )


def _require_one_design(runs: Sequence[_File]) -> None:
    """BadInput: the runs are not of different seeds, evaluated at the same hours."""
    seen: dict[int, _File] = {}
    for run in runs:
        twin = seen.setdefault(run.seed, run)
        if twin is not run:
            names = f"{printable(twin.path)} and {printable(run.path)}"
            raise BadInput(f"{names} have the same map, algorithm and seed: give one of them")
        if not np.array_equal(run.hours, runs[0].hours):
            names = f"{printable(runs[0].path)} and {printable(run.path)}"
            raise BadInput(f"{names} are not evaluated at the same hours: give runs of one length")


def _read(path: str, statistic: str) -> _File:
    where = printable(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{where} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: give files of runs of another program") from error
    try:
        return _parse(path, content, statistic)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(
            f"{where} is not a run of another program: it needs map, algorithm, seed, and evaluations with "
            f"rising hours and {statistic}"
        ) from error


def _parse(path: str, content: Mapping[str, Any], statistic: str) -> _File:
    """KeyError, TypeError, ValueError: something is missing, or not a number."""
    hours = np.array([float(one["hours"]) for one in content["evaluations"]])
    values = np.array([float(one[statistic]) for one in content["evaluations"]])
    if not hours.size or not np.isfinite([hours, values]).all() or (np.diff(hours) <= 0).any():
        raise ValueError("evaluations")
    words = str(content["map"]), printable(str(content["algorithm"]))
    cpu_seconds = float(content.get("cpu_seconds") or np.nan)
    return _File(path, *words, int(content["seed"]), hours, values, cpu_seconds)
