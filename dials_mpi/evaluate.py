"""The joint policy on the global simulator: returns, and how well the influence predictors predict.

As a program: ``python -m dials_mpi.evaluate DIR [--policy NAME]`` for a run's directory, or ``--config``
for policies that need no training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from dials_mpi import joint
from dials_mpi.choice import Choice, add_arguments
from dials_mpi.cli import Parser, word
from dials_mpi.collect import Trajectories, blocks, collect
from dials_mpi.config import Config
from dials_mpi.domains.base import Domain, GlobalSimulator
from dials_mpi.errors import BadInput, refuse
from dials_mpi.failures import Failures
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.seeding import OTHER_EPISODES, Purpose, streams
from dials_mpi.values import printable

EXAMPLES = """examples:
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --policy oldest --episodes 500
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --checkpoint best
  python -m dials_mpi.evaluate --config configs/warehouse/25.yaml --policy random warehouse.ring=false
  python -m dials_mpi.evaluate --config configs/traffic/25.yaml --policy max-pressure"""


MOST_EPISODES = 1_000_000


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
        by_episode = self.returns.mean(axis=1)
        if len(by_episode) < 2:
            return float("nan")
        return float(by_episode.std(ddof=1) / np.sqrt(len(by_episode)))


class Exam:
    """The episodes of one evaluation, which players share: each gives a row for every episode of its own."""

    def __init__(
        self, config: Config, domain: Domain, episodes: int, segment: int, failures: Failures | None = None
    ) -> None:
        """segment: keys the random streams, which belong to episodes."""
        self.config, self.domain, self.episodes = config, domain, episodes
        self.segment, self.failures = segment, failures

    def trained(self, policies: list[Policy], predictors: list[Predictor], share: slice) -> np.ndarray:
        """Trained policies, acting by sampling: rows float64 [episodes of the share, N (+ R) + statistics].

        predictors: empty where there are none; else their cross-entropy on these episodes is measured, which
        no predictor was trained on: that of an episode is the mean of its block.
        """
        played = self._play(lambda _, streams: joint.TrainedPolicies(policies, streams), share)
        losses = np.empty((len(played.returns), len(predictors)))
        for block in blocks(self.domain, len(losses)):
            for i, predictor in enumerate(predictors):
                inputs, sources = played.datasets[i]
                losses[block, i] = predictor.cross_entropy(inputs[block], sources[block])
        return self._rows(played, losses)

    def scripted(self, name: str, share: slice) -> np.ndarray:
        """The random policy or one of ``domain.hand_coded``: rows as of ``trained`` without predictors."""
        policy = partial(joint.scripted, name, self.domain)
        return self._rows(self._play(policy, share))

    def result(self, rows: np.ndarray) -> Evaluation:
        """What the rows of all episodes say."""
        statistics = self.domain.statistics
        returns, rest = np.hsplit(rows, [len(self.domain.agents)])
        losses, figures = np.hsplit(rest, [rest.shape[1] - len(statistics)])
        named = {figure.name: values for figure, values in zip(statistics, figures.T, strict=True)}
        return Evaluation(returns, named, losses.mean(axis=0) if losses.size else None)

    def _play(
        self,
        policy: Callable[[GlobalSimulator, Sequence[np.random.Generator]], joint.JointPolicy],
        share: slice,
    ) -> Trajectories:
        actions, simulators = (
            streams(self.config.seed, purpose, self.episodes, self.segment)[share]
            for purpose in (Purpose.EVALUATION_ACTIONS, Purpose.EVALUATION)
        )
        return collect(
            self.domain,
            simulators,
            lambda simulator, part: policy(simulator, actions[part]),
            self.failures,
        )

    def _rows(self, played: Trajectories, *more: np.ndarray) -> np.ndarray:
        figures = [played.statistics[figure.name][:, None] for figure in self.domain.statistics]
        return np.hstack([played.returns, *more, *figures])


ALL = slice(None)


def evaluate(
    config: Config,
    domain: Domain,
    policies: list[Policy],
    predictors: list[Predictor],
    episodes: int,
    segment: int,
) -> Evaluation:
    """The trained policies, all episodes; see ``Exam``."""
    exam = Exam(config, domain, episodes, segment)
    return exam.result(exam.trained(policies, predictors, ALL))


def evaluate_scripted(
    config: Config, domain: Domain, name: str, episodes: int, segment: int = 0
) -> Evaluation:
    """The random policy or one of ``domain.hand_coded``, all episodes."""
    exam = Exam(config, domain, episodes, segment)
    return exam.result(exam.scripted(name, ALL))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("evaluate", "Play a joint policy on the global simulator.", EXAMPLES)
    add_arguments(parser)
    parser.add_argument("--episodes", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--json", metavar="FILE", type=word, help="write the figures to FILE as well")
    options = parser.parse_intermixed_args(argv)
    try:
        domain, result = _evaluate_as_told(options)
        if options.json:
            _write_json(options.json, result)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    error, episodes = result.standard_error, len(result.returns)
    spread = f" +- {error:.3f}" if np.isfinite(error) else ""
    print(f"mean return {result.mean:.3f}{spread} ({episodes} episode{'s' * (episodes > 1)})")
    for statistic in domain.statistics:
        mean = result.statistic(statistic.name)
        figure = "-" if mean is None else f"{mean:.1f} {statistic.unit}"
        print(f"{statistic.name.replace('_', ' ')}: {figure} ({statistic.about})")
    for agent, mean in enumerate(result.returns.mean(axis=0)):
        print(f"agent {agent}: {mean:.3f}")
    sys.exit(0)


def _evaluate_as_told(options: argparse.Namespace) -> tuple[Domain, Evaluation]:
    """The domain, and what the command line asks for. BadInput: it cannot be had."""
    if not 1 <= options.episodes <= MOST_EPISODES:
        raise BadInput(f"--episodes is {options.episodes}: give a number from 1 to {MOST_EPISODES}")
    choice = Choice(options)
    config, domain = choice.config, choice.domain
    if choice.policy != "trained":
        return domain, evaluate_scripted(config, domain, choice.policy, options.episodes)
    result = evaluate(
        config, domain, choice.policies, choice.predictors, options.episodes, segment=OTHER_EPISODES
    )
    return domain, result


def _write_json(file: str, result: Evaluation) -> None:
    figures = {
        "mean_return": result.mean,
        "standard_error": result.standard_error,
        "episodes": len(result.returns),
        "returns_by_agent": result.returns.mean(axis=0).tolist(),
        **{name: result.statistic(name) for name in result.statistics},
    }
    if result.cross_entropy is not None:
        figures["cross_entropy_by_region"] = result.cross_entropy.tolist()
    if not np.isfinite(result.standard_error):
        figures["standard_error"] = None
    try:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{printable(file)} cannot be written ({reason}): choose another --json") from error


if __name__ == "__main__":
    main()
