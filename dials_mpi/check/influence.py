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
from dials_mpi.check.draws import Draws, simulator_of
from dials_mpi.check.findings import Breach, Finding, good, note, wrong
from dials_mpi.check.gaps import SIGNIFICANT, difference
from dials_mpi.check.play import Maker, Played, agents_of, groups
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Domain, LocalSimulator, Rows
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.learning.influence import Predictor

SPREADS, SHARE = 1.0, 0.1
"""The return that predictors promise may differ by so many standard deviations of an agent's return between
episodes, or by this share of the mean size of a return, whichever is larger."""


class Actors(NamedTuple):
    """The policies that act; predictors: of a run; random: they do not heed observations."""

    name: str
    policy: Maker
    predictors: Sequence[Predictor] = ()
    random: bool = False


def random_actors(domain: Domain) -> Actors:
    """Random policies."""

    def policy(agents: Sequence[int], chance: Sequence[np.random.Generator]) -> JointPolicy:
        return RandomPolicy([domain.agents[i] for i in agents], chance)

    return Actors("random policies", policy, random=True)


def check_influence(domain: Domain, seed: int, recorded: Played, actors: Actors) -> list[Finding]:
    """Differences of the mean return under other sources from that under the recorded sources.

    The local simulators get the recorded random numbers, if these are known and are what they draw.
    """
    try:
        return list(_influence(domain, seed, recorded, actors, recorded.draws))
    except Breach:  # what they draw depends on the sources
        return list(_influence(domain, seed, recorded, actors, None))


def _influence(
    domain: Domain, seed: int, recorded: Played, actors: Actors, draws: Sequence[Draws] | None
) -> Iterator[Finding]:
    regions, episodes = range(len(domain.regions)), recorded.returns.shape[1]

    def returns(environment: Callable[[LocalSimulator, list[int]], Environment]) -> np.ndarray:
        """[A, E], of the agents region after region."""
        found = []
        for group in groups(domain, regions, episodes):
            simulator = simulator_of(domain, group, episodes, seed, draws)
            chance = streams(seed, Purpose.EVALUATION_ACTIONS, episodes, group[0])
            acting = actors.policy(sorted(agents_of(domain, group)), chance)
            found.append(local_returns(domain, environment(simulator, group), acting, group))
        return np.vstack(found)

    def replayed(sources: Sequence[Any]) -> np.ndarray:
        return returns(
            lambda simulator, group: ReplayedSources(simulator, [[t[k] for k in group] for t in sources])
        )

    true = replayed(recorded.sources)
    gaps = []
    for what, sources in (
        ("independent sources of the same frequencies", _marginal(domain, seed, recorded)),
        ("the most frequent sources alone", _most_frequent(domain, recorded)),
    ):
        gaps.append(difference(replayed(sources), true))
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
        chance = streams(seed, Purpose.SOURCES, len(regions))

        def predicted(simulator: LocalSimulator, group: list[int]) -> Environment:
            predictors = [actors.predictors[k] for k in group]
            return IALS(simulator, predictors, episodes, [chance[k] for k in group])

        yield _promise(returns(predicted), recorded.returns[agents_of(domain, regions)], actors.name)


def _promise(promised: np.ndarray, real: np.ndarray, whose: str) -> Finding:
    """Whether the return under the predictors is that on the global simulator, from returns [A, E]."""
    gap, spread = difference(promised, real), real.std(axis=1, ddof=1).mean()
    allowed = max(SPREADS * spread, SHARE * gap.typical)
    why = "an agent's standard deviation between episodes"
    if allowed > SPREADS * spread:
        why = f"{SHARE:.0%} of the return"
    told = (
        f"give {whose} a mean return of {promised.mean():.4g}, {gap} from that on the global simulator; "
        f"{allowed:.2g}, {why}, is allowed"
    )
    what, chance = "sources sampled from the run's predictors", SIGNIFICANT * gap.error
    if abs(gap.mean) > max(allowed, chance):
        return wrong(what, told)
    if chance > allowed:
        enough = int(np.ceil(real.shape[1] * (chance / allowed) ** 2))
        return note(what, f"{told}: give --episodes {enough} or more for a verdict")
    return good(what, told)


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


def local_returns(
    domain: Domain, environment: Environment, policy: JointPolicy, regions: Sequence[int]
) -> np.ndarray:
    """Undiscounted returns [A, E] of whole episodes in local simulators of some regions.

    policy: the joint policy of their agents, in ascending order. A: the agents, region after region.
    """
    places = np.argsort(agents_of(domain, regions))
    order = np.argsort(places)
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
