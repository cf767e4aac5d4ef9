"""How vehicles are inserted on the entry edges of a local region: when, at which position, at which speed.

An influence source says only that a vehicle enters an edge in the coming step. In the whole system it comes
from outside the network, at the beginning of the edge and at the speed limit, or from a neighbouring
junction, with a speed that depends on the headway (platoons.py). Two vehicles never enter in
consecutive steps. ``Hold`` inserts vehicles in the same way, each in the first step in which it fits.
``Drop`` is the rule of the authors' code, for comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from dials_mpi.domains.sumo.simulation import Insertion
from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.junctions import Observed
from dials_mpi.domains.traffic.platoons import Platoons
from dials_mpi.domains.traffic.vehicles import CAR, INSERTION_POSITION, vehicle_name


class InsertionRule(ABC):
    """A rule for the W entry edges of each of K tiles, which are the copies of the junctions' network.

    pending: bool [K, W], a vehicle of this edge waits outside the network, at most one per edge.
    """

    def __init__(self, junctions: Observed) -> None:
        self._junctions, network = junctions, junctions.network
        edges = network.entry_edges
        self.pending = np.zeros((network.copies, len(edges)), bool)
        self._routes = [[network.route(k, *edge) for edge in edges] for k in range(network.copies)]
        self._names = [[""] * len(edges) for _ in range(network.copies)]
        self._number = 0
        indices = network.entry_indices()
        every = len(indices) == network.entry_mask().size
        self._edges: slice | np.ndarray = slice(None) if every else indices

    def reset(self, where: np.ndarray) -> list[str]:
        """Start new episodes in the tiles of the mask [K]; return their vehicles that wait outside."""
        return self._clear(np.broadcast_to(where[:, None], self.pending.shape))

    @abstractmethod
    def attempt(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Insertion]]:
        """Returns (vehicles to remove, insertions to attempt) before the coming step.

        sources: int [K, W], of this step; uniforms: float64 [K, W], random numbers in [0, 1).
        """

    @abstractmethod
    def update(self) -> None:
        """Call after each step, when the junctions have been read."""

    def _insertion(self, k: int, m: int, position: float, speed: float) -> Insertion:
        """A new vehicle on entry edge m of tile k; the caller sets ``pending``."""
        self._number += 1
        name = self._names[k][m] = vehicle_name(k, self._number)
        return Insertion(name, CAR["id"], self._routes[k][m], position, speed)

    def _clear(self, where: np.ndarray) -> list[str]:
        """Set ``pending`` to False in the mask [K, W]; return the vehicles that were pending there."""
        cleared = np.argwhere(self.pending & where).tolist()
        self.pending &= ~where
        return [self._names[k][m] for k, m in cleared]

    def _of_edges(self, values: np.ndarray) -> np.ndarray:
        """The values [K, W] of the entry edges among those of all incoming edges, [junctions, 4]."""
        return values.reshape(len(self.pending), -1)[:, self._edges]


class Hold(InsertionRule):
    """Insert a vehicle in the first step in which it fits, as SUMO does in the whole system.

    outside: bool [K, W], the edge is an entry edge of the whole system, too; platoons: for the other edges.
    waiting: int [K, W], vehicles whose source was 1 and which are not on the edge yet.
    """

    def __init__(self, junctions: Observed, outside: np.ndarray, platoons: Platoons | None) -> None:
        """ValueError: platoons are None, and an edge is not an entry edge of the whole system."""
        super().__init__(junctions)
        if platoons is None and not outside.all():
            raise ValueError("entries from neighbouring junctions need recorded platoons")
        self._outside, self._platoons = outside.tolist(), platoons
        self._due = np.empty(outside.size, np.int64)
        self.waiting = np.zeros(outside.shape, np.int64)
        self._headway = np.full(outside.shape, np.iinfo(np.int32).max, np.int64)

    def reset(self, where: np.ndarray) -> list[str]:
        """As InsertionRule."""
        self.waiting[where] = 0
        self._headway[where] = np.iinfo(np.int32).max
        return super().reset(where)

    def attempt(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Insertion]]:
        """As InsertionRule; no vehicle is removed."""
        state = self.waiting, self._headway, self.pending
        number = kernels.due_insertions(*(part.reshape(-1) for part in (*state, sources)), self._due)
        due = self._due[:number]
        insertions = []
        for edge, uniform in zip(due.tolist(), uniforms.reshape(-1)[due].tolist(), strict=True):
            k, m = divmod(edge, self.pending.shape[1])
            insertions.append(self._insertion(k, m, *self._position_and_speed(k, m, uniform)))
        return [], insertions

    def update(self) -> None:
        """As InsertionRule."""
        entered = self._of_edges(self._junctions.entered)
        state = self.waiting, self._headway, self.pending, entered
        kernels.update_insertions(*(part.reshape(-1) for part in state))

    def _position_and_speed(self, k: int, m: int, uniform: float) -> tuple[float, float]:
        if self._platoons is None or self._outside[k][m]:
            return INSERTION_POSITION, self._junctions.network.speed_limit
        return self._platoons.draw(int(self._headway[k, m]), uniform)


class Drop(InsertionRule):
    """The authors' rule: insert at 6 m at 9.5 m/s, or at 3 m/s if more than 8 vehicles are on the edge.

    A vehicle that does not fit in its step is removed (about one in ten). dropped: int [K, W], removed ones.
    """

    def __init__(self, junctions: Observed) -> None:
        super().__init__(junctions)
        self.dropped = np.zeros(self.pending.shape, np.int64)

    def attempt(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Insertion]]:
        """As InsertionRule."""
        self.dropped += self.pending
        removed = self._clear(np.ones(self.pending.shape, bool))
        crowded = self._of_edges(self._junctions.count) > 8
        self.pending = sources > 0
        edges = np.argwhere(sources).tolist()
        return removed, [self._insertion(k, m, 6.0, 3.0 if crowded[k, m] else 9.5) for k, m in edges]

    def update(self) -> None:
        """As InsertionRule."""
        self._clear(self._of_edges(self._junctions.entered))
