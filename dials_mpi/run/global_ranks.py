"""The global ranks: they play a joint policy on global simulators, each of them some of the episodes.

Random streams belong to episodes, and networks see them in blocks that are always the same: so results do not
depend on how many ranks share them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import Trajectories, collect, shares
from dials_mpi.algorithm.evaluation import Evaluation, Evaluator
from dials_mpi.algorithm.failures import Failures
from dials_mpi.config import Config
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains.base import Domain
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.parallel.communicator import Communicator


class GlobalRank:
    """One global rank's part in the playing; it needs all networks of the system."""

    def __init__(
        self, config: Config, domain: Domain, comm: Communicator, watch: Stopwatch, failures: Failures
    ) -> None:
        self.config, self.domain, self.comm = config, domain, comm
        self.watch, self.failures = watch, failures
        self.policies: list[Policy] = []
        self.predictors: list[Predictor] = []

    def shares(self, episodes: int) -> list[slice]:
        """The episodes of each global rank."""
        return shares(self.domain, episodes, self.comm.global_ranks)

    def dataset(self, segment: int) -> Trajectories:
        """Algorithm 2 for the refit before a segment: this rank's episodes."""
        episodes = self.config.dataset_episodes
        share = self.shares(episodes)[self.comm.rank]
        simulators, actions = (
            streams(self.config.seed, purpose, episodes, segment)[share]
            for purpose in (Purpose.COLLECT, Purpose.COLLECT_ACTIONS)
        )
        with self.watch("collect"):
            return collect(
                self.domain,
                simulators,
                lambda _, part: joint.TrainedPolicies(self.policies, actions[part]),
                self.failures,
                with_acts=self.config.datasets != "none",
            )

    def evaluate(self, segments: int) -> Evaluation | None:
        """The trained policies when so many segments are done; root gets the result."""
        evaluator = self._evaluator(segments)
        return self._joined(evaluator, lambda share: evaluator.trained(self.policies, self.predictors, share))

    def evaluate_scripted(self, name: str) -> Evaluation | None:
        """A policy that needs no training; root gets the result."""
        evaluator = self._evaluator(0)
        return self._joined(evaluator, lambda share: evaluator.scripted(name, share))

    def _evaluator(self, segments: int) -> Evaluator:
        return Evaluator(self.config, self.domain, self.config.evaluation_episodes, segments, self.failures)

    def _joined(self, evaluator: Evaluator, play: Callable[[slice], np.ndarray]) -> Evaluation | None:
        every = self.shares(evaluator.episodes)
        with self.watch("evaluate"):
            own = play(every[self.comm.rank])
        with self.watch("wait"):
            rows = self.comm.gather_shares(own, every)
        return evaluator.result(rows) if self.comm.is_root else None
