"""The global ranks: each plays some of the episodes of a joint policy on a global simulator.

Each episode has its own random streams, and networks compute episodes in fixed blocks. So results do not
depend on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import Layout


class GlobalRank:
    """One global rank's part in collecting and evaluating, for which it has all networks of the system.

    parameters: of each kind of network, float32 [owners, P].
    """

    def __init__(
        self,
        config: Config,
        domain: Domain,
        comm: Communicator,
        layout: Layout,
        watch: Stopwatch,
        failures: Failures,
    ) -> None:
        self.config, self.domain, self.comm, self.layout = config, domain, comm, layout
        self.watch, self.failures = watch, failures
        self.parameters: dict[str, np.ndarray] = {}
        self.policies: Sequence[joint.Actor] = []
        self.predictors: list[Predictor] = []

    def set_parameters(self, kind: str, parameters: np.ndarray) -> None:
        """Use these parameters [owners, P] of a kind of network from now on."""
        self.parameters[kind] = parameters
        if kind == "policy":
            self.policies = joint.policies(self.config, self.domain, parameters)
        else:
            self.predictors = joint.predictors(self.config, self.domain, parameters)

    def shares(self, episodes: int) -> list[slice]:
        """The episodes of each global rank."""
        return shares(self.domain, episodes, self.layout.global_ranks)

    def dataset(self, segment: int, share: slice) -> Trajectories:
        """Algorithm 2 for the refit before a segment: some of its episodes."""
        simulators, actions = (
            streams(self.config.seed, purpose, range(share.start, share.stop), segment)
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
        """Evaluate the policies after so many segments; the result on root, None elsewhere."""
        evaluator = self._evaluator(segments)
        return self._joined(evaluator, lambda share: evaluator.trained(self.policies, self.predictors, share))

    def evaluate_scripted(self, name: str, segments: int) -> Evaluation | None:
        """Evaluate a policy that needs no training, in the episodes of the evaluation after so many segments;
        the result on root, None elsewhere."""
        evaluator = self._evaluator(segments)
        return self._joined(evaluator, lambda share: evaluator.scripted(name, share))

    def _evaluator(self, segments: int) -> Evaluator:
        episodes, key = self.config.evaluation_episodes, 0 if self.config.shares_episodes else segments
        return Evaluator(self.config, self.domain, episodes, key, self.failures)

    def _joined(self, evaluator: Evaluator, play: Callable[[slice], np.ndarray]) -> Evaluation | None:
        every = self.shares(evaluator.episodes)
        with self.watch("evaluate"):
            own = play(every[self.comm.rank])
        with self.watch("wait"):
            episodes = [range(share.start, share.stop) for share in every]
            mine = dict(zip(episodes[self.comm.rank], own, strict=True))
            rows = self.comm.gather(mine, episodes, own.shape[1], own.dtype)
        return None if rows is None else evaluator.result(rows)
