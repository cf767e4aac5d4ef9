"""Algorithm 2: the joint policy on the global simulator gives one dataset per region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.dataset import Acts, Dataset
from dials_mpi.algorithm.decisions import held
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.joint import BLOCK, JointPolicy
from dials_mpi.domains.base import Domain, GlobalSimulator, Rows, SimulatorFailure
from dials_mpi.domains.decisions import decision_steps

PolicyOfEpisodes = Callable[[GlobalSimulator, slice], JointPolicy]
"""Makes the joint policy for some of the episodes, which run side by side in a simulator of their own."""


class Step(NamedTuple):
    """One step of E episodes, as it is recorded, with the arrays of the simulator.

    inputs [R, E, D]: of the predictors, before the step. sources [R, E, M], actions [N, E] and rewards
    [N, E]: of the step itself.
    """

    inputs: Rows
    sources: Rows
    actions: np.ndarray
    rewards: np.ndarray


Record = Callable[[slice, int, Step], None]
"""Records a step of some of the episodes: which of them, and the step's number from 0."""

Ended = Callable[[GlobalSimulator, slice], None]
"""Called when some of the episodes have ended, with their simulator, before it is used again."""

AT_ONCE = 64
"""Most episodes side by side, whole blocks of joint.BLOCK: more take more memory, and less time hardly."""


class Scores(NamedTuple):
    """What E episodes of the whole system came to.

    returns: undiscounted, by agent, float64 [E, N]. statistics: the domain's own figures of each episode, by
    name, float64 [E].
    """

    returns: np.ndarray
    statistics: dict[str, np.ndarray]


class Trajectories(NamedTuple):
    """E episodes of the whole system: the dataset of each region, and the rest as in ``Scores``.

    acts: where they were asked for.
    """

    datasets: list[Dataset]
    returns: np.ndarray
    statistics: dict[str, np.ndarray]
    acts: Acts | None = None

    @classmethod
    def empty(cls, domain: Domain, with_acts: bool) -> Trajectories:
        """The record of no episode."""
        recorder = Recorder(domain, 0, with_acts=with_acts)
        return cls(recorder.datasets, np.empty((0, len(domain.agents))), {}, recorder.acts)


class Recorder:
    """A ``Record`` that fills the datasets of some regions, by their numbers; of all if None.

    with_acts: actions and rewards of all agents are recorded, too.
    """

    def __init__(
        self, domain: Domain, episodes: int, regions: Sequence[int] | None = None, with_acts: bool = False
    ) -> None:
        self.regions = range(len(domain.regions)) if regions is None else regions
        self.datasets = [Dataset.empty(domain.regions[k], episodes, domain.horizon) for k in self.regions]
        self.acts = Acts.empty(domain, episodes) if with_acts else None

    def __call__(self, part: slice, t: int, step: Step) -> None:
        """Record a step."""
        for k, dataset in zip(self.regions, self.datasets, strict=True):
            dataset.record(part, t, step.inputs[k], step.sources[k])
        if self.acts:
            self.acts.actions[part, t] = step.actions.T
            self.acts.rewards[part, t] = step.rewards.T


def parts(domain: Domain, episodes: int) -> list[slice]:
    """Episodes as they are played: those of one part side by side."""
    return _cut(episodes, _at_once(domain, episodes))


def blocks(domain: Domain, episodes: int) -> list[slice]:
    """Episodes as they are dealt out: results do not depend on which blocks are played beside each other."""
    return _cut(episodes, min(BLOCK, _at_once(domain, episodes)))


def shares(domain: Domain, episodes: int, ranks: int) -> list[slice]:
    """The episodes of each of so many global ranks, in whole blocks; a rank may have none."""
    starts = [block.start for block in blocks(domain, episodes)] + [episodes]
    bounds = [starts[(len(starts) - 1) * rank // ranks] for rank in range(ranks + 1)]
    return [slice(first, last) for first, last in pairwise(bounds)]


def chunks(domain: Domain, episodes: slice, size: int) -> list[slice]:
    """A global rank's episodes in the chunks in which it plays and hands them out: at most about ``size``
    each, in whole blocks; 0: as many as are played side by side."""
    count = episodes.stop - episodes.start
    block = min(BLOCK, _at_once(domain, count))
    whole = -(-size // block) * block if size else _at_once(domain, count)
    return [slice(episodes.start + part.start, episodes.start + part.stop) for part in _cut(count, whole)]


def play(
    domain: Domain,
    streams: Sequence[np.random.Generator],
    policy: PolicyOfEpisodes,
    failures: Failures | None = None,
    record: Record | None = None,
    ended: Ended | None = None,
) -> Scores:
    """Play len(streams) episodes from beginning to end, as many side by side as suits the domain.

    streams: of the simulator, one per episode. If a simulator fails, its episodes are played again, with
    the next numbers of their streams, or with other streams if these are ``Attempts``. record: called for
    every step, also for those that are repeated.
    """
    failures = failures or Failures()
    episodes = len(streams)
    scores = Scores(
        np.zeros((episodes, len(domain.agents))),
        {statistic.name: np.empty(episodes) for statistic in domain.statistics},
    )
    for part in parts(domain, episodes):
        while True:
            simulator = domain.global_simulator(streams[part])
            try:
                acting = held(policy(simulator, part), decision_steps(domain))
                _play(simulator, acting, scores, part, domain.horizon, failures.beat, record)
                if ended:
                    ended(simulator, part)
                failures.agree()
                break
            except SimulatorFailure as failure:
                failures.note(failure)
        failures.over()
    return scores


def collect(
    domain: Domain,
    streams: Sequence[np.random.Generator],
    policy: PolicyOfEpisodes,
    failures: Failures | None = None,
    with_acts: bool = False,
) -> Trajectories:
    """``play`` with the datasets of all regions, and with_acts the agents' actions and rewards."""
    recorder = Recorder(domain, len(streams), with_acts=with_acts)
    scores = play(domain, streams, policy, failures, recorder)
    return Trajectories(recorder.datasets, *scores, recorder.acts)


def _at_once(domain: Domain, episodes: int) -> int:
    """How many episodes are played side by side: whole blocks, or less than one."""
    if domain.side_by_side is None:
        return max(1, min(AT_ONCE, episodes))
    most = max(1, min(AT_ONCE, domain.side_by_side // len(domain.agents)))
    return most if most < BLOCK else most - most % BLOCK


def _cut(episodes: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, episodes)) for first in range(0, episodes, size)]


def _play(
    simulator: GlobalSimulator,
    policy: JointPolicy,
    scores: Scores,
    part: slice,
    horizon: int,
    beat: Callable[[], None],
    record: Record | None,
) -> None:
    """Play the simulator's episodes once, which are this part of all."""
    scores.returns[part] = 0
    state = simulator.reset()
    for t in range(horizon):
        inputs, actions = state.inputs, policy(state.observations)
        state, sources, rewards, _ = simulator.step(actions)
        if record:
            record(part, t, Step(inputs, sources, actions, rewards))
        scores.returns[part] += rewards.T
        beat()
    for name, values in simulator.statistics().items():
        scores.statistics[name][part] = values
