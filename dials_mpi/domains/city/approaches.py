"""The lanes that end and begin at signals, and what SUMO says about them at a decision.

Definitions and names are those of sumo-rl, so that its users find what they know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, compress
from typing import Any

import numpy as np

from dials_mpi.domains.city.net import Signal
from dials_mpi.domains.city.signals import Lights
from dials_mpi.domains.sumo.simulation import Simulation

MINIMUM_GAP = 2.5
"""Metres between standing vehicles: SUMO's default, with which sumo-rl computes how many fit on a lane."""

WAITING_UNIT = 100.0
"""Seconds of waiting that make 1 in observations and rewards, as in sumo-rl."""


class Lanes:
    """The lanes of K signals, one signal after another, L in all.

    names: [L]; owner: int [L], the index of each lane's signal; place: the index of each lane.
    """

    def __init__(self, of_signals: Sequence[Sequence[str]]) -> None:
        self.names = list(chain.from_iterable(of_signals))
        self.owner = np.repeat(np.arange(len(of_signals)), [len(lanes) for lanes in of_signals])
        self.place = {
            (int(k), lane): i for i, (k, lane) in enumerate(zip(self.owner, self.names, strict=True))
        }
        self._signals = len(of_signals)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of the lanes' values [L] at each signal: float64 [K]."""
        return np.bincount(self.owner, values, self._signals)

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """The values [L] of each signal's lanes, [K]."""
        return np.split(values, np.searchsorted(self.owner, np.arange(1, self._signals)))


class Approaches:
    """The incoming and outgoing lanes of K signals.

    incoming: Lanes. vehicles, halting: int [L], vehicles on each incoming lane, and those of them that are
    slower than 0.1 m/s. capacity: float [L], how many vehicles of the present mean length fit on the lane.
    waiting: float [L], seconds that the vehicles on it wait, only where it is observed. All as of the last
    ``read``.
    """

    def __init__(
        self,
        signals: Sequence[Signal],
        lengths: Mapping[str, float],
        speeds: Mapping[str, float],
        observe_waiting: bool = False,
    ) -> None:
        """lengths, speeds: metres and speed limit, m/s, of every lane."""
        self.signals, self._observe_waiting = signals, observe_waiting
        self.incoming = Lanes([signal.incoming for signal in signals])
        self.outgoing = Lanes([signal.outgoing for signal in signals])
        self._lengths = np.array([lengths[lane] for lane in self.incoming.names])
        self.limits = np.array([speeds[lane] for lane in self.incoming.names])
        self._one_hot = [np.eye(len(signal.greens), dtype=np.float32) for signal in signals]

    def read(self, simulation: Simulation) -> None:
        """Read the incoming lanes."""
        names = self.incoming.names
        self.vehicles = np.array(simulation.ask("lane", "getLastStepVehicleNumber", names), np.int64)
        self.halting = self.ask_occupied(simulation, "getLastStepHaltingNumber", np.int64)
        mean_length = self.ask_occupied(simulation, "getLastStepLength")
        self.capacity = self._lengths / (MINIMUM_GAP + mean_length)
        if self._observe_waiting:
            self.waiting = self.ask_occupied(simulation, "getWaitingTime")

    def ask_occupied(self, simulation: Simulation, question: str, type: Any = np.float64) -> np.ndarray:
        """SUMO's answer for each incoming lane that has vehicles, 0 for the others: [L]."""
        occupied = self.vehicles > 0
        answers = np.zeros(len(occupied), type)
        answers[occupied] = simulation.ask("lane", question, compress(self.incoming.names, occupied))
        return answers

    def outgoing_values(self, simulation: Simulation, question: str) -> np.ndarray:
        """SUMO's answer for each outgoing lane, [L']."""
        return np.array(simulation.ask("lane", question, self.outgoing.names))

    def vehicles_by_lane(self, simulation: Simulation) -> dict[int, Sequence[str]]:
        """The names of the vehicles on each incoming lane that has some, by the lane's index."""
        places = np.flatnonzero(self.vehicles).tolist()
        names = (self.incoming.names[i] for i in places)
        return dict(zip(places, simulation.ask("lane", "getLastStepVehicleIDs", names), strict=True))

    def observe(self, lights: Lights) -> list[np.ndarray]:
        """The observation of each signal, float32 [K][O].

        The green, one-hot; whether it may be changed (sumo-rl's min_green); density, then queue of each
        incoming lane: all, then halting vehicles over its capacity, at most 1; with ``observe_waiting`` also
        the waiting time over WAITING_UNIT.
        """
        shares = [np.minimum(1, self.vehicles / self.capacity), np.minimum(1, self.halting / self.capacity)]
        columns = [*shares, self.waiting / WAITING_UNIT] if self._observe_waiting else shares
        of_lanes = zip(*(self.incoming.parts(column) for column in columns), strict=True)
        signals = zip(lights.green.tolist(), lights.free.tolist(), self._one_hot, of_lanes, strict=True)
        return [
            np.concatenate([one_hot[green], [free], *parts], dtype=np.float32)
            for green, free, one_hot, parts in signals
        ]


def observation_size(signal: Signal, observe_waiting: bool) -> int:
    """The length O of a signal's observation."""
    return len(signal.greens) + 1 + (2 + observe_waiting) * len(signal.incoming)
