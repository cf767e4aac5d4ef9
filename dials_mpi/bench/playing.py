"""How the cost of an episode depends on the ranks that share it and on the episodes beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain, GlobalSimulator

TIMES = 5
"""Repetitions; the shortest counts."""

MOST_AGENTS = 100
"""Agents whose policies are timed: enough that their parameters do not fit into a core's cache."""


class Playing(NamedTuple):
    """simulation: CPU seconds of one region in an episode, without networks; every rank of a group has them.

    once: what a pass of the networks costs for any number of episodes, as a number of episodes: their
    parameters are read from memory. Both are 0 in domains whose global ranks share no agents.
    """

    simulation: float = 0.0
    once: float = 0.0


def measure_playing(config: Config) -> Playing:
    """Measure it on this core, in seconds."""
    from dials_mpi.algorithm.joint import BLOCK

    domain = create(config.domain, config.domain_section)
    if domain.side_by_side is not None:
        return Playing()
    simulation = _shortest(partial(_simulate, domain, BLOCK)) / BLOCK / len(domain.regions)
    few, many = (_acting_seconds(config, domain, episodes) for episodes in (BLOCK, 4 * BLOCK))
    each = (many - few) / (3 * BLOCK)
    return Playing(simulation, max(0.0, few / each - BLOCK) if each > 0 else 0.0)


def _simulate(domain: Domain, episodes: int) -> None:
    """Play with random actions."""
    from dials_mpi.algorithm.collect import play
    from dials_mpi.algorithm.joint import RandomPolicy
    from dials_mpi.core.seeding import Purpose, streams

    def acting(_: GlobalSimulator, part: slice) -> RandomPolicy:
        return RandomPolicy(domain.agents, streams(0, Purpose.COLLECT_ACTIONS, episodes)[part])

    play(domain, streams(0, Purpose.COLLECT, episodes), acting)


def _acting_seconds(config: Config, domain: Domain, episodes: int) -> float:
    """CPU seconds of one decision of some of the policies."""
    from dials_mpi.algorithm import joint
    from dials_mpi.core.seeding import Purpose, streams
    from dials_mpi.learning.tables import tables, widths

    numbers = range(min(MOST_AGENTS, len(domain.agents)))
    rows = np.full((len(numbers), widths(tables(config, domain))["policy"]), 0.01, np.float32)
    policies = joint.policies(config, domain, rows, numbers)
    acting = joint.TrainedPolicies(policies, streams(0, Purpose.COLLECT_ACTIONS, episodes))
    seen = domain.global_simulator(streams(0, Purpose.COLLECT, episodes)).reset().observations
    return _shortest(lambda: acting(seen))


def _shortest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TIMES):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)
