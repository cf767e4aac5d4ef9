"""The lanes that end and begin at signals, and what SUMO says about them at a decision.

Definitions and names are those of sumo-rl, so that its users find what they know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, compress
from typing import Any

import numpy as np

from dials_mpi.domains.base import Description, Part, consecutive
from dials_mpi.domains.city.net import PASSABLE, Signal
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

    def __init__(self, of_signals: Sequence[Collection[str]]) -> None:
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
    """The incoming and outgoing lanes of K signals, and the lanes upstream of the incoming ones.

    incoming: Lanes, those that end at the signals. vehicles, halting: int [L], vehicles on each incoming
    lane, and those of them that are slower than 0.1 m/s, as of the last ``read``. limits: m/s, of the
    incoming lanes and those upstream. An approach is an incoming lane with the lanes upstream of it
    (Signal.upstream).
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
        upstream = Lanes([dict.fromkeys(chain.from_iterable(signal.upstream)) for signal in signals])
        self.names = [*self.incoming.names, *upstream.names]
        self._owner = np.concatenate([self.incoming.owner, upstream.owner])
        pairs = [
            (self.incoming.place[k, lane], upstream.place[k, before])
            for k, signal in enumerate(signals)
            for lane, lanes in zip(signal.incoming, signal.upstream, strict=False)
            for before in lanes
        ]
        self._to, from_upstream = np.array(pairs, np.int64).reshape(-1, 2).T
        self._from = len(self.incoming.names) + from_upstream
        self._lengths = self._on_approaches(np.array([lengths[lane] for lane in self.names]))
        self.limits = np.array([speeds[lane] for lane in self.names])
        self._one_hot = [np.eye(len(signal.greens), dtype=np.float32) for signal in signals]

    def read(self, simulation: Simulation) -> None:
        """Read the incoming lanes and those upstream."""
        self._count(simulation)
        self._halting = self._ask_occupied(simulation, "getLastStepHaltingNumber", np.int64)
        self.halting = self._halting[: len(self.incoming.names)]
        self._mean_lengths = self._ask_occupied(simulation, "getLastStepLength")
        if self._observe_waiting:
            self._waiting = self._ask_occupied(simulation, "getWaitingTime")

    def time_lost(self, simulation: Simulation) -> np.ndarray:
        """Seconds that the vehicles before each signal lose in this second against the limits: float [K]."""
        self._count(simulation)
        speeds = self._ask_occupied(simulation, "getLastStepMeanSpeed")
        return self._at_signals(self._vehicles * np.maximum(0, 1 - speeds / self.limits))

    def queues(self) -> np.ndarray:
        """The halting vehicles before each signal, float [K]."""
        return self._at_signals(self._halting)

    def _count(self, simulation: Simulation) -> None:
        self._vehicles = np.array(simulation.ask("lane", "getLastStepVehicleNumber", self.names), np.int64)
        self.vehicles = self._vehicles[: len(self.incoming.names)]

    def _ask_occupied(self, simulation: Simulation, question: str, type: Any = np.float64) -> np.ndarray:
        """SUMO's answer for each lane that has vehicles, 0 for the others: [L + upstream]."""
        occupied = self._vehicles > 0
        answers = np.zeros(len(occupied), type)
        answers[occupied] = simulation.ask("lane", question, compress(self.names, occupied))
        return answers

    def _on_approaches(self, values: np.ndarray) -> np.ndarray:
        """The sum of values [L + upstream] on each approach, float [L]."""
        own = values[: len(self.incoming.names)]
        return own + np.bincount(self._to, values[self._from], len(own))

    def _at_signals(self, values: np.ndarray) -> np.ndarray:
        """The sum of values [L + upstream] at each signal, a lane of several approaches once: float [K]."""
        return np.bincount(self._owner, values, len(self.signals))

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
        approach: all, then halting vehicles over the number that fits on it, at most 1; with
        ``observe_waiting`` also the waiting time over WAITING_UNIT.
        """
        vehicles, halting = self._on_approaches(self._vehicles), self._on_approaches(self._halting)
        metres = self._on_approaches(self._vehicles * self._mean_lengths)
        capacity = self._lengths / (MINIMUM_GAP + metres / np.maximum(vehicles, 1))
        columns = [np.minimum(1, vehicles / capacity), np.minimum(1, halting / capacity)]
        if self._observe_waiting:
            columns.append(self._on_approaches(self._waiting) / WAITING_UNIT)
        of_lanes = zip(*(self.incoming.parts(column) for column in columns), strict=True)
        signals = zip(lights.green.tolist(), lights.free.tolist(), self._one_hot, of_lanes, strict=True)
        return [
            np.concatenate([one_hot[green], [free], *parts], dtype=np.float32)
            for green, free, one_hot, parts in signals
        ]


def observation_size(signal: Signal, observe_waiting: bool) -> int:
    """The length O of a signal's observation."""
    return len(signal.greens) + 1 + (2 + observe_waiting) * len(signal.incoming)


def parts(signal: Signal, observe_waiting: bool) -> Description:
    """The parts of a signal's observation: see ``Approaches.observe``."""
    lanes, serving = signal.incoming, _serving(signal)
    of_lanes = [
        ("density", "vehicles on the approach over the number that fits on it, at most 1"),
        ("queue", "halting vehicles on the approach over the number that fits on it, at most 1"),
    ]
    if observe_waiting:
        of_lanes.append(("waiting", f"waiting time on the approach, {WAITING_UNIT:g} s"))
    return consecutive(
        Part("green", 0, (len(signal.greens),), "1: the signal shows this state", signal.greens),
        Part("free", 0, (1,), "1: the green may be changed"),
        *(Part(name, 0, (len(lanes),), meaning, lanes, serving) for name, meaning in of_lanes),
    )


def _serving(signal: Signal) -> tuple[tuple[int, ...], ...]:
    """For each incoming lane the indices of the greens under which one of its links may be driven."""
    found: dict[str, set[int]] = {lane: set() for lane in signal.incoming}
    for index, links in enumerate(signal.links):
        greens = {k for k, state in enumerate(signal.greens) if state[index] in PASSABLE}
        for link in links:
            found[link.from_lane] |= greens
    return tuple(tuple(sorted(greens)) for greens in found.values())
