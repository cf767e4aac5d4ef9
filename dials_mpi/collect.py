"""Algorithm 2: the joint policy on the global simulator gives one dataset per region."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Domain, GlobalSimulator, Region
from dials_mpi.joint import JointPolicy


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
    """E episodes of the whole system: one dataset per region, undiscounted returns float64 [E, N]."""

    datasets: list[Dataset]
    returns: np.ndarray


def collect(domain: Domain, simulator: GlobalSimulator, episodes: int, policy: JointPolicy) -> Trajectories:
    """Play all of the simulator's ``episodes`` once, side by side, from beginning to end."""
    state = simulator.reset()
    datasets = [Dataset.empty(region, episodes, domain.horizon) for region in domain.regions]
    returns = np.zeros((len(domain.regions), episodes))
    for t in range(domain.horizon):
        inputs = state.inputs
        state, sources, rewards, _ = simulator.step(policy(state.observations))
        for i, dataset in enumerate(datasets):
            dataset.inputs[:, t] = inputs[i]
            dataset.sources[:, t] = sources[i]
        returns += rewards
    return Trajectories(datasets, returns.T)
