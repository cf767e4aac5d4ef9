"""What a rank has spent since the last row of ``timing`` and ``events`` in the run file."""

from __future__ import annotations

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.core.timing import PHASES, Stopwatch
from dials_mpi.storage.progress import LONGEST

WIDTH = 2 * len(PHASES) + 1


class UnrecordedCosts:
    """One rank's seconds by phase (wall-clock, CPU) and its simulator failures, as a row [WIDTH]."""

    def __init__(self, watch: Stopwatch, failures: Failures) -> None:
        self._watch, self._failures = watch, failures

    def row(self) -> np.ndarray:
        """The present values, float64."""
        return np.append(self._watch.seconds.ravel(), self._failures.count)

    def restore(self, row: np.ndarray) -> None:
        """Add the values of a checkpoint."""
        self._watch.seconds += row[:-1].reshape(len(PHASES), 2)
        self._failures.count += int(row[-1])


def redistribute(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows [*, WIDTH] of the ranks of one session, for the ranks of the next: [size, WIDTH].

    With another number of ranks each gets the seconds of the slowest rank in each phase, so that the run's
    time stays the same, and root gets all failures.
    """
    if len(rows) == size:
        return rows
    every = np.zeros((size, WIDTH))
    if len(rows):
        every[:, :-1] = rows[:, :-1].max(axis=0)
        every[0, -1] = rows[:, -1].sum()
    return every


def valid(rows: np.ndarray) -> bool:
    """Whether the rows can have been written by a run."""
    return bool(((rows >= 0) & (rows < LONGEST)).all())
