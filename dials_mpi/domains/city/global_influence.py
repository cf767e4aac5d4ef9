"""The influence sources and predictor inputs of all regions, read from the global simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import Rows
from dials_mpi.domains.city.influence import CELLS, HOURS, ExitSource, History, Influence, Occupancy, part
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
        self._inputs, self._sources = _Inputs(influences, agents), _Sources(influences)
        self._lanes = [{lane: m for m, (lane, _) in enumerate(influence.entries)} for influence in influences]
        self._entries = [{entry.edge: entry for entry in each.plan.entries} for each in influences]
        self.unassigned = 0

    def reset(self, simulation: Simulation, lights: Lights, gone: float = 0.0) -> Rows:
        """An episode begins; gone: seconds of the window that have passed. The inputs [R, 1, D]."""
        self._gone, self.unassigned = gone, 0
        self._tracker.reset()
        self._sources.reset()
        self._inputs.history.reset()
        return self._read_inputs(simulation, lights)

    def second(self, simulation: Simulation, lights: Lights) -> tuple[Rows, Rows]:
        """The inputs after a second, [R, 1, D], and the sources during it, int [R, 1, M]."""
        self._gone += 1
        for visit in self._tracker.second(simulation):
            if not visit.own:
                self._note(simulation, visit)
        row, sources = self._sources.second(simulation)
        self._inputs.history.second(row)
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
        self._sources.enter(visit.region, self._lanes[visit.region][lane], chosen)

    def _read_inputs(self, simulation: Simulation, lights: Lights) -> list[np.ndarray]:
        tracker = self._tracker
        return self._inputs.read(
            simulation, tracker.names, tracker.lanes, lights.green, self._gone / self._horizon
        )


class _Inputs:
    """The predictor inputs of R regions, as ``influence.inputs`` for each, read together.

    history: that of the sources of all regions.
    """

    def __init__(self, influences: Sequence[Influence], agents: Sequence[str]) -> None:
        sizes = np.array([each.input_size for each in influences])
        firsts = np.cumsum(sizes) - sizes
        # One row holds the inputs of all regions, one after another.
        lanes = [lane for each in influences for lane in each.seen_lanes]
        cells = [
            int(first) + CELLS * number
            for first, each in zip(firsts, influences, strict=True)
            for number in range(len(each.seen_lanes))
        ]
        self._occupancy = Occupancy(lanes, cells)
        self.history = History.merged([each.history() for each in influences], firsts.tolist())
        places = {name: k for k, name in enumerate(agents)}
        self._agents = np.array([places[name] for each in influences for name in each.plan.signals])
        self._greens = np.concatenate(
            [f + np.array(each.first_greens) for f, each in zip(firsts, influences, strict=True)]
        )
        self._hours = firsts + sizes - HOURS
        self._parts = [slice(f, f + n) for f, n in zip(firsts.tolist(), sizes.tolist(), strict=True)]
        self._size = int(sizes.sum())

    def read(
        self,
        simulation: Simulation,
        names: Sequence[str],
        lanes: Sequence[str],
        green: np.ndarray,
        gone: float,
    ) -> list[np.ndarray]:
        """uint8 [R, 1, D]; names, lanes: of all vehicles; green: int [N]; gone: share of the window."""
        row = np.zeros((1, self._size), np.uint8)
        row[0, self._occupancy.read(simulation, names, lanes)] = 1
        row[0, self._greens + green[self._agents]] = 1
        row[0, self._hours + min(int(gone * HOURS), HOURS - 1)] = 1
        self.history.mark(row)
        return [row[:, part] for part in self._parts]


class _Sources:
    """The influence sources of R regions in one row."""

    def __init__(self, influences: Sequence[Influence]) -> None:
        sizes = [len(each.classes) for each in influences]
        self._firsts = [sum(sizes[:k]) for k in range(len(sizes))]
        self._parts = [slice(f, f + n) for f, n in zip(self._firsts, sizes, strict=True)]
        self._size = sum(sizes)
        self._exits: dict[str, list[tuple[int, ExitSource]]] = {}
        for first, influence in zip(self._firsts, influences, strict=True):
            for m, source in enumerate(influence.exits, len(influence.entries)):
                self._exits.setdefault(source.exit.signal or "", []).append((first + m, source))
        self._names = sorted(self._exits)
        self._classes: dict[tuple[str, str], list[int]] = {}
        self.reset()

    def reset(self) -> None:
        """Nobody has entered."""
        self._row = np.zeros((1, self._size), np.int64)
        self._shown: list[str] = [""] * len(self._names)
        self._waiting: dict[int, deque[int]] = {}

    def enter(self, region: int, m: int, chosen: int) -> None:
        """A vehicle of a class enters on a lane; a second one in the same second follows in the next."""
        self._waiting.setdefault(self._firsts[region] + m, deque()).append(chosen)

    def second(self, simulation: Simulation) -> tuple[np.ndarray, list[np.ndarray]]:
        """The sources of the second that has passed: in one row [1, sum M], and by region [R, 1, M]."""
        states = simulation.lights(self._names)
        for name, state, before in zip(self._names, states, self._shown, strict=True):
            if state != before:
                self._show(name, state)
        self._shown = states
        row = self._row.copy()  # its exits as they are, its entries 0
        for place, waiting in list(self._waiting.items()):
            row[0, place] = waiting.popleft()
            if not waiting:
                del self._waiting[place]
        return row, [row[:, part] for part in self._parts]

    def _show(self, name: str, state: str) -> None:
        exits = self._exits[name]
        if (name, state) not in self._classes:
            self._classes[name, state] = [_exit_class(source, state) for _, source in exits]
        for (place, _), chosen in zip(exits, self._classes[name, state], strict=True):
            self._row[0, place] = chosen


def _exit_class(source: ExitSource, state: str) -> int:
    shown = part(state, source.exit.links)
    return source.states.index(shown) if shown in source.states else _nearest(shown, source.states)


def _nearest(state: str, states: Sequence[str]) -> int:
    """The state that opens the most links alike: another program may show what the region's does not."""
    open_links = [letter in "gG" for letter in state]

    def alike(other: str) -> int:
        return sum((letter in "gG") == link for letter, link in zip(other, open_links, strict=True))

    return max(range(len(states)), key=lambda c: alike(states[c]))
