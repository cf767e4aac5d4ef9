"""The joint policy on the global simulator: returns, and how well the influence predictors predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, cast

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import Recorder, blocks, parts, play
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.failures import Attempts, Failures
from dials_mpi.config import Config
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Domain, GlobalSimulator
from dials_mpi.learning.influence import Predictor


class Evaluation(NamedTuple):
    """Undiscounted returns float64 [E, N]; cross-entropy in nats per source [R], where there are AIPs.

    statistics: the domain's own figures of each episode, by name, float64 [E].
    """

    returns: np.ndarray
    statistics: Mapping[str, np.ndarray]
    cross_entropy: np.ndarray | None = None

    @property
    def mean(self) -> float:
        """The mean over episodes and agents."""
        return float(self.returns.mean())

    def statistic(self, name: str) -> float | None:
        """A statistic's mean over the episodes that have it; None where none has."""
        values = self.statistics[name]
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else None

    @property
    def standard_error(self) -> float:
        """Of the mean, over the episodes (agents of one episode are not independent); NaN for one."""
        return _standard_error(self.returns.mean(axis=1))

    def minus(self, other: Evaluation) -> Difference:
        """The difference of the returns from those of another policy in the same episodes."""
        return paired(self.returns.mean(axis=1), other.returns.mean(axis=1))

    def statistic_error(self, name: str) -> float:
        """The standard error of ``statistic``, over the episodes that have it; NaN for fewer than two."""
        values = self.statistics[name]
        return _standard_error(values[np.isfinite(values)])


class Difference(NamedTuple):
    """The mean of a difference over episodes, and its standard error (NaN for fewer than two)."""

    mean: float
    standard_error: float


def paired(these: np.ndarray, those: np.ndarray) -> Difference:
    """These values [E] minus those in the same episodes [E]; an episode that lacks one of them is left out.

    The noise that both have in common cancels, so the error is smaller than that of two separate means.
    """
    differences = (these - those)[np.isfinite(these - those)]
    mean = float(differences.mean()) if differences.size else float("nan")
    return Difference(mean, _standard_error(differences))


def baseline(policies: Iterable[str]) -> str:
    """The policy that others are compared with: the first hand-coded one; random where there is none."""
    return next((name for name in policies if name not in ("trained", "random")), "random")


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


class Observer(Protocol):
    """Sees the global simulators of an evaluation; numbers: those of their episodes, from 0."""

    def begin(self, simulator: GlobalSimulator, numbers: range) -> None:
        """The episodes will begin; again, if the simulator fails."""
        ...

    def end(self, simulator: GlobalSimulator, numbers: range) -> None:
        """The episodes have ended."""
        ...


Maker = Callable[[GlobalSimulator, Sequence[np.random.Generator]], joint.JointPolicy]
"""Makes the joint policy for a simulator's episodes, from a stream for each of them."""


class Played(NamedTuple):
    """What some episodes of an evaluation came to, float64.

    scores: [E, N + statistics]. losses: the cross-entropy of some regions' predictors, [E, R]; that of an
    episode is the mean of its block.
    """

    scores: np.ndarray
    losses: np.ndarray


class Evaluator:
    """The episodes of one evaluation. Each global rank plays some of them."""

    def __init__(
        self,
        config: Config,
        domain: Domain,
        episodes: int,
        segment: int,
        failures: Failures | None = None,
        observer: Observer | None = None,
    ) -> None:
        """segment: keys the random streams, which belong to episodes."""
        self.config, self.domain, self.episodes = config, domain, episodes
        self.segment, self.failures, self.observer = segment, failures, observer

    def trained(
        self,
        policies: Sequence[joint.Actor],
        predictors: list[Predictor],
        share: slice,
        greedy: bool = False,
        partners: joint.Partners | None = None,
    ) -> Played:
        """Trained policies in the episodes of the share.

        greedy: the policies, GreedyActors, take their most probable actions; else they sample. predictors:
        empty where there are none; else their cross-entropy on these episodes is measured, which no predictor
        was trained on. partners: with them, policies and predictors are those that this rank computes.
        """

        def acting(_: GlobalSimulator, streams: Sequence[np.random.Generator]) -> joint.JointPolicy:
            if greedy:
                return joint.GreedyPolicies(cast("Sequence[joint.GreedyActor]", policies), len(streams))
            return joint.TrainedPolicies(policies, streams, partners)

        regions = partners.regions if partners else range(len(predictors))
        return self._played(acting, share, dict(zip(regions, predictors, strict=True)))

    def scripted(self, name: str, share: slice) -> Played:
        """The random policy or one of ``domain.hand_coded``, as ``trained`` without predictors."""
        return self._played(partial(joint.scripted, name, self.domain), share, {})

    def result(self, played: Played) -> Evaluation:
        """What all episodes say."""
        returns, figures = np.hsplit(played.scores, [len(self.domain.agents)])
        named = {
            figure.name: values for figure, values in zip(self.domain.statistics, figures.T, strict=True)
        }
        return Evaluation(returns, named, played.losses.mean(axis=0) if played.losses.size else None)

    def _played(self, policy: Maker, share: slice, predictors: Mapping[int, Predictor]) -> Played:
        """Part by part, so that no more than one part's streams and datasets are held at a time."""
        numbers, domain = range(self.episodes)[share], self.domain
        scores = np.empty((len(numbers), len(domain.agents) + len(domain.statistics)))
        losses = np.empty((len(numbers), len(predictors)))
        for part in parts(domain, len(numbers)):
            scores[part], losses[part] = self._part(policy, numbers[part], predictors)
        return Played(scores, losses)

    def _part(self, policy: Maker, numbers: range, predictors: Mapping[int, Predictor]) -> Played:
        actions, simulators = (
            Attempts(streams(self.config.episodes_seed, purpose, numbers, self.segment))
            for purpose in (Purpose.EVALUATION_ACTIONS, Purpose.EVALUATION)
        )
        recorder = Recorder(self.domain, len(numbers), list(predictors)) if predictors else None
        observer = self.observer

        def begin(simulator: GlobalSimulator, part: slice) -> joint.JointPolicy:
            if observer:
                observer.begin(simulator, numbers[part])
            return policy(simulator, actions[part])

        def end(simulator: GlobalSimulator, part: slice) -> None:
            if observer:
                observer.end(simulator, numbers[part])

        scores = play(self.domain, simulators, begin, self.failures, recorder, end)
        losses = self._losses([*predictors.values()], recorder.datasets if recorder else [], len(numbers))
        figures = [scores.statistics[figure.name][:, None] for figure in self.domain.statistics]
        return Played(np.hstack([scores.returns, *figures]), losses)

    def _losses(
        self, predictors: Sequence[Predictor], datasets: Sequence[Dataset], episodes: int
    ) -> np.ndarray:
        losses = np.empty((episodes, len(predictors)))
        for block in blocks(self.domain, episodes):
            for i, (predictor, dataset) in enumerate(zip(predictors, datasets, strict=True)):
                losses[block, i] = predictor.cross_entropy(*dataset.some(block))
        return losses


ALL = slice(None)


def evaluate(
    config: Config,
    domain: Domain,
    policies: Sequence[joint.Actor],
    predictors: list[Predictor],
    episodes: int,
    segment: int,
    observer: Observer | None = None,
    greedy: bool = False,
) -> Evaluation:
    """The trained policies, all episodes; see ``Evaluator``."""
    evaluator = Evaluator(config, domain, episodes, segment, observer=observer)
    return evaluator.result(evaluator.trained(policies, predictors, ALL, greedy))


def evaluate_scripted(
    config: Config,
    domain: Domain,
    name: str,
    episodes: int,
    segment: int,
    observer: Observer | None = None,
) -> Evaluation:
    """The random policy or one of ``domain.hand_coded``, all episodes."""
    evaluator = Evaluator(config, domain, episodes, segment, observer=observer)
    return evaluator.result(evaluator.scripted(name, ALL))
