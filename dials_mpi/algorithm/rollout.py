"""Agents that act side by side, and remember what they learn from."""

from __future__ import annotations

import numpy as np

from dials_mpi.algorithm.decisions import decide
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import Environment
from dials_mpi.algorithm.returns import EpisodeReturns
from dials_mpi.domains.base import Domain, Rows, SimulatorFailure
from dials_mpi.domains.decisions import decision_steps, staggered
from dials_mpi.learning.ppo import PPO
from dials_mpi.learning.side_by_side import Together


class Rollout:
    """Agents that act in E environments side by side, episode after episode."""

    def __init__(
        self,
        environment: Environment,
        agents: list[PPO],
        envs: int,
        domain: Domain,
        failures: Failures,
        together: Together | None = None,
    ) -> None:
        """together: computes the agents' networks at a time, if that is faster."""
        self.together = together
        self.environment, self.agents, self.failures = environment, agents, failures
        self.every = decision_steps(domain)
        self.elapsed = staggered(domain, envs)
        self.returns = EpisodeReturns(len(agents), self.elapsed)
        self.observations: Rows | None = None  # until the first reset

    def fill(self, decisions: int) -> Rows:
        """Act so many times; the observations [N, E, O] after the last decision.

        If the simulator fails, the agents drop these decisions, and all episodes start again.
        """
        while True:
            try:
                observations = self.observations
                if observations is None:
                    observations = self.environment.reset(elapsed=self.elapsed)
                for _ in range(decisions):
                    observations = self._decide(observations)
            except SimulatorFailure as failure:
                self.failures.note(failure)
                self.observations = None
                self.returns.drop(self.elapsed)
                for agent in self.agents:
                    agent.forget()
            else:
                self.observations = observations
                self.failures.over()
                self.failures.beat()
                return observations

    def _decide(self, observations: Rows) -> Rows:
        agents = self.agents
        actions = np.stack(self._act(observations))
        outcome = decide(self.environment, actions, self.every)
        for n, agent in enumerate(agents):
            agent.observe(outcome.rewards[n], outcome.done, outcome.observations[n])
        self.returns.add(outcome)
        return self.environment.reset(where=outcome.done) if outcome.done.any() else outcome.observations

    def _act(self, observations: Rows) -> list[np.ndarray]:
        """The actions of each agent, int64 [E]."""
        if not self.together:
            return [agent.act(observations[n]) for n, agent in enumerate(self.agents)]
        x = [np.asarray(own, np.float32) for own in observations]
        advanced = zip(*self.together.advance(x, [agent.state for agent in self.agents]), strict=True)
        return [
            agent.act(own, pair) for agent, own, pair in zip(self.agents, observations, advanced, strict=True)
        ]
