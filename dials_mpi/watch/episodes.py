"""One episode, step by step: of the global simulator, or of one region with its influence predictor.

Steps are those of the simulator, also where a decision lasts several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from dials_mpi.algorithm.decisions import held
from dials_mpi.algorithm.ials import IALS
from dials_mpi.algorithm.joint import JointPolicy, RandomPolicy, TrainedPolicies
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.domains import require_local
from dials_mpi.domains.base import GlobalSimulator, LocalSimulator, Rows
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.results.run import TRAINED, Run


class Moment(NamedTuple):
    """The state of an episode after ``step`` steps.

    rewards: float [agents shown], of this step, 0 at the beginning. sources: int [M], sampled for this step;
    None in the global simulator and at the beginning.
    """

    step: int
    rewards: np.ndarray
    sources: np.ndarray | None = None


class Episode(Protocol):
    """An episode that can be played once."""

    @property
    def simulator(self) -> GlobalSimulator | LocalSimulator:
        """The simulator, whose state is that of the newest moment."""
        ...

    def play(self, steps: int) -> Iterator[Moment]:
        """The moment at the beginning, and after each of the steps."""
        ...


class GlobalEpisode:
    """The joint policy on the global simulator."""

    def __init__(self, run: Run, policy: str, seed: int) -> None:
        """policy: one of ``run.joint_policies``. BadInput: its networks cannot be read."""
        self._agents = len(run.domain.agents)
        self.simulator = run.domain.global_simulator([_rng(seed, Purpose.EVALUATION)])
        acting = run.joint_policy(policy, self.simulator, [_rng(seed, Purpose.EVALUATION_ACTIONS)])
        self._policy = held(acting, decision_steps(run.domain))

    def play(self, steps: int) -> Iterator[Moment]:
        """See Episode."""
        state = self.simulator.reset()
        yield Moment(0, np.zeros(self._agents))
        for step in range(1, steps + 1):
            state, _, rewards, _ = self.simulator.step(self._policy(state.observations))
            yield Moment(step, np.asarray(rewards)[:, 0])


class LocalEpisode:
    """A region's agents on its local simulator, whose sources its influence predictor samples."""

    def __init__(self, run: Run, policy: str, region: int, seed: int) -> None:
        """policy: trained or random. BadInput: the networks cannot be read, or see ``require_local``."""
        require_local(run.domain)
        self._agents = run.domain.regions[region].agents
        self.simulator = run.domain.local_simulator([region], 1, [_rng(seed, Purpose.SIMULATOR, region)])
        sources = [_rng(seed, Purpose.SOURCES, region)]
        self._environment = IALS(self.simulator, [run.predictors[region]], 1, sources)
        actions = [_rng(seed, Purpose.ACTIONS, region)]
        acting: JointPolicy
        if policy == TRAINED:
            acting = TrainedPolicies([run.actors[i] for i in self._agents], actions)
        else:
            acting = RandomPolicy([run.domain.agents[i] for i in self._agents], actions)
        self._policy = held(acting, decision_steps(run.domain))

    def play(self, steps: int) -> Iterator[Moment]:
        """See Episode."""
        observations: Rows = self._environment.reset()
        yield Moment(0, np.zeros(len(self._agents)))
        for step in range(1, steps + 1):
            observations, rewards, _ = self._environment.step(self._policy(observations))
            yield Moment(step, np.asarray(rewards)[:, 0], np.asarray(self._environment.sources[0][0]))


def _rng(seed: int, purpose: Purpose, region: int = 0) -> np.random.Generator:
    return stream(seed, purpose, region, OTHER_EPISODES)
