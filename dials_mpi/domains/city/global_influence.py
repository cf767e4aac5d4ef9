"""The influence sources and predictor inputs of all regions, read from the global simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import Rows
from dials_mpi.domains.city.influence import ExitSource, Influence, Occupancy, inputs, part
from dials_mpi.domains.city.signals import Lights
from dials_mpi.domains.city.tracking import Tracker, Visit
from dials_mpi.domains.sumo.simulation import Simulation


class GlobalInfluence:
    """Reads (inputs, sources) of R regions after every second of one episode.

    unassigned: vehicles that entered, and for whose way the plan of the region has no path.
    """

    def __init__(self, influences: Sequence[Influence], agents: Sequence[str], horizon: int) -> None:
        """agents: the signals in the order of the simulator's lights; horizon: seconds of an episode."""
        self._influences, self._horizon = influences, horizon
        self._tracker = Tracker(influences)
        self._occupancy = Occupancy([lane for each in influences for lane in each.seen_lanes])
        self._bounds = np.cumsum([len(each.seen_lanes) for each in influences])[:-1]
        places = {name: k for k, name in enumerate(agents)}
        self._own = [np.array([places[name] for name in each.plan.signals]) for each in influences]
        exits = {source.exit.signal for each in influences for source in each.exits}
        self._exit_signals = sorted(name for name in exits if name)
        self._lanes = [{lane: m for m, (lane, _) in enumerate(influence.entries)} for influence in influences]
        self._entries = [{entry.edge: entry for entry in each.plan.entries} for each in influences]
        self._states = [
            [{state: c for c, state in enumerate(source.states)} for source in each.exits]
            for each in influences
        ]
        self.unassigned = 0

    def reset(self, simulation: Simulation, lights: Lights, gone: float = 0.0) -> Rows:
        """An episode begins; gone: seconds of the window that have passed. The inputs [R, 1, D]."""
        self._gone, self.unassigned = gone, 0
        self._tracker.reset()
        self._waiting: list[list[deque[int]]] = [
            [deque() for _ in influence.entries] for influence in self._influences
        ]
        return self._read_inputs(simulation, lights)

    def second(self, simulation: Simulation, lights: Lights) -> tuple[Rows, Rows]:
        """The inputs after a second, [R, 1, D], and the sources during it, int [R, 1, M]."""
        self._gone += 1
        for visit in self._tracker.second(simulation):
            if not visit.own:
                self._note(simulation, visit)
        shown = dict(zip(self._exit_signals, simulation.lights(self._exit_signals), strict=True))
        sources = [self._sources(k, shown) for k in range(len(self._influences))]
        return self._read_inputs(simulation, lights), sources

    def _note(self, simulation: Simulation, visit: Visit) -> None:
        """A vehicle has entered; a second one on the same lane and in the same second follows in the next."""
        influence, entry = self._influences[visit.region], self._entries[visit.region].get(visit.run[0])
        if entry is None:  # on a road that leads to no signal of the region
            return
        chosen = influence.path_class(entry, visit.run, visit.following)
        if chosen is None:
            self.unassigned += 1
            return
        lane = entry.lanes[0]
        if visit.road == entry.edge:
            (seen,) = simulation.ask("vehicle", "getLaneID", [visit.vehicle])
            lane = seen if seen in entry.lanes else lane
        self._waiting[visit.region][self._lanes[visit.region][lane]].append(chosen)

    def _sources(self, k: int, shown: dict[str, str]) -> np.ndarray:
        influence = self._influences[k]
        found = np.zeros((1, len(influence.classes)), np.int64)
        for m, waiting in enumerate(self._waiting[k]):
            if waiting:
                found[0, m] = waiting.popleft()
        for m, source in enumerate(influence.exits):
            found[0, len(influence.entries) + m] = self._exit_class(k, m, source, shown)
        return found

    def _exit_class(self, k: int, m: int, source: ExitSource, shown: dict[str, str]) -> int:
        state = part(shown[source.exit.signal or ""], source.exit.links)
        found = self._states[k][m].get(state)
        return _nearest(state, source.states) if found is None else found

    def _read_inputs(self, simulation: Simulation, lights: Lights) -> list[np.ndarray]:
        gone = np.array([self._gone / self._horizon])
        occupied = np.split(self._occupancy.read(simulation), self._bounds)
        return [
            inputs(influence, cells[None], lights.green[own][None], gone)
            for influence, cells, own in zip(self._influences, occupied, self._own, strict=True)
        ]


def _nearest(state: str, states: Sequence[str]) -> int:
    """The state that opens the most links alike: another program may show what the region's does not."""
    open_links = [letter in "gG" for letter in state]

    def alike(other: str) -> int:
        return sum((letter in "gG") == link for letter, link in zip(other, open_links, strict=True))

    return max(range(len(states)), key=lambda c: alike(states[c]))
