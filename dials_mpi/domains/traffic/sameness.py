"""The compiled local junctions beside SUMO's, step by step, under the same lights and entries."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.domains.traffic import Traffic, TrafficConfig

STEPS, ENVIRONMENTS, SWITCHING, ENTERING = 150, 8, 0.2, 0.3
"""Of the comparison before a run: its length, its junctions, and probabilities per step."""


class Differences(NamedTuple):
    """steps: of all junctions; how many of them have another observation, another reward; the largest
    difference of a reward."""

    steps: int
    observations: int
    rewards: int
    largest: float


def compare(config: TrafficConfig, actions: np.ndarray, sources: np.ndarray, seed: int = 0) -> Differences:
    """The differences in the first R regions; actions: int [T, R, E]; sources: int [T, R, E, W]."""
    regions, environments = sources.shape[1:3]
    pair = [
        Traffic(replace(config, local=kind)).local_simulator(
            range(regions), environments, np.random.default_rng(seed).spawn(regions)
        )
        for kind in ("sumo", "compiled")
    ]
    for simulator in pair:
        simulator.reset()
    observations = rewards = 0
    largest = 0.0
    for action, source in zip(actions, sources, strict=True):
        one, other = (simulator.step(action, source) for simulator in pair)
        seen, other_seen = np.asarray(one.state.observations), np.asarray(other.state.observations)
        observations += int((seen != other_seen).any(axis=-1).sum())
        rewards += int((one.rewards != other.rewards).sum())
        largest = max(largest, float(np.abs(one.rewards - other.rewards).max()))
    pair[0].close()
    return Differences(actions.size, observations, rewards, largest)


@functools.cache
def require_same_traffic(config: TrafficConfig, version: str) -> None:
    """Compare a minute or two of traffic; version: SUMO's. BadInput: this SUMO's traffic is another one."""
    if Simulation.running:  # the comparison would end it
        return
    rng = np.random.default_rng(0)
    regions = min(2, len(Traffic(config).regions))
    actions = rng.random((STEPS, regions, ENVIRONMENTS)) < SWITCHING
    sources = rng.random((*actions.shape, 4)) < ENTERING
    found = compare(config, actions.astype(np.int64), sources.astype(np.int64))
    if found.observations or found.largest > 1e-6:
        raise BadInput(
            "traffic.local=compiled simulates the traffic of SUMO 1.28, and that of SUMO "
            f"{version} differs from it: use traffic.local=sumo"
        )
