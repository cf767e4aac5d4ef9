"""Algorithm 2: the joint policy on the global simulator gives one dataset per region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.joint import BLOCK, JointPolicy
from dials_mpi.domains.base import Domain, GlobalSimulator, Region, SimulatorFailure

PolicyOfEpisodes = Callable[[GlobalSimulator, slice], JointPolicy]
"""Makes the joint policy for some of the episodes, which run side by side in a simulator of their own."""


class Dataset(NamedTuple):
    """D_i: what region i saw, and what influenced it, in K whole episodes of T steps.

    inputs [K, T, D]: the d-set before each step; sources uint8 [K, T, M]: the sources of that step.
    """

    inputs: np.ndarray
    sources: np.ndarray

    @classmethod
    def empty(cls, region: Region, episodes: int, horizon: int) -> Dataset:
        """Room for a region's dataset."""
        return cls(
            np.empty((episodes, horizon, region.input_size), region.input_type),
            np.empty((episodes, horizon, len(region.source_classes)), np.uint8),
        )


class Trajectories(NamedTuple):
    """E episodes of the whole system.

    datasets: one per region. returns: undiscounted, by agent, float64 [E, N]. statistics: the domain's own
    figures of each episode, by name, float64 [E].
    """

    datasets: list[Dataset]
    returns: np.ndarray
    statistics: dict[str, np.ndarray]


def blocks(domain: Domain, episodes: int) -> list[slice]:
    """Episodes as they are dealt out: results do not depend on which blocks are played beside each other."""
    size = min(BLOCK, _at_once(domain, episodes))
    return [slice(first, min(first + size, episodes)) for first in range(0, episodes, size)]


def shares(domain: Domain, episodes: int, players: int) -> list[slice]:
    """The episodes, in whole blocks, that each of so many players plays; for some maybe none."""
    starts = [block.start for block in blocks(domain, episodes)] + [episodes]
    bounds = [starts[(len(starts) - 1) * player // players] for player in range(players + 1)]
    return [slice(first, last) for first, last in pairwise(bounds)]


def collect(
    domain: Domain,
    streams: Sequence[np.random.Generator],
    policy: PolicyOfEpisodes,
    failures: Failures | None = None,
) -> Trajectories:
    """Play len(streams) episodes from beginning to end, as many side by side as suits the domain.

    streams: of the simulator, one per episode. Episodes whose simulator breaks down are played anew, with
    what their streams give next.
    """
    failures = failures or Failures()
    episodes = len(streams)
    played = Trajectories(
        [Dataset.empty(region, episodes, domain.horizon) for region in domain.regions],
        np.zeros((episodes, len(domain.agents))),
        {statistic.name: np.empty(episodes) for statistic in domain.statistics},
    )
    at_once = _at_once(domain, episodes)
    for first in range(0, episodes, at_once):
        part = slice(first, min(first + at_once, episodes))
        while True:
            simulator = domain.global_simulator(streams[part])
            try:
                _play(simulator, policy(simulator, part), played, part, domain.horizon, failures.beat)
                break
            except SimulatorFailure as failure:
                failures.note(failure)
        failures.over()
    return played


def _at_once(domain: Domain, episodes: int) -> int:
    """How many episodes are played side by side: whole blocks, or less than one."""
    if domain.side_by_side is None:
        return max(1, episodes)
    most = max(1, domain.side_by_side // len(domain.agents))
    return most if most < BLOCK else most - most % BLOCK


def _play(
    simulator: GlobalSimulator,
    policy: JointPolicy,
    played: Trajectories,
    part: slice,
    horizon: int,
    beat: Callable[[], None],
) -> None:
    """Play the simulator's episodes once and write them down as this part of all."""
    played.returns[part] = 0
    state = simulator.reset()
    for t in range(horizon):
        inputs = state.inputs
        state, sources, rewards, _ = simulator.step(policy(state.observations))
        for k, dataset in enumerate(played.datasets):
            dataset.inputs[part, t] = inputs[k]
            dataset.sources[part, t] = sources[k]
        played.returns[part] += rewards.T
        beat()
    for name, values in simulator.statistics().items():
        played.statistics[name][part] = values
