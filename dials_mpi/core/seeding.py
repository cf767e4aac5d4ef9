"""Random streams; their keys have the purpose, never the rank, the wall clock or global state."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

OTHER_EPISODES = 2**32 - 1
"""A segment number that no run reaches: keys of episodes that differ from those of a run's evaluations."""


class Purpose(IntEnum):
    """The purpose of a random stream. The numbers are part of the key: never renumber, only append."""

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
    """The random stream of one purpose, region and segment.

    region: for policies the agent, for the global simulator the episode. All arguments are non-negative
    integers. Equal keys give equal streams, on every rank and at every call; different keys give independent
    streams (numpy's SeedSequence).
    """
    key = np.random.SeedSequence((seed, int(purpose), region, segment))
    return np.random.Generator(np.random.PCG64(key))


def streams(seed: int, purpose: Purpose, regions: range | int, segment: int = 0) -> list[np.random.Generator]:
    """One stream per region; an int n stands for the regions (or episodes) 0 to n - 1."""
    keys = range(regions) if isinstance(regions, int) else regions
    return [stream(seed, purpose, region, segment) for region in keys]
