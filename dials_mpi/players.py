"""The global ranks: they play a joint policy on global simulators, each of them some of the episodes.

Random streams belong to episodes, and networks see them in blocks that are always the same: so results do not
depend on how many ranks share them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi import joint
from dials_mpi.collect import Dataset, collect, shares
from dials_mpi.config import Config
from dials_mpi.domains.base import Domain
from dials_mpi.evaluate import Evaluation, Exam
from dials_mpi.failures import Failures
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.ranks import Ranks
from dials_mpi.seeding import Purpose, streams
from dials_mpi.stopwatch import Stopwatch


class Players:
    """One global rank's part in the playing; it needs all networks of the system."""

    def __init__(
        self, config: Config, domain: Domain, ranks: Ranks, watch: Stopwatch, failures: Failures
    ) -> None:
        self.config, self.domain, self.ranks = config, domain, ranks
        self.watch, self.failures = watch, failures
        self.policies: list[Policy] = []
        self.predictors: list[Predictor] = []

    def shares(self, episodes: int) -> list[slice]:
        """The episodes of each global rank."""
        return shares(self.domain, episodes, self.ranks.global_ranks)

    def dataset(self, segment: int) -> list[Dataset]:
        """Algorithm 2 for the refresh before a segment: this rank's episodes, for each region."""
        episodes = self.config.dataset_episodes
        share = self.shares(episodes)[self.ranks.rank]
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
            ).datasets

    def evaluate(self, segments: int) -> Evaluation | None:
        """The trained policies when so many segments are done; root gets the result."""
        exam = self._exam(segments)
        return self._joined(exam, lambda share: exam.trained(self.policies, self.predictors, share))

    def evaluate_scripted(self, name: str) -> Evaluation | None:
        """A policy that needs no training; root gets the result."""
        exam = self._exam(0)
        return self._joined(exam, lambda share: exam.scripted(name, share))

    def _exam(self, segments: int) -> Exam:
        return Exam(self.config, self.domain, self.config.evaluation_episodes, segments, self.failures)

    def _joined(self, exam: Exam, play: Callable[[slice], np.ndarray]) -> Evaluation | None:
        every = self.shares(exam.episodes)
        with self.watch("evaluate"):
            own = play(every[self.ranks.rank])
        with self.watch("wait"):
            rows = self.ranks.gather_shares(own, every)
        return exam.result(rows) if self.ranks.is_root else None
