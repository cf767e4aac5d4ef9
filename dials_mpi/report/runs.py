"""Read runs from their run files for the report, and check that they are of one system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dials_mpi import settings
from dials_mpi.config import Config
from dials_mpi.config.schema import OWN_EPISODES
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains import find
from dials_mpi.domains.base import Statistic
from dials_mpi.report.details import Details, Places, read_details, read_places
from dials_mpi.report.folders import runs_in
from dials_mpi.results.membership import Membership, read
from dials_mpi.results.run import Run
from dials_mpi.storage.hdf5 import READ_ERRORS
from dials_mpi.storage.runfile import RunFile

SPENT = ("train", "collect", "influence")
"""The phases that the paper's runtimes include (Appendix G)."""

RETURN = Statistic("return", "", "mean return per agent and episode", "higher")
"""What a report is about unless it is asked for a statistic of the domain."""


def named(measure: Statistic) -> str:
    """The name of a measure in words, with its unit."""
    return measure.name.replace("_", " ") + (f" ({measure.unit})" if measure.unit else "")


class System(NamedTuple):
    """What runs are compared within, in the order of reports.

    agents: their number N. name: empty if the number of agents alone tells a domain's systems apart.
    """

    agents: int
    name: str = ""

    @property
    def title(self) -> str:
        """The system in pictures and notes."""
        return self.name or f"{self.agents:,} agents"

    @property
    def columns(self) -> dict[str, Any]:
        """The system in a row of a table."""
        return {"system": self.name, "agents": self.agents} if self.name else {"agents": self.agents}


class Refits(NamedTuple):
    """Each refit of the predictors [R]: steps per agent, and nats per source averaged over regions."""

    env_steps: np.ndarray
    before: np.ndarray
    after: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True)
class RunData:
    """The content of a run file with T evaluations.

    env_steps: [T] per agent; wall_time: [T] in seconds; returns: [T, E, N]; cross_entropy: [T], nats per
    source averaged over regions, where there are predictors. references: mean return of each policy that
    needs no training, empty in an unfinished run. statistics: [T, E] each, the domain's own, and
    reference_statistics: their means for each policy, by statistic and policy; those that the domain did not
    have yet are NaN. measure: what the report is
    about.
    timing: seconds of each phase in ``SPENT`` before each evaluation, [T, W, 2] (wall-clock, CPU). peak_rss,
    pss: bytes of each rank [W]. These three are empty where the file does not hold them. details: of its
    sessions and of all phases. recorded: the statistics in the file; those that the domain got later are
    NaN. places: of the agents on a map, if the domain gives them. membership: the study that the run is of,
    None if there is none.
    """

    name: str
    config: Config
    finished: bool
    env_steps: np.ndarray
    wall_time: np.ndarray
    returns: np.ndarray
    cross_entropy: np.ndarray | None
    refits: Refits | None
    references: Mapping[str, float]
    statistics: Mapping[str, np.ndarray]
    reference_statistics: Mapping[str, Mapping[str, float]]
    timing: Mapping[str, np.ndarray]
    peak_rss: np.ndarray
    pss: np.ndarray
    details: Details
    recorded: Sequence[str] = ()
    places: Places | None = None
    measure: Statistic = RETURN
    membership: Membership | None = None

    @property
    def system(self) -> System:
        """The system that the run is of; its name comes from the domain's section, if that gives one."""
        return System(self.agents, getattr(self.config.domain_section, "system_name", ""))

    @property
    def agents(self) -> int:
        """The number of agents N."""
        return self.returns.shape[2]

    @property
    def peak_memory(self) -> float:
        """The sum of the ranks' peaks in bytes; NaN where they are not known."""
        return float(self.peak_rss.sum()) if self.peak_rss.size else float("nan")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the regions' grid; one row where the domain has no grid."""
        rows, columns = getattr(self.config.domain_section, "grid", (1, self.agents))
        return (rows, columns) if rows * columns == self.agents else (1, self.agents)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean return per agent and episode [T]."""
        return self.returns.mean(axis=(1, 2))

    @cached_property
    def standard_error(self) -> np.ndarray:
        """The standard error of the mean over episodes [T]; NaN for a single episode."""
        return standard_error(self.returns.mean(axis=2).T)

    @cached_property
    def level(self) -> np.ndarray:
        """The mean of the measure over episodes [T]."""
        return self.mean if self.measure is RETURN else mean_of_known(self.statistics[self.measure.name])

    @cached_property
    def level_error(self) -> np.ndarray:
        """The standard error of ``level`` over episodes [T]; NaN for a single episode."""
        if self.measure is RETURN:
            return self.standard_error
        return standard_error(self.statistics[self.measure.name].T)

    @property
    def reference_levels(self) -> Mapping[str, float]:
        """The mean of the measure for each policy that needs no training, known ones only."""
        if self.measure is RETURN:
            return self.references
        return self.reference_statistics[self.measure.name]


def read_run(directory: str, unchecked: bool = False) -> RunData:
    """The run in a directory. BadInput: there is none, it cannot be read, or it has no evaluation yet.

    unchecked: also read a file that another program has changed.
    """
    run = Run.open(directory, unchecked=unchecked)
    file, where = run.recorded, printable(str(run.recorded.path))
    if not file.has("evaluation/env_steps"):
        raise BadInput(f"{where} holds no evaluation yet: report it after its first one")
    try:
        return replace(_read_evaluated(file, run.config), membership=read(file.directory))
    except READ_ERRORS as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise BadInput(f"{where} is not a run file, or a damaged one: {reason}") from error


def _read_evaluated(file: RunFile, config: Config) -> RunData:
    """The run. READ_ERRORS: the file is not as a run writes it."""
    finished = file.finished()  # read first: if it is true, all that follows is final
    steps = _numbers(file, "evaluation/env_steps", 1)
    if not len(steps):
        raise ValueError("evaluation has no rows")
    if (np.diff(steps) <= 0).any():
        raise ValueError("evaluation/env_steps does not grow")

    def series(name: str, dimensions: int) -> np.ndarray:
        rows = _numbers(file, name, dimensions)[: len(steps)]  # the run may have added a row since
        if len(rows) < len(steps):
            raise ValueError(f"{name} has fewer rows than evaluation/env_steps")
        return rows

    domain: type[Any] = find(config.domain)[0]
    policies = ("random", *domain.hand_coded)
    returns = series("evaluation/returns", 3)
    recorded = [one.name for one in domain.statistics if file.has(f"evaluation_statistics/{one.name}")]
    if not np.isfinite(returns).all():
        raise ValueError("evaluation/returns are not all finite")
    return RunData(
        name=printable(file.directory.resolve().name),
        config=config,
        finished=finished,
        env_steps=steps,
        wall_time=series("evaluation/wall_time", 1),
        returns=returns,
        cross_entropy=series("evaluation/cross_entropy", 2).mean(axis=1)
        if file.has("evaluation/cross_entropy")
        else None,
        refits=_read_refits(file) if file.has("influence") else None,
        references={
            name: float(_numbers(file, f"reference/{name}", 2).mean())
            for name in policies
            if file.has(f"reference/{name}")
        },
        statistics={
            statistic.name: series(f"evaluation_statistics/{statistic.name}", 2)
            if statistic.name in recorded
            else np.full(returns.shape[:2], np.nan)
            for statistic in domain.statistics
        },
        reference_statistics={
            statistic.name: _read_references(file, policies, statistic.name)
            for statistic in domain.statistics
        },
        timing=_read_timing(file, series),
        peak_rss=_memory(file, "peak_rss"),
        pss=_memory(file, "pss"),
        details=read_details(file, series),
        recorded=recorded,
        places=read_places(file, returns.shape[2]),
    )


def _read_references(file: RunFile, policies: Sequence[str], statistic: str) -> dict[str, float]:
    """The mean of a statistic over the episodes of each policy, where it is known."""
    names = {policy: f"reference_statistics/{policy}/{statistic}" for policy in policies}
    episodes = {policy: _numbers(file, name, 1) for policy, name in names.items() if file.has(name)}
    return {policy: float(mean_of_known(row)) for policy, row in episodes.items() if np.isfinite(row).any()}


def _read_timing(file: RunFile, series: Callable[[str, int], np.ndarray]) -> dict[str, np.ndarray]:
    """Seconds by phase; NaN, of ranks that a session did not have, becomes 0."""
    if not file.has("timing"):
        return {}
    return {phase: np.nan_to_num(series(f"timing/{phase}", 3)) for phase in SPENT}


def _memory(file: RunFile, name: str) -> np.ndarray:
    return _numbers(file, f"memory/{name}", 1) if file.has(f"memory/{name}") else np.empty(0)


def _numbers(file: RunFile, name: str, dimensions: int) -> np.ndarray:
    """A dataset of numbers. ValueError: it has another type or shape."""
    array = file.read(name)
    if array.ndim != dimensions or array.dtype.kind not in "fi" or 0 in array.shape[1:]:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
    return array


def mean_of_known(rows: np.ndarray) -> np.ndarray:
    """The mean over the last axis without NaN; NaN where all are NaN."""
    known = np.isfinite(rows)
    count = known.sum(axis=-1)
    return np.divide(
        np.where(known, rows, 0).sum(axis=-1), count, np.full(count.shape, np.nan), where=count > 0
    )


def _read_refits(file: RunFile) -> Refits:
    steps = _numbers(file, "influence/env_steps", 1)
    losses = [
        _numbers(file, f"influence/cross_entropy_{name}", 2)[: len(steps)].mean(axis=1)
        for name in Refits._fields[1:]
    ]
    return Refits(steps, *losses)


def read_runs(
    directories: Sequence[str], unchecked: bool = False, statistic: str | None = None
) -> list[RunData]:
    """All runs in these directories, each a run or a folder of runs.

    statistic: their measure, in place of the return.
    BadInput: see ``read_run`` and ``measure_of``, or they are not of the same system, or one is given twice.
    """
    directories = runs_in(directories).runs
    runs = [read_run(directory, unchecked) for directory in directories]
    if statistic is not None:
        runs = [replace(run, measure=measure_of(run, statistic)) for run in runs]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):  # two directories have one name
        runs = [replace(run, name=printable(given)) for run, given in zip(runs, directories, strict=True)]
    first_of_system: dict[System, RunData] = {}
    for run in runs:
        require_same_system(runs[0], run)
        require_same_system(first_of_system.setdefault(run.system, run), run)
    seen: dict[str, RunData] = {}
    for run in runs:
        twin = seen.setdefault(training(run.config).digest(), run)
        if twin is not run:
            raise BadInput(
                f"{twin.name} and {run.name} have the same configuration and seed: give one of them"
            )
    return runs


def training(config: Config) -> Config:
    """The configuration without the setting that only chooses the episodes of evaluations."""
    return replace(config, evaluation_seed=OWN_EPISODES)


def measure_of(run: RunData, name: str) -> Statistic:
    """The statistic of this name of the run's domain. BadInput: it has none of this name, or the run has no
    value of it."""
    domain: type[Any] = find(run.config.domain)[0]
    known = {statistic.name: statistic for statistic in domain.statistics}
    if name not in known:
        choice = f"choose one of {', '.join(known)}" if known else "leave the option out"
        has = "has no statistic of this name" if known else "has no statistics"
        raise BadInput(f"--statistic is {shown(name)}, but the domain {run.config.domain} {has}: {choice}")
    if not np.isfinite(run.statistics[name]).any():
        raise BadInput(
            f"--statistic is {name}, and {run.name} has no value of it (it is older than this statistic, "
            "or did not compute it): choose another statistic, or leave the run out"
        )
    return known[name]


def require_same_system(one: RunData, other: RunData) -> None:
    """BadInput: the runs differ in their domain, or in its settings, but for those of the size.

    Systems with different names may differ in all settings. In a domain without a grid the settings of the
    size are not known; there, runs with different numbers of agents may differ in all. The block size is a
    setting of training, not of the system.
    """
    domain = one.config.domain
    if other.config.domain != domain:
        raise BadInput(
            f"{one.name} is of the {domain} domain and {other.name} of the {other.config.domain} domain: "
            "report them separately"
        )
    if other.system.name != one.system.name:
        return
    theirs, section = settings.flat(other.config), one.config.domain_key
    may_differ = {f"{section}.block"}
    if other.agents != one.agents:
        if f"{section}.grid" not in theirs:
            return
        may_differ.add(f"{section}.grid")
    for key, value in settings.flat(one.config).items():
        if key.startswith(f"{section}.") and key not in may_differ and theirs[key] != value:
            raise BadInput(
                f"{key} is {value} in {one.name} and {theirs[key]} in {other.name}, so they cannot be "
                "compared: report them separately"
            )


def standard_error(rows: np.ndarray) -> np.ndarray:
    """The standard error of the mean over axis 0, without NaN; NaN for fewer than two values."""
    count = np.isfinite(rows).sum(axis=0)
    squares = np.nansum((rows - mean_of_known(rows.T)) ** 2, axis=0)
    return np.sqrt(squares / np.where(count > 1, (count - 1.0) * count, np.nan))
