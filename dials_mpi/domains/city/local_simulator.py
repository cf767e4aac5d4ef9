"""The local simulator of a region: its tile of the network, in E copies, in a SUMO simulation of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dials_mpi.domains.base import LocalStep, Rows, State
from dials_mpi.domains.city.approaches import Approaches
from dials_mpi.domains.city.cutting import name_in_copy
from dials_mpi.domains.city.global_simulator import Rules
from dials_mpi.domains.city.influence import Influence, Occupancy, exit_states, inputs
from dials_mpi.domains.city.insertion import Inserting, Insertions
from dials_mpi.domains.city.net import Link, Signal
from dials_mpi.domains.city.recording import Recorded
from dials_mpi.domains.city.rewards import reward_class
from dials_mpi.domains.city.signals import Lights
from dials_mpi.domains.city.tiles import Tile
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.sumo.simulation import Simulation

CHECKS = ("--insertion-checks", "collision leaderGap followerGap")
"""SUMO's options: a vehicle waits until there is a gap for it. By default SUMO drops vehicles for good that
are too fast for a junction or a slower road ahead; those that enter were that fast in the city, too."""


class CityLocalSimulator:
    """One region in E environments, those of the copies of its tile; N agents, its signals.

    approaches, lights: of signals x copies, one signal's copies after another's. insertions: makes the
    vehicles that enter; rim: the signals at exits; options: more of SUMO's command line.
    """

    def __init__(
        self,
        influence: Influence,
        tile: Tile,
        seen: Recorded,
        types: Sequence[str],
        classes: Mapping[str, str],
        rules: Rules,
        horizon: int,
        stream: np.random.Generator,
        backend: str = "auto",
        gui: bool = False,
        simulate: Callable[..., Simulation] = Simulation,
    ) -> None:
        """types: vehicle types as XML; classes: SUMO's class of each, by its name; horizon: seconds; stream:
        seeds SUMO and draws what enters how."""
        self.influence, self._tile, self._rules, self._horizon = influence, tile, rules, horizon
        self._stream, self._backend, self._simulate = stream, (backend, gui), simulate
        self.copies = tile.copies
        net = influence.net
        own = [net.signals[name] for name in influence.plan.signals]
        signals = [_copied(signal, copy) for signal in own for copy in range(tile.copies)]
        self.names = [signal.name for signal in signals]
        lanes = [
            (copy, lane)
            for signal in own
            for lane in (*signal.incoming, *signal.outgoing, *chain.from_iterable(signal.upstream))
            for copy in range(tile.copies)
        ]
        self.approaches = Approaches(
            signals,
            {name_in_copy(copy, lane): net.lengths[lane] for copy, lane in lanes},
            {name_in_copy(copy, lane): net.speeds[lane] for copy, lane in lanes},
            rules.observe_waiting,
        )
        greens = [signal.greens for signal in signals]
        self.lights = Lights(greens, rules.yellow, rules.all_red, rules.minimum_green)
        self.reward = reward_class(rules.reward)(self.approaches, rules.decision_every)
        self._occupancy = Occupancy(
            [
                (name_in_copy(copy, lane), start)
                for copy in range(tile.copies)
                for lane, start in influence.seen_lanes
            ]
        )
        self.insertions: Inserting = Insertions(influence, seen, classes, tile.copies, stream)
        self.rim = Rim(influence, tile.copies)
        self._history = influence.history(tile.copies)
        self.options: tuple[str, ...] = CHECKS
        self._types, self._clocks = types, Clocks(tile.copies, horizon)
        self._folder: TemporaryDirectory[str] | None = None

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As LocalSimulator; a reset of all environments starts SUMO again."""
        mask = self._clocks.restart(where, elapsed)
        self.insertions.reset(mask, self._clocks.gone)
        self._history.reset(mask)
        if mask.all():
            self._start()
        else:
            self._remove_vehicles(mask)
        self._reset_signals(mask)
        self._read()
        self._observations = self._observe()
        return self._state()

    def step(self, actions: np.ndarray, sources: Rows) -> LocalStep:
        """One second; actions: int [N, E], taken at the first second of a decision; sources: [1][E, M]."""
        simulation, given = self.simulation, np.asarray(sources[0])
        if self._seconds % self._rules.decision_every == 0:
            self.lights.request(np.asarray(actions).reshape(-1))
        changed = self.lights.second()
        simulation.set_lights((self.names[k], self.lights.states[k]) for k in changed)
        simulation.set_lights(self.rim.show(given))
        self._history.second(given)
        simulation.depart(self.insertions.second(self._clocks.gone, given))
        simulation.step()
        self._seconds += 1
        rewards = np.zeros(len(self.names)) + self.reward.second(simulation)
        if self._seconds % self._rules.decision_every == 0:
            self._read()
            rewards = rewards + self.reward.decision(simulation)
            self._observations = self._observe()
        done = self._clocks.tick()
        paid = np.float32(rewards * self._rules.reward_scale).reshape(-1, self.copies)
        return LocalStep(self._state(), paid, done)

    def close(self) -> None:
        """End SUMO and remove its files; ``reset`` starts it again."""
        self._end_simulation()
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def _end_simulation(self) -> None:
        if hasattr(self, "simulation"):
            self.simulation.close()

    def _start(self) -> None:
        self._end_simulation()
        options = "--seed", str(self._stream.integers(2**31)), *self.options
        self.simulation = self._simulate(
            self._tile.network, [self._additional()], (), *self._backend, options
        )
        self._seconds = 0
        self.rim.reset()

    def _additional(self) -> Path:
        """The file with vehicle types and routes."""
        if not self._folder:
            self._folder = TemporaryDirectory(prefix="dials_mpi-")
            content = "\n".join(["<additional>", *self._types, *self.insertions.routes(), "</additional>"])
            Path(self._folder.name, "region.add.xml").write_text(content, encoding="utf-8")
        return Path(self._folder.name, "region.add.xml")

    def _remove_vehicles(self, mask: np.ndarray) -> None:
        prefixes = tuple(name_in_copy(copy, "") for copy in np.flatnonzero(mask).tolist())
        there = (*self.simulation.vehicles(), *self.simulation.waiting())
        self.simulation.remove(name for name in there if name.startswith(prefixes))

    def _reset_signals(self, mask: np.ndarray) -> None:
        which = np.flatnonzero(np.tile(mask, len(self.names) // self.copies))
        self.lights.reset(which)
        self.reward.reset(which)
        self.simulation.set_lights((self.names[k], self.lights.states[k]) for k in which.tolist())

    def _read(self) -> None:
        self.approaches.read(self.simulation)

    def _observe(self) -> list[np.ndarray]:
        """The observations of each signal, float32 [N][E, O]."""
        rows = self.approaches.observe(self.lights)
        return [np.stack(rows[first : first + self.copies]) for first in range(0, len(rows), self.copies)]

    def _state(self) -> State:
        green = self.lights.green.reshape(-1, self.copies).T
        gone = self._clocks.gone / self._horizon
        names = self.simulation.vehicles()
        lanes = self.simulation.ask("vehicle", "getLaneID", names)
        occupied = self._occupancy.read(self.simulation, names, lanes)
        seen = inputs(self.influence, occupied, green, gone)
        self._history.mark(seen)
        return State([part.copy() for part in self._observations], [seen])  # they serve for a whole decision


class Rim:
    """The signals at the exits of E copies: they show what their influence sources say."""

    def __init__(self, influence: Influence, copies: int) -> None:
        self._first = len(influence.entries)
        self._exits = influence.exits
        self._signals = sorted({out.signal for out in influence.plan.exits if out.signal})
        self._length = {name: len(influence.net.signals[name].links) for name in self._signals}
        self._constant = {name: _constant(influence, name) for name in self._signals}
        self._copies = copies
        self._open = False
        self.reset()

    def open(self) -> None:
        """From now on ignore the sources: vehicles leave at all exits by the rules of priority."""
        self._open = True

    def reset(self) -> None:
        """Nothing is shown yet."""
        self._shown: dict[tuple[int, str], str] = {}
        self._given: list[list[int] | None] = [None] * self._copies

    def show(self, sources: np.ndarray) -> Sequence[tuple[str, str]]:
        """The states (signal, state) that change; sources: int [E, M]."""
        changes: list[tuple[str, str]] = []
        for copy, row in enumerate(sources[:, self._first :].tolist()):
            if row != self._given[copy]:
                self._given[copy] = row
                changes += self._changes(copy, row)
        return changes

    def _changes(self, copy: int, row: Sequence[int]) -> Iterator[tuple[str, str]]:
        for name in self._signals:
            state = self._state(name, row)
            if self._shown.get((copy, name)) != state:
                self._shown[copy, name] = state
                yield name_in_copy(copy, name), state

    def _state(self, name: str, classes: Sequence[int]) -> str:
        if self._open:
            return "g" * self._length[name]
        letters = list(self._constant[name])
        for source, chosen in zip(self._exits, classes, strict=False):
            if source.exit.signal == name:
                for link, letter in zip(source.exit.links, source.states[chosen], strict=True):
                    letters[link] = letter
        return "".join(letters)


def _constant(influence: Influence, name: str) -> str:
    """A signal's state where no source decides: red, and what never changes at exits without a source."""
    signal = influence.net.signals[name]
    letters = ["r"] * len(signal.links)
    for out in influence.plan.exits:
        states = exit_states(signal, out) if out.signal == name else ()
        if len(states) == 1:
            for link, letter in zip(out.links, states[0], strict=True):
                letters[link] = letter
    return "".join(letters)


def _copied(signal: Signal, copy: int) -> Signal:
    """A signal in a copy of its region."""

    def link(one: Link) -> Link:
        before, behind = (name_in_copy(copy, lane) for lane in (one.from_lane, one.to_lane))
        return Link(one.index, before, behind, one.direction)

    links = tuple(tuple(link(one) for one in group) for group in signal.links)
    upstream = tuple(tuple(name_in_copy(copy, lane) for lane in lanes) for lanes in signal.upstream)
    return replace(signal, name=name_in_copy(copy, signal.name), links=links, upstream=upstream)
