"""The effect of the influence: returns of policies in local simulators under different sources.

The sources are the true ones of recorded global episodes; independent ones of the same frequencies; the most
frequent class alone; and, with a run, those sampled from its predictors. The policies act on the observations
of the local simulators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.algorithm.decisions import held
from dials_mpi.algorithm.ials import IALS, Environment, Outcome
from dials_mpi.algorithm.joint import JointPolicy, RandomPolicy
from dials_mpi.check.findings import Finding, good, note
from dials_mpi.check.play import Played, agents_of
from dials_mpi.check.replay import difference
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Domain, LocalSimulator, Rows
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.learning.influence import Predictor


class Actors(NamedTuple):
    """The policies that act; policy: makes a new joint policy, always the same. predictors: of a run."""

    name: str
    policy: Callable[[], JointPolicy]
    predictors: Sequence[Predictor] = ()


def random_actors(domain: Domain, seed: int, episodes: int) -> Actors:
    """Random policies."""

    def policy() -> JointPolicy:
        return RandomPolicy(domain.agents, streams(seed, Purpose.EVALUATION_ACTIONS, episodes))

    return Actors("random policies", policy)


def check_influence(domain: Domain, seed: int, recorded: Played, actors: Actors) -> Iterator[Finding]:
    """Differences of the mean return under other sources from that under the recorded sources."""
    regions, episodes = range(len(domain.regions)), recorded.returns.shape[1]

    def simulator() -> LocalSimulator:
        return domain.local_simulator(regions, episodes, streams(seed, Purpose.SIMULATOR, len(regions)))

    def returns(environment: Environment) -> np.ndarray:
        return local_returns(domain, environment, actors.policy())

    true = returns(ReplayedSources(simulator(), recorded.sources))
    gaps = []
    for what, sources in (
        ("independent sources of the same frequencies", _marginal(domain, seed, recorded)),
        ("the most frequent sources alone", _most_frequent(domain, recorded)),
    ):
        gaps.append(difference(returns(ReplayedSources(simulator(), sources)), true))
        yield note(what, f"change the mean return of {actors.name} by {gaps[-1]}")
    matters = any(gap.significant for gap in gaps)
    yield (good if matters else note)(
        "the influence matters",
        f"to {actors.name}"
        if matters
        else f"not to {actors.name}, as far as these episodes show: try more --episodes"
        + ("" if actors.predictors else ", or a run, whose policies may need it more"),
    )
    if actors.predictors:
        own = streams(seed, Purpose.SOURCES, len(regions))
        learnt = returns(IALS(simulator(), actors.predictors, episodes, own))
        order = agents_of(domain, regions)
        yield note(
            "sources sampled from the run's predictors",
            f"give {actors.name} a mean return of {learnt.mean():.4g}: {difference(learnt, true)} from that "
            "under recorded sources, "
            f"{difference(learnt, recorded.returns[order])} from that on the global simulator",
        )


class ReplayedSources:
    """Local simulators as an environment under given sources, [T][R][E, M]."""

    def __init__(self, simulator: LocalSimulator, sources: Sequence[Any]) -> None:
        self.simulator, self.sources = simulator, iter(sources)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """Begin all episodes."""
        return self.simulator.reset(where, elapsed).observations

    def step(self, actions: np.ndarray) -> Outcome:
        """One step, under the next sources."""
        state, rewards, done = self.simulator.step(actions, next(self.sources))
        return Outcome(state.observations, rewards, done)


def local_returns(domain: Domain, environment: Environment, policy: JointPolicy) -> np.ndarray:
    """Undiscounted returns [N, E] of whole episodes of a joint policy in local simulators of all regions."""
    order = agents_of(domain, range(len(domain.regions)))
    places = np.argsort(order)
    observations, rewards, acting = environment.reset(), [], held(policy, decision_steps(domain))
    for _ in range(domain.horizon):
        actions = acting([observations[place] for place in places])
        observations, earned, _ = environment.step(actions[order])
        rewards.append(np.array(earned))
    return np.asarray(np.sum(rewards, axis=0, dtype=np.float64))


def frequencies(recorded: Played, region: int, classes: Sequence[int]) -> list[np.ndarray]:
    """The frequencies of each source's classes of a region in the recorded episodes."""
    values = np.stack([sources[region] for sources in recorded.sources]).reshape(-1, len(classes))
    return [np.bincount(values[:, m], minlength=count) / len(values) for m, count in enumerate(classes)]


def _marginal(domain: Domain, seed: int, recorded: Played) -> list[list[np.ndarray]]:
    episodes, every = recorded.returns.shape[1], streams(seed, Purpose.SOURCES, len(domain.regions))
    rows: list[list[np.ndarray]] = [[] for _ in recorded.sources]
    for k, region in enumerate(domain.regions):
        known = frequencies(recorded, k, region.source_classes)
        drawn = [every[k].choice(len(p), size=(len(rows), episodes), p=p) for p in known]
        for t, row in enumerate(rows):
            row.append(np.stack([values[t] for values in drawn], axis=1))
    return rows


def _most_frequent(domain: Domain, recorded: Played) -> list[list[np.ndarray]]:
    episodes = recorded.returns.shape[1]
    row = []
    for k, region in enumerate(domain.regions):
        usual = [int(p.argmax()) for p in frequencies(recorded, k, region.source_classes)]
        row.append(np.tile(usual, (episodes, 1)))
    return [row] * len(recorded.sources)
