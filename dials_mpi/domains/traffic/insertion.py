"""How vehicles enter a local region: when, where on the edge, and how fast.

An influence source says only that a vehicle comes onto an edge in the coming step. In the whole system it
comes from outside, at the beginning of the edge and at the speed limit, or out of a neighbour's crossing,
mostly as a link of a platoon whose speed depends on its distance from the one ahead (platoons.py); never
two in consecutive steps. ``Hold`` does the same, and what cannot enter yet waits for the first moment that
it can. ``Drop`` is the rule of the authors' code, to compare with.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dials_mpi.domains.traffic import kernels
from dials_mpi.domains.traffic.demand import ENTRY_POSITION
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import Network, vehicle
from dials_mpi.domains.traffic.platoons import Platoons
from dials_mpi.domains.traffic.sumo.simulation import Entry


class Entrances(Protocol):
    """A rule for the W ways into each of K tiles, which are the copies of a network."""

    def begin(self, where: np.ndarray) -> list[str]:
        """The tiles in the mask [K] begin anew; their vehicles that have not entered yet."""
        ...

    def enter(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Entry]]:
        """Sources int [K, W] of the coming step, uniforms [K, W] in [0, 1): who gives up, who tries."""
        ...

    def passed(self) -> None:
        """A step has passed; the crossings have been read."""
        ...


class _Trying:
    """Vehicles that try to enter, at most one on a way; where: bool [K, W]."""

    def __init__(self, network: Network) -> None:
        ways = network.entries
        self.where = np.zeros((network.copies, len(ways)), bool)
        self._routes = [[network.route(k, *way) for way in ways] for k in range(network.copies)]
        self._names = [[""] * len(ways) for _ in range(network.copies)]
        self._number = 0

    def send(self, k: int, m: int, position: float, speed: float) -> Entry:
        """A new vehicle for way m into tile k, which is in ``where`` now."""
        self._number += 1
        name = self._names[k][m] = vehicle(k, self._number)
        return Entry(name, self._routes[k][m], position, speed)

    def clear(self, where: np.ndarray) -> list[str]:
        """Nobody tries any more on the ways in the mask [K, W]; those who did."""
        gone = np.argwhere(self.where & where).tolist()
        self.where &= ~where
        return [self._names[k][m] for k, m in gone]


class Hold:
    """Enter as real vehicles do; wait until it fits.

    outside: bool [K, W], the way begins outside the whole system; platoons: for the other ways.
    waiting: int [K, W], vehicles due but not yet on the edge.
    """

    def __init__(self, crossings: Crossings, outside: np.ndarray, platoons: Platoons | None) -> None:
        self._crossings, self._outside, self._platoons = crossings, outside.tolist(), platoons
        self._trying, self._ways = _Trying(crossings.network), crossings.network.ways()
        self._due = np.empty(outside.size, np.int64)
        self.waiting = np.zeros(outside.shape, np.int64)
        self._headway = np.full(outside.shape, np.iinfo(np.int32).max, np.int64)

    def begin(self, where: np.ndarray) -> list[str]:
        """As Entrances says."""
        self.waiting[where] = 0
        self._headway[where] = np.iinfo(np.int32).max
        return self._trying.clear(np.broadcast_to(where[:, None], self.waiting.shape))

    def enter(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Entry]]:
        """As Entrances says; nobody gives up."""
        state = self.waiting, self._headway, self._trying.where
        number = kernels.due(*(part.reshape(-1) for part in (*state, sources)), self._due)
        due = self._due[:number]
        entries = []
        for edge, uniform in zip(due.tolist(), uniforms.reshape(-1)[due].tolist(), strict=True):
            k, m = divmod(edge, len(self._ways))
            entries.append(self._trying.send(k, m, *self._place(k, m, uniform)))
        return [], entries

    def passed(self) -> None:
        """As Entrances says."""
        entered = _of(self._crossings.entered, self._ways, self.waiting.shape)
        state = self.waiting, self._headway, self._trying.where, entered
        kernels.let_in(*(part.reshape(-1) for part in state))

    def _place(self, k: int, m: int, uniform: float) -> tuple[float, float]:
        if self._outside[k][m]:
            return ENTRY_POSITION, self._crossings.network.speed_limit
        return self._platoons.draw(int(self._headway[k, m]), uniform)


class Drop:
    """The authors' rule: 6 m into the edge at 9.5 m/s, or 3 m/s where more than 8 vehicles are on it.

    Who does not fit at once never enters (about one in ten). dropped: int [K, W], how many.
    """

    def __init__(self, crossings: Crossings) -> None:
        self._crossings = crossings
        self._trying, self._ways = _Trying(crossings.network), crossings.network.ways()
        self.dropped = np.zeros(self._trying.where.shape, np.int64)

    def begin(self, where: np.ndarray) -> list[str]:
        """As Entrances says."""
        return self._trying.clear(np.broadcast_to(where[:, None], self.dropped.shape))

    def enter(self, sources: np.ndarray, uniforms: np.ndarray) -> tuple[list[str], list[Entry]]:
        """As Entrances says."""
        self.dropped += self._trying.where
        given_up = self._trying.clear(np.ones(self.dropped.shape, bool))
        crowded = _of(self._crossings.count, self._ways, self.dropped.shape) > 8
        self._trying.where = sources > 0
        edges = np.argwhere(sources).tolist()
        return given_up, [self._trying.send(k, m, 6.0, 3.0 if crowded[k, m] else 9.5) for k, m in edges]

    def passed(self) -> None:
        """As Entrances says."""
        self._trying.clear(_of(self._crossings.entered, self._ways, self.dropped.shape))


def _of(values: np.ndarray, ways: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What all crossings' edges have, [crossings, 4], of the ways alone: [K, W]."""
    return values if values.shape == shape else values.reshape(shape[0], -1)[:, ways]
