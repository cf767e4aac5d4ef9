"""How faithful the local simulator is: recorded global episodes replayed in it, region by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import SIDES
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator


class Seen(NamedTuple):
    """What was seen of N crossings in E episodes.

    returns: float64 [N, E]. By edge, in the order of SIDES: flow, vehicles that came onto it per episode,
    [N, 4]; speed, of the vehicles on it, m/s, [N, 4]; occupancy, share of the time in which a cell was
    occupied, [N, 4, cells].
    """

    returns: np.ndarray
    flow: np.ndarray
    speed: np.ndarray
    occupancy: np.ndarray


class Recording(NamedTuple):
    """Global episodes: actions int [T, N, E], true sources int [T, R, E, W], and what was seen."""

    actions: np.ndarray
    sources: np.ndarray
    seen: Seen


def record(
    domain: Traffic,
    streams: Sequence[np.random.Generator],
    policy: Callable[[TrafficGlobalSimulator], Callable[[np.ndarray], np.ndarray]],
) -> Recording:
    """Play len(streams) episodes of the whole grid side by side under a joint policy."""
    simulator = domain.global_simulator(streams)
    act = policy(simulator)
    observations = simulator.reset().observations
    tally = _Tally(simulator.crossings, (len(streams), len(domain.agents)))
    actions, sources = [], []
    for _ in range(domain.horizon):
        actions.append(np.array(act(observations)))
        step = simulator.step(actions[-1])
        observations = step.state.observations
        sources.append(step.sources)
        tally.add()
    return Recording(np.array(actions), np.array(sources), tally.seen())


def replay(domain: Traffic, recording: Recording) -> Seen:
    """Every region by itself, with the recorded actions and sources; ``domain`` has the rule of entry."""
    episodes, parts, order = recording.actions.shape[2], [], []
    for k, region in enumerate(domain.regions):
        agents = list(region.agents)
        simulator = domain.local_simulator([k], episodes, [np.random.default_rng(k)])
        simulator.reset()
        tally = _Tally(simulator.crossings, (episodes, len(agents)))
        for actions, sources in zip(recording.actions[:, agents], recording.sources[:, k], strict=True):
            simulator.step(actions, sources[None])
            tally.add()
        parts.append(tally.seen())
        order += agents
    back = np.argsort(order)
    return Seen(*(np.concatenate(figures)[back] for figures in zip(*parts, strict=True)))


def independent(domain: Traffic, probability: float, episodes: int, green: float) -> tuple[float, float]:
    """Return per episode, and vehicles that came in, of one crossing with random surroundings; the domain's
    regions have one each.

    At every edge a source is 1 with this probability at every step, whatever happened before. green: steps
    of green after which the light switches; infinity is never, 0 is at random, half of the time.
    """
    stream = np.random.default_rng(0)
    simulator = domain.local_simulator([0], episodes, stream.spawn(1))
    simulator.reset()
    tally = _Tally(simulator.crossings, (episodes, 1))
    for _ in range(domain.horizon):
        switch = simulator.crossings.lights.age >= green if green else stream.random(episodes) < 0.5
        sources = stream.random((1, episodes, len(SIDES))) < probability
        simulator.step(switch[None], sources.astype(np.int64))
        tally.add()
    seen = tally.seen()
    return float(seen.returns.mean()), float(seen.flow.sum())


class _Tally:
    """Sums over the steps of E x N crossings."""

    def __init__(self, crossings: Crossings, shape: tuple[int, int]) -> None:
        self._crossings, self._shape = crossings, shape
        self._steps = 0
        self._sums = [np.zeros(values.shape) for values in self._values()]

    def add(self) -> None:
        """Count a step."""
        for total, values in zip(self._sums, self._values(), strict=True):
            total += values
        self._steps += 1

    def _values(self) -> tuple[np.ndarray, ...]:
        crossings = self._crossings
        driving = crossings.speed_sum, crossings.count, crossings.occupied
        return crossings.rewards(), crossings.entered, *driving

    def seen(self) -> Seen:
        """Of all steps so far."""
        episodes, regions = self._shape
        rewards, entered, speed, count, occupied = (
            total.reshape(episodes, regions, *total.shape[1:]) for total in self._sums
        )
        occupancy = occupied.mean(0) / self._steps
        return Seen(
            rewards.T,
            entered.mean(0),
            speed.sum(0) / np.maximum(count.sum(0), 1),
            occupancy.reshape(regions, len(SIDES), -1),
        )
