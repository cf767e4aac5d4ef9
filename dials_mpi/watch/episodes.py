"""One episode, step by step: of the whole system, or of one region under its influence predictor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from dials_mpi.algorithm.ials import IALS
from dials_mpi.algorithm.joint import RandomPolicy, TrainedPolicies
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.domains.base import GlobalSimulator, LocalSimulator
from dials_mpi.results.choice import Choice


class Moment(NamedTuple):
    """A state of an episode, after so many steps.

    rewards: float [regions shown], of the step that led there, 0 at the beginning. sources: int [M], those
    that were sampled for it, in a local simulator.
    """

    step: int
    rewards: np.ndarray
    sources: np.ndarray | None = None


class Episode(Protocol):
    """An episode that can be played once."""

    simulator: GlobalSimulator | LocalSimulator

    def play(self, steps: int) -> Iterator[Moment]:
        """The state at the beginning, and after each of so many steps."""
        ...


class GlobalEpisode:
    """The joint policy on the global simulator."""

    def __init__(self, choice: Choice, seed: int) -> None:
        self._agents = len(choice.domain.agents)
        self.simulator = choice.domain.global_simulator([_stream(seed, Purpose.EVALUATION)])
        self._policy = choice.joint_policy(self.simulator, [_stream(seed, Purpose.EVALUATION_ACTIONS)])

    def play(self, steps: int) -> Iterator[Moment]:
        """As Episode says."""
        state = self.simulator.reset()
        yield Moment(0, np.zeros(self._agents))
        for step in range(1, steps + 1):
            state, _, rewards, _ = self.simulator.step(self._policy(state.observations))
            yield Moment(step, np.asarray(rewards)[:, 0])


class LocalEpisode:
    """A region's agents on its local simulator, the rest of the system being its influence predictor."""

    def __init__(self, choice: Choice, region: int, seed: int) -> None:
        self._agents = choice.domain.regions[region].agents
        local = choice.domain.local_simulator([region], 1, [_stream(seed, Purpose.SIMULATOR, region)])
        sources = [_stream(seed, Purpose.SOURCES, region)]
        self.simulator = local
        self._environment = IALS(local, [choice.predictors[region]], 1, sources)
        actions = [_stream(seed, Purpose.ACTIONS, region)]
        if choice.policy == "trained":
            self._policy = TrainedPolicies([choice.policies[i] for i in self._agents], actions)
        else:
            self._policy = RandomPolicy([choice.domain.agents[i] for i in self._agents], actions)

    def play(self, steps: int) -> Iterator[Moment]:
        """As Episode says."""
        observations = self._environment.reset()
        yield Moment(0, np.zeros(len(self._agents)))
        for step in range(1, steps + 1):
            observations, rewards, _ = self._environment.step(self._policy(observations))
            yield Moment(step, np.asarray(rewards)[:, 0], np.asarray(self._environment.sources[0][0]))


def _stream(seed: int, purpose: Purpose, region: int = 0) -> np.random.Generator:
    return stream(seed, purpose, region, OTHER_EPISODES)
