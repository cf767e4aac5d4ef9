"""The accuracy of a city's local simulators: a recorded global episode is replayed region by region.

The local simulator receives the recorded actions, the recorded states of the exits' signals, and every
vehicle that came into the region, in its second, at its place, with its speed, type and speed factor. No
predictor is used and nothing is drawn from recordings, so that differences come from the cut, and from
SUMO's own random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Rows
from dials_mpi.domains.city import City, CityGlobalSimulator, CityLocalSimulator
from dials_mpi.domains.city.cutting import name_in_copy
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.insertion import route_name, route_xml
from dials_mpi.domains.city.tracking import Tracker, Visit
from dials_mpi.domains.sumo.simulation import Departing, Simulation

EXACT = ("--insertion-checks", "collision", "--emergency-insert")
"""SUMO's options: vehicles are put where they were, unless another one is in the way."""


class Measured(NamedTuple):
    """Figures of N signals in T seconds, on their incoming lanes.

    queue: halting vehicles after each second, [T, N]. flow: vehicles that pass the stop lines, per hour, [N].
    speed: mean of all vehicles on them, m/s, [N]; NaN if there was none. reward: mean per decision, [N].
    """

    queue: np.ndarray
    flow: np.ndarray
    speed: np.ndarray
    reward: np.ndarray


def joined(episodes: Sequence[Measured]) -> Measured:
    """The figures of several episodes: their seconds one after another, else means."""
    queue, *others = zip(*episodes, strict=True)
    return Measured(np.concatenate(queue), *(np.mean(values, axis=0) for values in others))


class Came(NamedTuple):
    """A vehicle that came into a region, or departed in it, as it was after ``second`` (1 is the first).

    lane, position, speed, type, factor: as SUMO says; run: its edges from there on, with the one after the
    region. own: it departed in the region.
    """

    second: int
    lane: str
    position: float
    speed: float
    type: str
    factor: float
    run: tuple[str, ...]
    own: bool


class Recording(NamedTuple):
    """A global episode: actions int [T, N], true sources [T][R], int [M] each; came: of each region, [R]."""

    actions: np.ndarray
    sources: list[list[np.ndarray]]
    came: list[list[Came]]
    measured: Measured


@dataclass(frozen=True)
class Variant:
    """What the local simulators are told.

    exits: the states of the exits' signals, else vehicles leave freely. turns: each vehicle's own way, else
    that of another vehicle from the same lane. drawn: vehicles enter as in training, by the true sources,
    with drawn places, speeds and types.
    """

    exits: bool = True
    turns: bool = True
    drawn: bool = False


def record(
    domain: City,
    stream: np.random.Generator,
    policy: Callable[[CityGlobalSimulator], Callable[[Rows], np.ndarray]],
) -> Recording:
    """Play an episode of the whole city under a joint policy."""
    simulator = domain.global_simulator([stream])
    act, tracker = policy(simulator), Tracker(domain.influences)
    state = simulator.reset()
    sums = _Sums(simulator, domain.decision_every)
    actions, sources = [], []
    came: list[list[Came]] = [[] for _ in domain.regions]
    for second in range(1, domain.horizon + 1):
        actions.append(np.array(act(state.observations)))
        step = simulator.step(actions[-1])
        state = step.state
        sources.append([row[0] for row in step.sources])
        for visit in tracker.second(simulator.simulation):
            influence = domain.influences[visit.region]
            came[visit.region].append(_came(simulator.simulation, visit, second, influence))
        sums.add(step.rewards[:, 0])
    simulator.close()
    return Recording(np.array(actions)[:, :, 0], sources, came, sums.measured())


def replay(domain: City, recording: Recording, variant: Variant = Variant(), seed: int = 0) -> Measured:
    """Simulate every region alone, under the recorded actions."""
    parts: list[Measured] = []
    order: list[int] = []
    for k, region in enumerate(domain.regions):
        parts.append(_replay_region(domain, recording, variant, k, seed))
        order += region.agents
    back = np.argsort(order)
    return Measured(*(np.concatenate(figures, axis=-1)[..., back] for figures in zip(*parts, strict=True)))


def _replay_region(domain: City, recording: Recording, variant: Variant, k: int, seed: int) -> Measured:
    agents, streams = list(domain.regions[k].agents), np.random.default_rng((seed, k)).spawn(2)
    simulator = domain.local_simulator([k], 1, streams[:1])
    if not variant.drawn:
        came = recording.came[k] if variant.turns else _mixed(recording.came[k], streams[1])
        simulator.insertions = Replayed(came)
        simulator.options = EXACT
    if not variant.exits:
        simulator.rim.open()
    simulator.reset()
    sums = _Sums(simulator, domain.decision_every)
    for actions, sources in zip(recording.actions[:, agents], recording.sources, strict=True):
        step = simulator.step(actions[:, None], [sources[k][None]])
        sums.add(step.rewards[:, 0])
    simulator.close()
    return sums.measured()


def _came(simulation: Simulation, visit: Visit, second: int, influence: Influence) -> Came:
    questions = ("getLaneID", "getLanePosition", "getSpeed", "getTypeID", "getSpeedFactor")
    lane, *seen = (simulation.ask("vehicle", question, [visit.vehicle])[0] for question in questions)
    position, speed, kind, factor = seen
    run = influence.way(visit.run[visit.run.index(visit.road) :], visit.following)
    return Came(second, lane, position, speed, kind, factor, run, visit.own)


def _mixed(came: Sequence[Came], stream: np.random.Generator) -> list[Came]:
    """The same vehicles, those that entered on the same lane with each other's ways."""
    by_lane: dict[str, list[int]] = {}
    for place, each in enumerate(came):
        if not each.own:
            by_lane.setdefault(each.lane, []).append(place)
    mixed = list(came)
    for places in by_lane.values():
        for place, other in zip(places, stream.permutation(places).tolist(), strict=True):
            mixed[place] = came[place]._replace(run=came[other].run)
    return mixed


class Replayed:
    """In place of Insertions: the vehicles of a recording enter copy 0 of a region, exactly as they came."""

    def __init__(self, came: Sequence[Came]) -> None:
        self._by_second: dict[int, list[Came]] = {}
        for each in came:
            self._by_second.setdefault(each.second, []).append(each)
        self._runs = sorted({each.run for each in came})
        self._number = 0

    def routes(self) -> Iterator[str]:
        """As Insertions."""
        return (route_xml(0, run) for run in self._runs)

    def reset(self, where: np.ndarray, gone: np.ndarray) -> None:
        """As Insertions."""

    def second(self, gone: np.ndarray, sources: np.ndarray) -> list[Departing]:
        """As Insertions."""
        return [self._departing(each) for each in self._by_second.get(int(gone[0]) + 1, ())]

    def _departing(self, came: Came) -> Departing:
        self._number += 1
        number = came.lane.rpartition("_")[2]
        how = f"{came.position:.6f}", f"{came.speed:.6f}", came.factor
        return Departing(name_in_copy(0, str(self._number)), came.type, route_name(0, came.run), number, *how)


class Flow:
    """Counts the vehicles that pass the stop lines of N signals.

    By their routes: a vehicle may pass a short road before a stop line within a second, unseen.
    """

    def __init__(self, incoming: Sequence[Sequence[str]]) -> None:
        """incoming: the lanes before each signal, [N]."""
        self._signals: dict[str, int] = {}
        for number, lanes in enumerate(incoming):
            self._signals |= dict.fromkeys((lane.rpartition("_")[0] for lane in lanes), number)
        self._number = len(incoming)
        self._at: dict[str, int] = {}
        self._routes: dict[str, list[int | None]] = {}

    def second(self, simulation: Simulation) -> np.ndarray:
        """The vehicles that passed each signal in the second that is over, int [N]."""
        names, passed = simulation.vehicles(), np.zeros(self._number, np.int64)
        now = dict(zip(names, simulation.ask("vehicle", "getRouteIndex", names), strict=True))
        for vehicle, here in now.items():
            before = self._at.get(vehicle)
            if before is None:
                (route,) = simulation.ask("vehicle", "getRoute", [vehicle])
                self._routes[vehicle] = [self._signals.get(edge) for edge in route]
            elif here != before:
                self._count(passed, self._routes[vehicle][before:here])
        for vehicle in self._at.keys() - now.keys():  # it has reached its last road, and left
            self._count(passed, self._routes.pop(vehicle)[self._at[vehicle] : -1])
        self._at = now
        return passed

    @staticmethod
    def _count(passed: np.ndarray, signals: Sequence[int | None]) -> None:
        for signal in signals:
            if signal is not None:
                passed[signal] += 1


class _Sums:
    """Sums over the seconds of an episode at N signals."""

    def __init__(self, simulator: CityGlobalSimulator | CityLocalSimulator, decision_every: int) -> None:
        self._simulator, self._every = simulator, decision_every
        self._lanes = simulator.approaches.incoming
        signals = len(simulator.names)
        self._queue: list[np.ndarray] = []
        self._rewards, self._left = np.zeros(signals), np.zeros(signals)
        self._count, self._speed = np.zeros(signals), np.zeros(signals)
        self._flow = Flow([signal.incoming for signal in simulator.approaches.signals])

    def add(self, rewards: np.ndarray) -> None:
        """Add the second that has passed; its rewards [N]."""
        names, sums = self._lanes.names, self._lanes.sums
        count, halting, speed = (
            np.array(self._simulator.simulation.ask("lane", question, names), float)
            for question in ("getLastStepVehicleNumber", "getLastStepHaltingNumber", "getLastStepMeanSpeed")
        )
        self._queue.append(sums(halting))
        self._count += sums(count)
        self._speed += sums(count * speed)
        self._rewards += rewards
        self._left += self._flow.second(self._simulator.simulation)

    def measured(self) -> Measured:
        """The figures of all seconds so far."""
        seconds = len(self._queue)
        with np.errstate(invalid="ignore"):
            speed = self._speed / self._count
        hours, decisions = seconds / 3600, seconds / self._every
        return Measured(np.array(self._queue), self._left / hours, speed, self._rewards / decisions)
