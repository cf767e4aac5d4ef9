"""What global ranks that share the agents of the same episodes do not share: the simulation itself."""

from __future__ import annotations

import time

from dials_mpi.algorithm.joint import BLOCK
from dials_mpi.config import Config
from dials_mpi.domains import create
from dials_mpi.domains.base import GlobalSimulator

TIMES = 3
"""Repetitions; the shortest counts."""


def simulation_seconds_per_region(config: Config) -> float:
    """CPU seconds of an episode of the global simulator with random actions, divided by the regions.

    0 in domains whose global ranks never share agents.
    """
    from dials_mpi.algorithm.collect import play
    from dials_mpi.algorithm.joint import RandomPolicy
    from dials_mpi.core.seeding import Purpose, streams

    domain = create(config.domain, config.domain_section)
    if domain.side_by_side is not None:
        return 0.0

    def acting(_: GlobalSimulator, part: slice) -> RandomPolicy:
        return RandomPolicy(domain.agents, streams(0, Purpose.COLLECT_ACTIONS, BLOCK)[part])

    seconds = []
    for _ in range(TIMES):
        begun = time.process_time()
        play(domain, streams(0, Purpose.COLLECT, BLOCK), acting)
        seconds.append(time.process_time() - begun)
    return min(seconds) / BLOCK / len(domain.regions)
