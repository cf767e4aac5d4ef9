"""What influences a region from outside, and what its predictor sees of the region.

Two kinds of influence sources act in every second: on each entry lane, whether a vehicle enters and which way
through the region it takes; and at each exit that ends at another signal, what that signal shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Description, Part, Source, consecutive
from dials_mpi.domains.city.net import Net, Signal
from dials_mpi.domains.city.regions import Entry, Exit, RegionPlan
from dials_mpi.domains.city.signals import transition
from dials_mpi.domains.sumo.simulation import Simulation

CELL = 10.0
"""Length of the cells in which the predictor sees vehicles, metres."""

CELLS = 4
"""Cells on each entry lane, from its beginning, and on each exit lane, up to its end."""

HOURS = 12
"""Parts of the window, of which the predictor sees the present one: demand changes with the time."""

AGES = (2, 5, 10, 20, 40)
"""Seconds. The predictor sees between which of them the last event of each source lies: a vehicle that
entered, or another state of the exit's light. Vehicles come in platoons, and lights keep their states."""


class EntrySource(NamedTuple):
    """Who enters on a lane: class 0 is nobody, class c a vehicle that takes entry.paths[c - 1]."""

    lane: str
    entry: Entry


class ExitSource(NamedTuple):
    """What the next signal shows to the lanes of an exit: one of ``states``, each over exit.links."""

    exit: Exit
    states: tuple[str, ...]


@dataclass(frozen=True)
class Influence:
    """The sources of a region and the input of its predictor.

    The sources are those of ``entries``, then of ``exits``. A region that nothing influences has one source
    that is always 0: the contract wants one.
    """

    plan: RegionPlan
    net: Net

    @cached_property
    def entries(self) -> tuple[EntrySource, ...]:
        """One source for each entry lane."""
        return tuple(EntrySource(lane, entry) for entry in self.plan.entries for lane in entry.lanes)

    @cached_property
    def exits(self) -> tuple[ExitSource, ...]:
        """One source for each exit whose signal does not always show the same."""
        found = (
            ExitSource(out, exit_states(self.net.signals[out.signal], out))
            for out in self.plan.exits
            if out.signal
        )
        return tuple(source for source in found if len(source.states) > 1)

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Number of classes of each source."""
        entries = (1 + len(source.entry.paths) for source in self.entries)
        return (*entries, *(len(source.states) for source in self.exits)) or (2,)

    def sources(self) -> tuple[Source, ...]:
        """Their names and the names of their classes."""
        named = [
            *(
                Source(f"lane {s.lane}", ("none", *(f"to {p[-1]}" for p in s.entry.paths)))
                for s in self.entries
            ),
            *(Source(f"{s.exit.signal} for {s.exit.edge}", s.states) for s in self.exits),
        ]
        return tuple(named) or (Source("nothing", ("none", "never")),)

    @property
    def inside(self) -> frozenset[str]:
        """The edges of the region; those behind the signals of exits are outside."""
        return self.plan.inside

    @cached_property
    def last(self) -> frozenset[str]:
        """The edges on which vehicles leave the region."""
        return frozenset(out.edge for out in self.plan.exits)

    @cached_property
    def seen_lanes(self) -> tuple[tuple[str, float], ...]:
        """The lanes on which the predictor sees vehicles, and where its cells begin on each, metres."""
        exits = [lane for out in self.plan.exits for lane in self.net.edges[out.edge].drivable]
        entries = [source.lane for source in self.entries]
        starts = {lane: max(0.0, self.net.lengths[lane] - CELLS * CELL) for lane in exits}
        return tuple((starts | dict.fromkeys(entries, 0.0)).items())

    @cached_property
    def input_size(self) -> int:
        """Length of the predictor's input."""
        return self.first_state + sum(self._state_sizes) + (len(AGES) + 1) * len(self.classes) + HOURS

    def parts(self) -> Description:
        """The parts of the predictor's input: see ``inputs`` and ``History.mark``."""
        lanes = tuple(lane for lane, _ in self.seen_lanes)
        greens = ((name, self.net.signals[name].greens) for name in self.plan.signals)
        named = tuple(source.name for source in self.sources())
        ages = f"1: the source's last event was so long ago; limits {', '.join(map(str, AGES))} s"
        return consecutive(
            Part("lanes", 0, (len(lanes), CELLS), f"1: a vehicle is in the cell of {CELL:g} m", lanes),
            *(Part(f"green of {n}", 0, (len(g),), "1: the signal shows this state", g) for n, g in greens),
            *(
                Part(
                    f"light of {s.exit.edge}", 0, (len(s.states),), "1: the next signal shows this", s.states
                )
                for s in self.exits
            ),
            Part("ages", 0, (len(named), len(AGES) + 1), ages, named),
            Part("hour", 0, (HOURS,), "1: the part of the window that has begun last"),
        )

    @property
    def first_state(self) -> int:
        """Where the states of the exits begin in the input."""
        greens = sum(len(self.net.signals[name].greens) for name in self.plan.signals)
        return CELLS * len(self.seen_lanes) + greens

    @cached_property
    def _state_sizes(self) -> tuple[int, ...]:
        return tuple(len(source.states) for source in self.exits)

    def history(self, copies: int = 1) -> History:
        """The history of the sources in so many environments; nothing has happened."""
        first_age = self.first_state + sum(self._state_sizes)
        states = self.first_state + np.cumsum(self._state_sizes, dtype=np.int64) - self._state_sizes
        ages = first_age + (len(AGES) + 1) * np.arange(len(self.classes))
        return History(len(self.classes) - len(self.exits), states.astype(np.int64), ages, copies)

    def way(self, run: Sequence[str], following: str | None) -> tuple[str, ...]:
        """The edges of a vehicle in the local simulator: its run, and the next one behind an exit's signal.

        Behind other exits it is gone: if it comes back, it enters anew.
        """
        behind = self._behind.get(run[-1], ())
        return (*run, following) if following is not None and following in behind else tuple(run)

    @cached_property
    def _behind(self) -> dict[str, tuple[str, ...]]:
        return {out.edge: out.behind for out in self.plan.exits}

    @cached_property
    def first_greens(self) -> tuple[int, ...]:
        """Where the greens of each signal begin in the input."""
        counts = [len(self.net.signals[name].greens) for name in self.plan.signals]
        start = CELLS * len(self.seen_lanes)
        return tuple(start + sum(counts[:k]) for k in range(len(counts)))

    def path_class(self, entry: Entry, run: Sequence[str], following: str | None) -> int | None:
        """The class of a vehicle that enters here.

        run: the edges that it takes in the region; following: its next edge, None if it ends its trip.
        None: no path of the entry ends where the vehicle leaves.
        """
        table = self._classes[entry.edge]
        return table.get((run[-1], following), table.get((run[-1], None)))

    @cached_property
    def _classes(self) -> dict[str, dict[tuple[str, str | None], int]]:
        """By entry: (last edge in the region, edge behind its exit) -> class."""
        found: dict[str, dict[tuple[str, str | None], int]] = {}
        for entry in self.plan.entries:
            table = found[entry.edge] = {}
            for number, path in enumerate(entry.paths, 1):
                left = len(path) > 1 and path[-2] in self.last
                table[(path[-2], path[-1]) if left else (path[-1], None)] = number
        return found


def exit_states(signal: Signal, out: Exit) -> tuple[str, ...]:
    """All that a signal can show on the links of an exit, sorted: greens, changes, and its own program."""
    greens = signal.greens
    changes = {transition(a, b) for a in greens for b in greens}
    changes |= {state.replace("y", "r") for state in changes}  # all-red
    whole = {*greens, *changes, *(state for state, _ in signal.phases)}
    return tuple(sorted({part(state, out.links) for state in whole}))


def part(state: str, links: Iterable[int]) -> str:
    """The letters of some links in the state of a signal."""
    return "".join(state[i] for i in links)


class Occupancy:
    """Reads which cells of L lanes have vehicles in them; a lane may be seen several times.

    A plain loop over the vehicles: there are few, and array operations take longer.
    """

    def __init__(self, lanes: Sequence[tuple[str, float]], places: Sequence[int] | None = None) -> None:
        """lanes: L names, and where the cells begin on each, metres. places: of each lane's first cell in a
        row; default: one lane after another."""
        self.size = CELLS * len(lanes)
        self._seen: dict[str, list[tuple[float, int]]] = {}
        for place, (lane, start) in zip(places or range(0, self.size, CELLS), lanes, strict=True):
            self._seen.setdefault(lane, []).append((start, place))

    def read(self, simulation: Simulation, names: Sequence[str], lanes: Sequence[str]) -> list[int]:
        """The places of occupied cells, maybe several times; names, lanes: of all vehicles on the road."""
        seen = list(map(self._seen.get, lanes))
        positions = simulation.ask("vehicle", "getLanePosition", compress(names, seen))
        found = []
        for position, cells in zip(positions, filter(None, seen), strict=True):
            for start, place in cells:
                cell = (position - start) // CELL
                if 0 <= cell < CELLS:
                    found.append(place + int(cell))
        return found


class History:
    """What the predictor sees of the sources' past: the state of each exit's light, and how long ago the last
    event of each source was. One row for each of E environments.

    Sources are those of a region, entries first, or of several regions, with ``merged``.
    """

    def __init__(self, entries: int, states: np.ndarray, ages: np.ndarray, copies: int) -> None:
        """entries: how many sources are entries. states, ages: int, where the states of each exit and the
        ages of each source begin in the input."""
        self.entry = np.arange(len(ages)) < entries
        self.states, self.ages = states, ages
        self._copies = copies
        self._last = np.zeros((copies, len(ages)), np.int64)
        self._age = np.zeros_like(self._last)
        self._known = np.zeros(copies, bool)
        self.reset()

    @classmethod
    def merged(cls, histories: Sequence[History], firsts: Sequence[int]) -> History:
        """The sources of several regions in one row; firsts: where the input of each begins."""
        pairs = list(zip(histories, firsts, strict=True))
        whole = cls(
            0,
            np.concatenate([history.states + first for history, first in pairs]),
            np.concatenate([history.ages + first for history, first in pairs]),
            1,
        )
        whole.entry = np.concatenate([history.entry for history in histories])
        return whole

    def reset(self, where: np.ndarray | slice = slice(None)) -> None:
        """Nothing has happened in the environments of a mask [E]; no exit shows a state."""
        self._last[where], self._age[where], self._known[where] = 0, AGES[-1], False

    def second(self, sources: np.ndarray) -> None:
        """The sources of the second that has passed, int [E, M]."""
        event = np.where(self.entry, sources > 0, sources != self._last)
        self._age = np.where(event, 0, self._age + 1)
        self._last = np.array(sources, np.int64)
        self._known[:] = True

    def mark(self, rows: np.ndarray) -> None:
        """Set the bits in the predictor's inputs, uint8 [E, D]."""
        numbers = np.arange(self._copies)[:, None]
        rows[numbers, self.ages + np.searchsorted(AGES, self._age, "right")] = 1
        rows[numbers, self.states + self._last[:, ~self.entry]] |= self._known[:, None]


def inputs(influence: Influence, occupied: Sequence[int], green: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The input of a region's predictor, uint8 [E, D]: occupied cells, own greens, part of the window.

    The history of the sources is added by ``History.mark``. occupied: the occupied ones of E x ``seen_lanes``
    x CELLS cells; green: int [E, signals]; gone: float [E], the share of the window that has passed.
    """
    rows = np.arange(len(green))
    found = np.zeros((len(green), influence.input_size), np.uint8)
    found[np.divmod(np.array(occupied, np.int64), CELLS * len(influence.seen_lanes))] = 1
    firsts = influence.first_greens
    for k in range(len(firsts)):
        found[rows, firsts[k] + green[:, k]] = 1
    hours = np.minimum((gone * HOURS).astype(np.int64), HOURS - 1)
    found[rows, influence.input_size - HOURS + hours] = 1
    return found
