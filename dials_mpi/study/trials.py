"""The trials of a sweep so far, from their run files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, told
from dials_mpi.run.resume import configuration_of
from dials_mpi.storage.hdf5 import READ_ERRORS
from dials_mpi.storage.runfile import RunFile
from dials_mpi.study.plan import StudyRun
from dials_mpi.study.sampling import Asked, Sampling
from dials_mpi.study.state import Phase, State, state_of
from dials_mpi.study.sweep_plan import RETURN, Sweep


class Point(NamedTuple):
    """An evaluation: steps per agent, and the mean of the objective."""

    env_steps: int
    value: float


@dataclass
class Trial:
    """A trial.

    asked: None before it was begun. points: its evaluations, none after it was pruned. pruned: the steps per
    agent at which it was, 0 if not. refused: why its configuration is not valid, or empty. ended: it is
    complete, pruned or has failed.
    """

    run: StudyRun
    state: State
    asked: Asked | None = None
    points: tuple[Point, ...] = ()
    pruned: int = 0
    refused: str = ""
    ended: bool = False

    @property
    def complete(self) -> bool:
        """Whether the run is finished, and its value counts."""
        return self.state.phase is Phase.FINISHED


class Trials:
    """All trials of a sweep, which are begun and ended in their order.

    The run directories are all that is kept of them: a later session reads the values of the settings and the
    evaluations from there, and decides the same about each trial.
    """

    def __init__(self, sweep: Sweep, sampler: str) -> None:
        """sampler: as of ``Sampling``. BadInput: as of it, or a directory has a run of another sweep."""
        self.sweep, self._sampling = sweep, Sampling(sweep, sampler)
        self.all = [self._found(number) for number in range(self._sampling.trials)]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.all)

    def begin(self, number: int) -> Trial:
        """Ask for the values of a trial, unless its directory has them."""
        trial = self.all[number]
        if trial.asked:
            return trial
        known = self.sweep.drawn(trial.run.config) if _exists(trial.run) else None
        trial.asked = self._sampling.ask(number, known)
        try:
            trial.run = self.sweep.run(number, len(self.all), trial.asked.drawn)
        except BadInput as reason:
            trial.refused = str(reason)
        return trial

    def look(self, trial: Trial) -> State:
        """Read the state of a trial that was begun, and decide about its new evaluations."""
        trial.state = state_of(trial.run)
        if trial.asked and not trial.pruned:
            self._report(trial, trial.asked)
        if trial.pruned and trial.state.phase in (Phase.INTERRUPTED, Phase.FINISHED):
            trial.state = trial.state._replace(phase=Phase.PRUNED, env_steps=trial.pruned)
        return trial.state

    def _report(self, trial: Trial, asked: Asked) -> None:
        """Report new evaluations, one by one: the moment at which they are read has no effect.

        A run that is resumed repeats those after its checkpoint, with identical values.
        """
        reported = trial.points[-1].env_steps if trial.points else 0
        for point in evaluations(trial.run.directory, self.sweep.statistic):
            if point.env_steps <= reported:
                continue
            trial.points += (point,)
            if asked.report(*point) and point.env_steps < trial.run.config.total_steps:
                trial.pruned = point.env_steps
                return

    def end(self, trial: Trial) -> None:
        """A trial has ended: it is complete, pruned or has failed."""
        if trial.ended or trial.asked is None:
            return
        trial.ended = True
        if trial.state.phase is Phase.PRUNED:
            trial.asked.end_pruned()
        else:
            trial.asked.end(self.value(trial) if trial.complete else math.nan)

    def value(self, trial: Trial) -> float:
        """The objective of a trial so far; NaN if it has no evaluation after training has begun."""
        values = [point.value for point in trial.points if not math.isnan(point.value)]
        if self.sweep.options.objective == "last" or not values:
            return trial.points[-1].value if trial.points else math.nan
        return max(values) if self.sweep.higher else min(values)

    def ranked(self) -> list[Trial]:
        """All trials that were begun: complete ones first, the best before the others."""
        sign = -1 if self.sweep.higher else 1

        def place(trial: Trial) -> tuple[bool, bool, float, int]:
            value = self.value(trial)
            unknown = math.isnan(value)
            return not trial.complete, unknown, 0.0 if unknown else sign * value, trial.run.number

        return sorted((trial for trial in self.all if trial.asked), key=place)

    def best(self) -> Trial | None:
        """The best complete trial."""
        first = next(iter(self.ranked()), None)
        return first if first and first.complete and not math.isnan(self.value(first)) else None

    def replay(self, leading: bool = False) -> None:
        """Begin all trials that have a directory with a run, in order; end those that are over.

        leading: only those before the first one that is not over, which is asked for after them.
        """
        for number, trial in enumerate(self.all):
            if _exists(trial.run):
                self.look(self.begin(number))
            if trial.state.phase in (Phase.FINISHED, Phase.PRUNED):
                self.end(trial)
            elif leading:
                return

    def _found(self, number: int) -> Trial:
        """A trial with its values, if its directory has a run. BadInput: these are not in the ranges."""
        run = self.sweep.run(number, self._sampling.trials, None)
        if not _exists(run):
            return Trial(run, state_of(run))
        drawn = self.sweep.drawn(_configuration(run.directory))
        if drawn is None:
            raise BadInput(
                f"{printable(str(run.directory))} has values that are not in the ranges of "
                f"{self.sweep.where}: give the same ranges, or another folder with --output"
            )
        run = self.sweep.run(number, self._sampling.trials, drawn)
        return Trial(run, state_of(run))


def evaluations(directory: Path, statistic: str) -> tuple[Point, ...]:
    """The evaluations of a run after the beginning of its training; empty if there is no readable file.

    Values that an episode does not have are left out of the mean over episodes (and agents).
    """
    try:
        rows = RunFile.open(directory).labelled("evaluation", "evaluation_statistics")
    except (BadInput, *READ_ERRORS):
        return ()
    name = "returns" if statistic == RETURN else statistic
    if name not in rows or "env_steps" not in rows:
        return ()
    values = [_mean(row) for row in rows[name].values]
    steps = map(int, rows["env_steps"].values)
    return tuple(Point(at, value) for at, value in zip(steps, values, strict=False) if at)


def _configuration(directory: Path) -> Config:
    """The newest configuration of a run. BadInput: its file cannot be read."""
    try:
        return configuration_of(RunFile.open(directory))
    except READ_ERRORS as error:
        raise BadInput(f"{printable(str(directory))} cannot be read ({told(error)}): move it away") from None


def _mean(row: np.ndarray) -> float:
    known = row[np.isfinite(row)]
    return float(known.mean()) if known.size else math.nan


def _exists(run: StudyRun) -> bool:
    return RunFile(run.directory).exists()
