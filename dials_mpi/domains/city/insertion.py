"""Vehicles that enter the copies of a region: those of the influence sources, and the region's own demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol
from xml.sax.saxutils import quoteattr

import numpy as np

from dials_mpi.domains.city.cutting import name_in_copy
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.recording import Departure, Entered, Recorded
from dials_mpi.domains.sumo.simulation import Departing

BRAKING = 3.0
"""A vehicle that could not stop before its lane's end with this deceleration, m/s2, enters more slowly."""


CHANGING = 100.0
"""On a longer lane, metres, a vehicle has the room to change to the lane that it needs."""


class Inserting(Protocol):
    """Says which vehicles enter E copies of a region."""

    def routes(self) -> Iterator[str]:
        """The routes that they take, as XML."""
        ...

    def reset(self, where: np.ndarray, gone: np.ndarray) -> None:
        """Episodes begin in the copies of the mask [E]; gone: int [E], seconds of the window before them."""
        ...

    def second(self, gone: np.ndarray, sources: np.ndarray) -> list[Departing]:
        """Those of the coming second; sources: int [E, M]."""
        ...


class Insertions:
    """Makes the vehicles that enter E copies of a region in a second."""

    def __init__(
        self,
        influence: Influence,
        seen: Recorded,
        classes: Mapping[str, str],
        copies: int,
        stream: np.random.Generator,
    ) -> None:
        """classes: SUMO's class of each vehicle type, by its name."""
        self._influence, self._seen, self._stream = influence, seen, stream
        self._classes, self._copies, self._number = classes, copies, 0
        self._next = np.zeros(copies, np.int64)
        self._stop_lines: dict[tuple[str, ...], float] = {}
        self._due = np.array([departure.second for departure in seen.departures])
        kinds = sorted({kind for entries in seen.entries.values() for _, _, kind in entries})
        self._kinds = [*kinds, "DEFAULT_VEHTYPE"]
        self._fitting: dict[tuple[str, tuple[str, ...]], tuple[list[Entered], str | None]] = {}
        self._lane_numbers = {
            lane: number
            for source in influence.entries
            for number, lane in enumerate(influence.net.edges[source.entry.edge].lanes)
        }

    def routes(self) -> Iterator[str]:
        """The routes of all copies, as XML."""
        runs = {path for source in self._influence.entries for path in source.entry.paths}
        runs |= {departure.run for departure in self._seen.departures}
        for run in sorted(runs):
            for copy in range(self._copies):
                yield route_xml(copy, run)

    def reset(self, where: np.ndarray, gone: np.ndarray) -> None:
        """Episodes begin in the copies of the mask [E]; gone: int [E], seconds of the window before them."""
        self._next[where] = np.searchsorted(self._due, gone[where])

    def second(self, gone: np.ndarray, sources: np.ndarray) -> list[Departing]:
        """The vehicles of the coming second: those of the sources, int [E, M], and those that are due."""
        entering = sources[:, : len(self._influence.entries)]
        places = zip(*(index.tolist() for index in np.nonzero(entering)), strict=True)
        found = []
        for copy, m in places:
            found += self._entering(copy, m, int(entering[copy, m]))
        last = np.searchsorted(self._due, gone + 1)
        for copy, (first, end) in enumerate(zip(self._next.tolist(), last.tolist(), strict=True)):
            for departure in self._seen.departures[first:end]:
                found.append(self._departing(copy, departure))
        self._next = last
        return found

    def _entering(self, copy: int, m: int, chosen: int) -> list[Departing]:
        lane, entry = self._influence.entries[m]
        path = entry.paths[chosen - 1]
        route, number = route_name(copy, path), self._lane(lane, path)
        if (lane, path) not in self._fitting:
            self._fitting[lane, path] = self._find_fitting(lane, path)
        seen, kind = self._fitting[lane, path]
        if not kind:
            return []
        if not seen:  # nobody was seen to enter here: as SUMO inserts by default
            return [Departing(self._named(copy), kind, route, number, "base", "max")]
        position, speed, kind = seen[int(self._stream.integers(len(seen)))]
        room = self._stop_line(path) - position
        fast = speed + speed**2 / (2 * BRAKING) > room - 5  # SUMO would refuse it before a red light
        how = f"{position:.2f}", "max" if fast else f"{speed:.2f}"
        return [Departing(self._named(copy), kind, route, number, *how)]

    def _find_fitting(self, lane: str, path: tuple[str, ...]) -> tuple[list[Entered], str | None]:
        """Recorded entries on a lane of vehicles that may take the path, and a type that may; None: no type.

        SUMO refuses a vehicle on a lane or a path that is closed to its class.
        """
        allowed = self._influence.net.classes(lane, path)

        def may(kind: str) -> bool:
            return self._classes.get(kind, "passenger") in allowed

        seen = [entry for entry in self._seen.entries.get(lane, ()) if may(entry[2])]
        return seen, next(filter(may, self._kinds), None)

    def _stop_line(self, path: tuple[str, ...]) -> float:
        """Metres from the beginning of a path to its first signal; infinity if there is none."""
        if path not in self._stop_lines:
            net, edges = self._influence.net, []
            for edge in path:
                edges.append(net.edges[edge].length)
                if any(connection.signal for connection in net.connections[edge]):
                    break
            else:
                edges.append(np.inf)
            self._stop_lines[path] = sum(edges)
        return self._stop_lines[path]

    def _lane(self, lane: str, path: Sequence[str]) -> str:
        """The lane as SUMO's departLane; another one where the edge is too short to change lanes."""
        net = self._influence.net
        leads = (
            any(
                connection.from_lane == lane and net.lane_edge[connection.to_lane] == path[1]
                for connection in net.connections[path[0]]
            )
            if len(path) > 1
            else True
        )
        return str(self._lane_numbers[lane]) if leads or net.lengths[lane] > CHANGING else "best"

    def _departing(self, copy: int, departure: Departure) -> Departing:
        route = route_name(copy, departure.run)
        how = departure.lane, departure.position, departure.speed
        return Departing(self._named(copy), departure.type, route, *how)

    def _named(self, copy: int) -> str:
        self._number += 1
        return name_in_copy(copy, str(self._number))


def route_name(copy: int, run: Sequence[str]) -> str:
    """The name of a route."""
    return f"{copy}/{'>'.join(run)}"


def route_xml(copy: int, run: Sequence[str]) -> str:
    """A route in a copy, as XML; run: its edges in the city."""
    edges = " ".join(name_in_copy(copy, edge) for edge in run)
    return f"<route id={quoteattr(route_name(copy, run))} edges={quoteattr(edges)}/>"
