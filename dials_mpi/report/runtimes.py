"""Runtimes and memory of runs: Tables 1 to 3 (Appendices G and H of the paper).

A runtime is the time of training, of collecting data and of fitting predictors, without evaluations, as in
the paper. It is given by two clocks: the measured wall-clock time, and the CPU time of the slowest rank in
each phase, which estimates the wall-clock time with one core per rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from dials_mpi.report.groups import Group
from dials_mpi.report.runs import SPENT, RunData

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, str] = {"wall": "wall-clock", "cpu": "one core per rank"}
MINUTE, HOUR = 60.0, 3600.0


class TimeUnit(NamedTuple):
    """name: of the unit; factor: units per hour."""

    name: str
    factor: float


HOURS = TimeUnit("h", 1.0)


def time_unit(hours: float) -> TimeUnit:
    """The unit in which the largest time of an axis or a table is at least 1: seconds, minutes or hours."""
    if hours * HOUR < MINUTE:
        return TimeUnit("s", HOUR)
    return TimeUnit("min", HOUR / MINUTE) if hours < 1 else HOURS


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader expects."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h"


class Runtime(NamedTuple):
    """Hours of training, and of collecting data and fitting predictors; NaN where they are not known."""

    training: float
    influence: float

    @property
    def total(self) -> float:
        """The sum of both."""
        return self.training + self.influence


def spent(run: RunData, clock: Clock) -> np.ndarray:
    """Hours between each evaluation and the previous one, [T, 2]: training; data and predictors.

    All ranks wait for the slowest one at the end of a phase, so the hours of phases add up. In the schedule
    overlapped, data are collected during training, and only the time beyond that of training counts; the
    first collection counts fully.
    """
    if not run.timing:
        return np.full((len(run.env_steps), 2), np.nan)
    column = list(CLOCKS).index(clock)
    train, collect, fit = (run.timing[phase][:, :, column].max(axis=1) for phase in SPENT)
    if run.config.overlapped:
        collect[1:] = np.maximum(collect[1:] - train[1:], 0)
    hours = np.stack([train, collect + fit], axis=1) / HOUR
    # In that schedule a row is written with its evaluation, after the next segment.
    return np.concatenate([np.zeros((1, 2)), hours[:-1]]) if run.config.overlapped else hours


def core_seconds(run: RunData) -> np.ndarray:
    """CPU seconds of all ranks before each evaluation, [T], in the phases of ``SPENT``; NaN if not known."""
    if not run.timing:
        return np.full(len(run.env_steps), np.nan)
    seconds = np.sum([run.timing[phase][:, :, 1].sum(axis=1) for phase in SPENT], axis=0)
    return (np.append(0.0, seconds[:-1]) if run.config.overlapped else seconds).cumsum()


def runtime(run: RunData, clock: Clock, steps: int | None = None) -> Runtime:
    """The runtime of a run so far; steps: scaled to this number of steps per agent."""
    training, influence = spent(run, clock).sum(axis=0)
    if steps is None:
        return Runtime(training, influence)
    done = run.env_steps[-1]
    refits = 0 if run.refits is None else len(run.refits.env_steps)
    each = influence / refits if refits else 0.0
    return Runtime(training * steps / done if done else np.nan, each * -(-steps // run.config.retrain_every))


def mean_runtime(group: Group, clock: Clock, steps: int | None = None) -> Runtime:
    """The mean over the runs of a group with known runtimes; NaN if there are none."""
    parts = [runtime(run, clock, steps) for run in timed(group, steps)]
    return Runtime(*np.mean(parts, axis=0)) if parts else Runtime(np.nan, np.nan)


def timed(group: Group, steps: int | None) -> list[RunData]:
    """The finished runs; if there are none and runtimes are scaled, those that have trained."""
    begun = [run for run in group.runs if run.env_steps[-1]] if steps is not None else []
    return group.finished or begun


class Memory(NamedTuple):
    """Megabytes (10^6 bytes), means over runs.

    root, worker, total: peak resident set sizes of root, of the largest other rank (NaN without one), and of
    all ranks together. proportional: all proportional set sizes together, which count a shared page once.
    """

    root: float
    worker: float
    total: float
    proportional: float


def mean_memory(group: Group) -> Memory | None:
    """The mean over the finished runs of a group, or over all if none is finished; None if not known."""
    parts = [_memory(run) for run in group.finished or group.runs if run.peak_rss.size]
    return Memory(*np.mean(parts, axis=0)) if parts else None


def _memory(run: RunData) -> Sequence[float]:
    peaks = run.peak_rss / 1e6
    pss = run.pss.sum() / 1e6 if run.pss.size else np.nan
    return peaks[0], peaks[1:].max() if len(peaks) > 1 else np.nan, peaks.sum(), pss
