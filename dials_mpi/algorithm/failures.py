"""Simulators that fail: their episodes are dropped, they are started again, and the failure is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dials_mpi.core.logging import warn
from dials_mpi.domains.base import SimulatorFailure

MOST_IN_A_ROW = 3


class Attempts(Sequence[np.random.Generator]):
    """The streams of episodes that are played again if their simulator fails: a slice is for one attempt.

    The first one has the streams themselves. Later ones have streams spawned from them, which do not depend
    on how many numbers were drawn before the failure: all ranks that play the episodes draw the same.
    """

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        self._streams = streams
        self._begun: set[int] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, part: slice) -> list[np.random.Generator]:  # type: ignore[override]
        own, first = list(self._streams[part]), part.indices(len(self))[0]
        again = first in self._begun
        self._begun.add(first)
        return [stream.spawn(1)[0] for stream in own] if again else own


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

    def agree(self) -> None:
        """A simulator's episodes have ended, here and on the ranks that play the same ones.

        SimulatorFailure: not on all of them.
        """

    def over(self) -> None:
        """The simulators work again."""
        self._in_a_row = 0

    def take(self) -> int:
        """How many since the last call."""
        count, self.count = self.count, 0
        return count
