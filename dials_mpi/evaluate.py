"""The joint policy on the global simulator: returns, and how well the influence predictors predict.

As a program: ``python -m dials_mpi.evaluate DIR [--policy NAME]`` for a run's directory, or ``--config``
for policies that need no training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dials_mpi import joint
from dials_mpi.collect import collect
from dials_mpi.config import Config
from dials_mpi.domains.base import Domain
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.seeding import Purpose, streams


class Evaluation(NamedTuple):
    """Undiscounted returns float64 [E, N]; cross-entropy in nats per source [N], where there are AIPs."""

    returns: np.ndarray
    cross_entropy: np.ndarray | None = None

    @property
    def mean(self) -> float:
        """The mean over episodes and regions."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, over the episodes (regions of one episode are not independent); NaN for one."""
        by_episode = self.returns.mean(axis=1)
        if len(by_episode) < 2:
            return float("nan")
        return float(by_episode.std(ddof=1) / np.sqrt(len(by_episode)))


def evaluate(
    config: Config,
    domain: Domain,
    policies: list[Policy],
    predictors: list[Predictor],
    episodes: int,
    segment: int,
) -> Evaluation:
    """The trained policies, acting by sampling; ``segment`` keys the random streams.

    predictors: empty where there are none; else their cross-entropy on these episodes is measured, which
    no predictor was trained on.
    """
    seed = config.seed
    simulator = domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes, segment))
    actions = streams(seed, Purpose.EVALUATION_ACTIONS, episodes, segment)
    played = collect(domain, simulator, episodes, joint.TrainedPolicies(policies, actions))
    losses = [
        predictor.cross_entropy(*dataset)
        for predictor, dataset in zip(predictors, played.datasets if predictors else [], strict=True)
    ]
    return Evaluation(played.returns, np.array(losses) if losses else None)


def evaluate_scripted(
    config: Config, domain: Domain, name: str, episodes: int, segment: int = 0
) -> Evaluation:
    """The random policy or one of ``domain.hand_coded``."""
    seed = config.seed
    simulator = domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes, segment))
    actions = streams(seed, Purpose.EVALUATION_ACTIONS, episodes, segment)
    policy = joint.scripted(name, domain, simulator, actions)
    return Evaluation(collect(domain, simulator, episodes, policy).returns)
