"""Simulators that fail: their episodes are dropped, they are started again, and the failure is counted."""

from __future__ import annotations

from collections.abc import Callable

from dials_mpi.core.logging import warn
from dials_mpi.domains.base import SimulatorFailure

MOST_IN_A_ROW = 3


class Failures:
    """The failures of one rank's simulators. count: since the last ``take``.

    beat: called while the simulators work, for the heartbeat.
    """

    def __init__(self, rank: int = 0, beat: Callable[[], None] = lambda: None) -> None:
        self._rank, self.beat = rank, beat
        self.count = self._in_a_row = 0

    def note(self, failure: SimulatorFailure) -> None:
        """Count one failure. RuntimeError: too many in a row; starting again does not help."""
        self.count += 1
        self._in_a_row += 1
        if self._in_a_row > MOST_IN_A_ROW:
            raise RuntimeError(f"the simulator failed {self._in_a_row} times in a row") from failure
        warn(f"{failure}; its episodes are dropped, and it is started again", self._rank)

    def over(self) -> None:
        """The simulators work again."""
        self._in_a_row = 0

    def take(self) -> int:
        """How many since the last call."""
        count, self.count = self.count, 0
        return count
