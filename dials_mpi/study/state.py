"""The progress of a study's runs, from their files, and the time that remains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from dials_mpi.config.comparison import differences
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.run.resume import configuration_of
from dials_mpi.storage.files import locked_by
from dials_mpi.storage.hdf5 import READ_ERRORS
from dials_mpi.storage.runfile import RunFile
from dials_mpi.study.plan import StudyRun


class Phase(StrEnum):
    """The phase of a run. OTHER: it has other settings, so that the study cannot continue it.
    PRUNED: a sweep has stopped it for good; its file does not say so."""

    NOT_STARTED = "not started"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    PRUNED = "pruned"
    OTHER = "other settings"
    UNREADABLE = "unreadable"


class State(NamedTuple):
    """The state of a run: steps per agent, mean return and wall-clock seconds at its newest evaluation.

    holder: description of the process that runs it. trouble: why its file cannot be read, or which settings
    differ.
    """

    phase: Phase
    env_steps: int = 0
    mean_return: float = math.nan
    seconds: float = math.nan
    holder: str = ""
    trouble: str = ""

    @property
    def evaluated(self) -> bool:
        """Whether there is an evaluation, also that before training."""
        return not math.isnan(self.mean_return)


def state_of(run: StudyRun) -> State:
    """The state of a run, which another process may be running."""
    held = locked_by(run.directory)
    if not RunFile(run.directory).exists():
        return State(Phase.RUNNING if held else Phase.NOT_STARTED, holder=held or "")
    try:
        state = _read(run)
    except BadInput as error:
        state = State(Phase.UNREADABLE, trouble=str(error))
    except READ_ERRORS as error:
        state = State(Phase.UNREADABLE, trouble=f"{run.directory}: {error}")
    if not held:
        return state
    return state._replace(phase=state.phase if state.phase is Phase.OTHER else Phase.RUNNING, holder=held)


def _read(run: StudyRun) -> State:
    file = RunFile.open(run.directory)
    phase, trouble = _phase(run, file)
    row = file.last_row("evaluation")
    if not row:
        return State(phase, trouble=trouble)
    mean, seconds = float(row["returns"].mean()), float(row["wall_time"])
    return State(phase, int(row["env_steps"]), mean, seconds, trouble=trouble)


def _phase(run: StudyRun, file: RunFile) -> tuple[Phase, str]:
    """The phase of a run that no process runs, and which settings differ; finished runs can be extended."""
    same = file.attributes()["config_digest"] == run.config.digest()
    if not same:
        before = configuration_of(file)
        if changed := differences(before, run.config):
            return Phase.OTHER, f"{printable(str(run.directory))} was started with other settings: {changed}"
        same = before.total_steps == run.config.total_steps
    return Phase.FINISHED if same and file.finished() else Phase.INTERRUPTED, ""


def version_of(run: StudyRun) -> tuple[int, ...]:
    """Other numbers for each version of a run's file, which is replaced as a whole; empty without a file."""
    try:
        found = RunFile(run.directory).path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def ranks_of_sessions(run: StudyRun) -> list[int]:
    """The number of ranks of each session of a run; empty if there is no readable file."""
    try:
        return RunFile.open(run.directory).ranks() if RunFile(run.directory).exists() else []
    except (BadInput, *READ_ERRORS):
        return []


def remaining(runs: Sequence[StudyRun], states: Mapping[str, State]) -> float:
    """The ETA: estimated wall-clock seconds that these runs still need; NaN if no run has started.

    It uses the seconds per agent-step of runs of the same system and method, or of all runs without these.
    Pruned runs do not count: they are short, and the work at the beginning of a run is a large part of them.
    states: of all runs of the study that have started, by name.
    """
    rates: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        state = states.get(run.name)
        if state and state.env_steps and state.phase is not Phase.PRUNED:
            rate = state.seconds / (run.agents * state.env_steps)
            rates.setdefault((run.system, run.method), []).append(rate)
    if not rates:
        return math.nan
    known = {cell: sum(some) / len(some) for cell, some in rates.items()}
    usual = sum(known.values()) / len(known)
    return sum(
        known.get((run.system, run.method), usual) * run.agents * _steps_left(run, states.get(run.name))
        for run in runs
    )


def _steps_left(run: StudyRun, state: State | None) -> int:
    if state is None:
        return run.config.total_steps
    return (
        0
        if state.phase in (Phase.FINISHED, Phase.PRUNED)
        else max(0, run.config.total_steps - state.env_steps)
    )
