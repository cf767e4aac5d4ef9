"""The global ranks that play the same episodes: they exchange actions, and play again together.

Each advances the same simulator with the same random streams. If it fails on one of them, all play the
episodes again, with the streams of the next attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.parallel.communicator import Group

FAILED = np.iinfo(np.uint16).max
"""In place of actions: the simulator of that rank has failed."""


class PartnerFailure(SimulatorFailure):
    """The simulator of another rank of the group has failed."""


class GroupPartners:
    """The ``Partners`` of a rank in a group. Every exchange is one small message of equal size.

    agents, regions, everyone: see ``Partners``.
    """

    def __init__(self, group: Group, parts: Sequence[range], regions: range) -> None:
        """parts: the agents of each rank of the group."""
        self._group, self._counts, self._episodes = group, [len(part) for part in parts], 0
        self.agents, self.regions, self.everyone = parts[group.rank], regions, parts[-1].stop

    def begin(self, episodes: int) -> None:
        """So many episodes are played side by side from now on."""
        self._episodes = episodes

    def complete(self, actions: np.ndarray) -> None:
        """See ``Partners``."""
        actions[:] = self._exchanged(actions[self.agents.start : self.agents.stop])

    def agree(self) -> None:
        """All ranks of the group have come to the end. PartnerFailure: one has not."""
        self._exchanged(self._rows(0))

    def fail(self) -> None:
        """Tell the others, in the exchange for which they wait, that the simulator here has failed."""
        self._group.allgather(self._rows(FAILED), self._counts)

    def _exchanged(self, own: np.ndarray) -> np.ndarray:
        every = self._group.allgather(own.astype(np.uint16), self._counts)
        if (every == FAILED).any():
            raise PartnerFailure("the simulator of another rank failed")
        return every

    def _rows(self, value: int) -> np.ndarray:
        return np.full((len(self.agents), self._episodes), value, np.uint16)


class GroupFailures(Failures):
    """The failures of one rank's simulators where a group plays the same episodes."""

    def __init__(self, own: Failures, partners: GroupPartners) -> None:
        """own: counts those of this rank."""
        self._own, self._partners, self.beat = own, partners, own.beat

    def note(self, failure: SimulatorFailure) -> None:
        """Count a failure of this rank's simulator, of which the others do not know yet."""
        if not isinstance(failure, PartnerFailure):
            self._partners.fail()
            self._own.note(failure)

    def agree(self) -> None:
        """See ``Failures``."""
        self._partners.agree()

    def over(self) -> None:
        """See ``Failures``."""
        self._own.over()
