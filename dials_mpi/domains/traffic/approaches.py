"""What happens on each approach, an incoming edge of a junction, in the episodes of the whole grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Details
from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.junctions import Junctions
from dials_mpi.domains.traffic.network import SIDES

MOST = 63
"""A longer queue counts as one of so many vehicles."""

COLUMNS = (
    ("approach", ""),
    ("vehicles", "per episode"),
    ("delay", "s"),
    ("queue", "vehicles"),
    ("queue_p95", "vehicles"),
    ("longest_queue", "vehicles"),
)


class Counts(NamedTuple):
    """Sums over some episodes. entered: vehicles, [N, 4]; lost: seconds that they lost on this edge, [N, 4],
    against the speed limit; queues: number of steps with a queue of 0 to MOST vehicles, [N, 4, MOST + 1]."""

    episodes: int
    entered: np.ndarray
    lost: np.ndarray
    queues: np.ndarray


class Approaches:
    """Counts the steps of E episodes with N junctions each. A queue: vehicles below 0.1 m/s."""

    def __init__(self, episodes: int, junctions: int) -> None:
        edges = episodes, junctions * len(SIDES)
        self._entered, self._lost = np.zeros(edges, np.int64), np.zeros(edges)
        self._queues = np.zeros((*edges, MOST + 1), np.int64)

    def reset(self, where: np.ndarray) -> None:
        """Start new episodes where the mask [E] is set."""
        self._entered[where] = self._lost[where] = self._queues[where] = 0

    def update(self, junctions: Junctions, halting: np.ndarray) -> None:
        """Count a step; halting: number of halting vehicles on each edge that has vehicles."""
        kernels.count_approaches(
            *(junctions.entered.reshape(-1), junctions.count.reshape(-1), junctions.speed_sum.reshape(-1)),
            *(halting, junctions.network.speed_limit),
            *(self._entered.reshape(-1), self._lost.reshape(-1), self._queues.reshape(-1, MOST + 1)),
        )

    def counts(self) -> Counts:
        """The sums over the episodes so far."""
        entered, lost = (each.sum(axis=0).reshape(-1, len(SIDES)) for each in (self._entered, self._lost))
        queues = self._queues.sum(axis=0).reshape(-1, len(SIDES), MOST + 1)
        return Counts(len(self._entered), entered, lost, queues)


def table(found: Sequence[Counts], names: Sequence[str]) -> Details:
    """A row for each approach, over all episodes. names: of the junctions.

    delay: seconds lost on the edge per vehicle that entered it; None if none did.
    """
    sums = Counts(
        sum(one.episodes for one in found),
        np.sum([one.entered for one in found], axis=0),
        np.sum([one.lost for one in found], axis=0),
        np.sum([one.queues for one in found], axis=0),
    )
    return Details("approaches", COLUMNS, tuple(_rows(sums, names)))


def _rows(sums: Counts, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    lengths = np.arange(MOST + 1)
    for k, name in enumerate(names):
        for m, side in enumerate(SIDES):
            vehicles, queues = int(sums.entered[k, m]), sums.queues[k, m]
            share = np.cumsum(queues) / max(1, queues.sum())
            yield (
                f"{name}, {side}",
                vehicles / sums.episodes,
                float(sums.lost[k, m]) / vehicles if vehicles else None,
                float(queues @ lengths / max(1, queues.sum())),
                int(np.argmax(share >= 0.95)),
                int(np.flatnonzero(queues).max(initial=0)),
            )
