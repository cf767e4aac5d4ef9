"""What a rank has spent since the last row of ``timing`` and ``events``; a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.core.timing import PHASES, Stopwatch

WIDTH = 2 * len(PHASES) + 1


class UnrecordedCosts:
    """One rank's seconds by phase (wall-clock, CPU) and its simulators' breakdowns, as a row [WIDTH]."""

    def __init__(self, watch: Stopwatch, failures: Failures) -> None:
        self._watch, self._failures = watch, failures

    def row(self) -> np.ndarray:
        """As they are now, float64."""
        return np.append(self._watch.seconds.ravel(), self._failures.count)

    def restore(self, rows: Sequence[Sequence[float]], rank: int, size: int) -> None:
        """Go on from the rows of all ranks in a checkpoint; rank, size: of this session.

        With another number of ranks each takes over the seconds of the slowest one in each phase, so that
        what the run took stays the same, and root takes over the breakdowns.
        """
        before = np.asarray(rows, float).reshape(-1, WIDTH)
        if not len(before):
            return
        own = before[rank] if len(before) == size else before.max(axis=0)
        breakdowns = own[-1] if len(before) == size else before[:, -1].sum() * (rank == 0)
        self._watch.seconds += own[:-1].reshape(len(PHASES), 2)
        self._failures.count += int(breakdowns)
