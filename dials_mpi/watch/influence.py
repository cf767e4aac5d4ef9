"""Play the episodes whose sources are compared with a region's influence predictor.

There are two pictures: the predicted probabilities along one episode with the observed classes, and the
calibration over all episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dials_mpi.algorithm.collect import Recorder, parts
from dials_mpi.algorithm.collect import play as play_episodes
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.joint import JointPolicy
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, streams
from dials_mpi.domains.base import GlobalSimulator
from dials_mpi.results.run import Run


def play(
    run: Run, policy: str, region: int, episodes: int, seed: int, advance: Callable[[int], None]
) -> Dataset:
    """The region's dataset of some episodes of the global simulator under a joint policy of the run.

    advance: called with the number of episodes that were just played.
    """
    domain, numbers = run.domain, range(episodes)
    datasets: list[Dataset] = []
    for here in parts(domain, episodes):
        acting, simulators = (
            streams(seed, purpose, numbers[here], OTHER_EPISODES)
            for purpose in (Purpose.EVALUATION_ACTIONS, Purpose.EVALUATION)
        )

        def policy_of(
            simulator: GlobalSimulator, block: slice, rngs: Sequence[np.random.Generator] = acting
        ) -> JointPolicy:
            return run.joint_policy(policy, simulator, rngs[block])

        recorder = Recorder(domain, len(acting), [region])
        play_episodes(domain, simulators, policy_of, record=recorder)
        datasets += recorder.datasets
        advance(len(acting))
    return Dataset(*(np.concatenate(arrays) for arrays in zip(*datasets, strict=True)))
