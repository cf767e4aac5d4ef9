"""The global ranks: they play the episodes of a joint policy on global simulators.

Each episode has its own random streams, and networks compute episodes in fixed blocks. So results depend
neither on the number of ranks nor on how they share the episodes and the agents (algorithm/division.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import shares
from dials_mpi.algorithm.division import Division
from dials_mpi.algorithm.evaluation import Evaluation, Evaluator, Played
from dials_mpi.algorithm.failures import Failures
from dials_mpi.config import Config
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains.base import Domain
from dials_mpi.learning.influence import Predictor
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import Layout
from dials_mpi.run.partners import GroupFailures, GroupPartners


class GlobalRank:
    """One global rank's networks, of a part of the system, and its part in evaluating; run/collection.py
    collects with them. All ranks make one, at the same time.

    partners, playing: the ranks that play the same episodes, and their failures. all_policies: [N, P], as
    gathered last, on root if ``keeps_policies``.
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
        self.division = Division(config, domain, layout.global_ranks)
        regions = 0 if config.mode == "global" else len(domain.regions)  # that have a predictor
        self.numbers = {"policy": len(domain.agents), "predictor": regions}
        self.partners, self.playing = self._partners()
        self.keeps_policies = False
        self.all_policies: np.ndarray | None = None
        self.policies: Sequence[joint.Actor] = []
        self.predictors: list[Predictor] = []

    def wanted(self, kind: str) -> list[range]:
        """The numbers of the owners whose networks each global rank needs."""
        number = self.numbers[kind]
        found = [self.division.part(rank, number) for rank in range(self.layout.global_ranks)]
        return [range(number), *found[1:]] if kind == "policy" and self.keeps_policies else found

    def set_parameters(self, kind: str, parameters: np.ndarray) -> None:
        """Use these parameters from now on, [len(wanted), W] of a kind of network."""
        part = self.division.part(self.comm.rank, self.numbers[kind])
        if kind == "policy" and self.keeps_policies and self.comm.is_root:
            self.all_policies, parameters = parameters, parameters[part.start : part.stop]
        if kind == "policy":
            self.policies = joint.policies(self.config, self.domain, parameters, part)
        else:
            self.predictors = joint.predictors(self.config, self.domain, parameters, part)

    def evaluate(self, segments: int) -> Evaluation | None:
        """Evaluate the policies after so many segments; the result on root, None elsewhere."""
        evaluator = self._evaluator(segments, self.playing)
        played = self.division.played(evaluator.episodes)
        with self.watch("evaluate"):
            share = played[self.comm.rank]
            own = evaluator.trained(self.policies, self.predictors, share, partners=self.partners)
        recorded = self.division.recorded(played)
        with self.watch("wait"):
            scores = self._scores(own.scores[: _length(recorded[self.comm.rank])], recorded)
            losses = self._losses(own.losses, evaluator.episodes)
        if scores is None or losses is None:
            return None
        return evaluator.result(Played(scores, losses))

    def evaluate_scripted(self, name: str, segments: int) -> Evaluation | None:
        """Evaluate a policy that needs no training, in the episodes of the evaluation after so many segments;
        the result on root, None elsewhere."""
        evaluator = self._evaluator(segments, self.failures)
        every = shares(self.domain, evaluator.episodes, self.layout.global_ranks)
        with self.watch("evaluate"):
            own = evaluator.scripted(name, every[self.comm.rank])
        with self.watch("wait"):
            scores = self._scores(own.scores, every)
        return None if scores is None else evaluator.result(Played(scores, np.empty((0, 0))))

    def _evaluator(self, segments: int, failures: Failures) -> Evaluator:
        episodes, key = self.config.evaluation_episodes, 0 if self.config.shares_episodes else segments
        return Evaluator(self.config, self.domain, episodes, key, failures)

    def _partners(self) -> tuple[joint.Partners, Failures]:
        rank, division, agents = self.comm.rank, self.division, self.numbers["policy"]
        regions = division.part(rank, self.numbers["predictor"])
        if all(len(group) == 1 for group in division.groups):
            return joint.Alone(agents, len(regions)), self.failures
        own = division.group(rank)
        members = self.comm.group(own)
        if len(own) < 2:
            return joint.Alone(agents, len(regions)), self.failures
        partners = GroupPartners(members, [division.part(other, agents) for other in own], regions)
        return partners, GroupFailures(self.failures, partners)

    def _scores(self, own: np.ndarray, every: Sequence[slice]) -> np.ndarray | None:
        """On root the rows of all episodes, of which each global rank has some."""
        episodes = [range(share.start, share.stop) for share in every]
        mine = dict(zip(episodes[self.comm.rank], own, strict=True))
        return self.comm.gather(mine, episodes, own.shape[1], own.dtype)

    def _losses(self, own: np.ndarray, episodes: int) -> np.ndarray | None:
        """On root the losses of all regions, [E, R], of which each rank has those of its regions and its
        group's episodes; [E, 0] without predictors."""
        played, regions = self.division.of_groups(episodes), self.numbers["predictor"]
        longest = max(map(_length, played))
        owned: list[list[int]] = [[] for _ in range(self.layout.global_ranks)]
        for k, group in enumerate(self.division.groups):
            for rank in group:
                owned[rank] = [k * regions + region for region in self.division.part(rank, regions)]
        mine = dict(zip(owned[self.comm.rank], own.T, strict=True))
        rows = self.comm.gather(mine, owned, longest, own.dtype)
        if rows is None:
            return None
        losses = np.empty((episodes, regions))
        for share, found in zip(played, rows.reshape(len(played), regions, longest), strict=True):
            losses[share] = found[:, : _length(share)].T
        return losses


def _length(share: slice) -> int:
    return share.stop - share.start
