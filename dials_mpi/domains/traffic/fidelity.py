"""The accuracy of the local simulator: recorded global episodes are replayed in it, region by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Rows
from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.junctions import Observed
from dials_mpi.domains.traffic.network import SIDES
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator


class Measured(NamedTuple):
    """Figures of N junctions in E episodes.

    returns: float64 [N, E]. By edge, in the order of SIDES: flow, vehicles that entered it per
    episode, [N, 4]; speed, mean of the vehicles on it, m/s, [N, 4]; occupancy, share of the time in which a
    cell was occupied, [N, 4, cells].
    """

    returns: np.ndarray
    flow: np.ndarray
    speed: np.ndarray
    occupancy: np.ndarray


class Recording(NamedTuple):
    """Global episodes: actions int [T, N, E], true sources int [T, R, E, W], and the figures."""

    actions: np.ndarray
    sources: np.ndarray
    measured: Measured


def record(
    domain: Traffic,
    streams: Sequence[np.random.Generator],
    policy: Callable[[TrafficGlobalSimulator], Callable[[Rows], np.ndarray]],
) -> Recording:
    """Play len(streams) episodes of the whole grid side by side under a joint policy."""
    simulator = domain.global_simulator(streams)
    act = policy(simulator)
    observations = simulator.reset().observations
    sums = _Sums(simulator.junctions, (len(streams), len(domain.agents)))
    actions, sources = [], []
    for _ in range(domain.horizon):
        actions.append(np.array(act(observations)))
        step = simulator.step(actions[-1])
        observations = step.state.observations
        sources.append(step.sources)
        sums.add()
    return Recording(np.array(actions), np.array(sources), sums.measured())


def replay(domain: Traffic, recording: Recording) -> Measured:
    """Simulate every region alone, with the recorded actions and sources and the domain's insertion rule."""
    episodes, parts, order = recording.actions.shape[2], [], []
    for k, region in enumerate(domain.regions):
        agents = list(region.agents)
        simulator = domain.local_simulator([k], episodes, [np.random.default_rng(k)])
        simulator.reset()
        sums = _Sums(simulator.junctions, (episodes, len(agents)))
        for actions, sources in zip(recording.actions[:, agents], recording.sources[:, k], strict=True):
            simulator.step(actions, sources[None])
            sums.add()
        parts.append(sums.measured())
        order += agents
    back = np.argsort(order)
    return Measured(*(np.concatenate(figures)[back] for figures in zip(*parts, strict=True)))


def independent(domain: Traffic, probability: float, episodes: int, green: float) -> tuple[float, float]:
    """Return per episode, and vehicles that entered per episode, of one junction with independent sources.

    The domain's regions have one junction each. Each source is 1 with this probability at every step. green:
    steps of green after which the signal switches; infinity: never; 0: at random, with probability 1/2.
    """
    stream = np.random.default_rng(0)
    simulator = domain.local_simulator([0], episodes, stream.spawn(1))
    simulator.reset()
    sums = _Sums(simulator.junctions, (episodes, 1))
    for _ in range(domain.horizon):
        switch = simulator.junctions.lights.age >= green if green else stream.random(episodes) < 0.5
        sources = stream.random((1, episodes, len(SIDES))) < probability
        simulator.step(switch[None], sources.astype(np.int64))
        sums.add()
    measured = sums.measured()
    return float(measured.returns.mean()), float(measured.flow.sum())


class _Sums:
    """Sums over the steps of E x N junctions."""

    def __init__(self, junctions: Observed, shape: tuple[int, int]) -> None:
        self._junctions, self._shape = junctions, shape
        self._steps = 0
        self._sums = [np.zeros(values.shape) for values in self._values()]

    def add(self) -> None:
        """Add a step."""
        for total, values in zip(self._sums, self._values(), strict=True):
            total += values
        self._steps += 1

    def _values(self) -> tuple[np.ndarray, ...]:
        junctions = self._junctions
        driving = junctions.speed_sum, junctions.count, junctions.occupied
        return junctions.rewards(), junctions.entered, *driving

    def measured(self) -> Measured:
        """The figures of all steps so far."""
        episodes, regions = self._shape
        rewards, entered, speed, count, occupied = (
            total.reshape(episodes, regions, *total.shape[1:]) for total in self._sums
        )
        occupancy = occupied.mean(0) / self._steps
        return Measured(
            rewards.T,
            entered.mean(0),
            speed.sum(0) / np.maximum(count.sum(0), 1),
            occupancy.reshape(regions, len(SIDES), -1),
        )
