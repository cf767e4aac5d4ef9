"""Random streams keyed by what they are for, never by rank, wall clock or global state."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

OTHER_EPISODES = 2**32 - 1
"""A segment that no training reaches: keys other episodes than those of a run's own evaluations."""


class Purpose(IntEnum):
    """What a random stream is for. The numbers enter the key: never renumber, only append."""

    POLICY_INITIALISATION = 0
    PREDICTOR_INITIALISATION = 1
    SIMULATOR = 2
    SOURCES = 3
    ACTIONS = 4
    MINIBATCHES = 5
    COLLECT = 6
    COLLECT_ACTIONS = 7
    INFLUENCE_FIT = 8
    EVALUATION = 9
    EVALUATION_ACTIONS = 10
    GLOBAL_TRAINING = 11


def stream(seed: int, purpose: Purpose, region: int = 0, segment: int = 0) -> np.random.Generator:
    """The random stream of one purpose, region and segment; in place of the region stands the agent for what
    policies do, and the episode for the global simulator.

    All arguments are non-negative integers. Equal keys give equal streams, different keys independent
    ones (numpy's SeedSequence), whichever rank asks and however often.
    """
    key = np.random.SeedSequence((seed, int(purpose), region, segment))
    return np.random.Generator(np.random.PCG64(key))


def streams(seed: int, purpose: Purpose, regions: range | int, segment: int = 0) -> list[np.random.Generator]:
    """One stream per region (or per episode: give their number)."""
    keys = range(regions) if isinstance(regions, int) else regions
    return [stream(seed, purpose, region, segment) for region in keys]
