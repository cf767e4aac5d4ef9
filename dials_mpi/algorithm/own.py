"""One agent whose learner is a class of the user's own: its arrays as flat rows, and what it trains in."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.algorithm.decisions import decide
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import Environment
from dials_mpi.algorithm.returns import EpisodeReturns
from dials_mpi.config import Config
from dials_mpi.domains.base import Agent, Domain, Rows, SimulatorFailure
from dials_mpi.domains.decisions import decision_steps, staggered
from dials_mpi.learning import learner
from dials_mpi.learning.learner import Learner, Step


class Acted(NamedTuple):
    """Actions int64 [B], and the policy's state for the next step."""

    actions: np.ndarray
    state: Any


class OwnAgent:
    """An agent's learner: it trains in local simulators, or acts in the global one with given parameters."""

    def __init__(
        self,
        config: Config,
        agent: Agent,
        parameters: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """parameters: float32, the first P are the learner's; by default it draws them itself, from rng.

        BadInput: as of ``learner.create``.
        """
        self.agent, self.metrics = agent, learner.metrics(learner.find(config.learner))
        self.learner: Learner = learner.create(config, agent, rng)
        if parameters is not None:
            self.restore("parameters", parameters)

    @property
    def parameters(self) -> np.ndarray:
        """A copy of the learner's parameters, one float32 vector [P]."""
        return _flat(self.learner.parameters, np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of ``parameters`` and of the learner's state, uint8, all its bytes."""
        return {"parameters": self.parameters, "learner": _flat(self.learner.state, np.uint8)}

    def restore(self, part: str, row: np.ndarray) -> None:
        """Set a part of ``state``; row: at least as long."""
        member = "parameters" if part == "parameters" else "state"
        setattr(self.learner, member, _shaped(row, getattr(self.learner, member)))

    def initial_state(self, batch: int) -> None:
        """None, whatever the number of episodes."""
        return None

    def act(self, observations: np.ndarray, state: Any, uniforms: np.ndarray) -> Acted:
        """See ``Learner.act``. ValueError: the actions are not the agent's."""
        seen = np.ascontiguousarray(observations, np.float32)
        actions, state = learner.acted(self.learner, seen, state, uniforms)
        return Acted(learner.checked(actions, len(seen), self.agent.actions), state)

    def learn(self, environment: AgentEnvironment, rng: np.random.Generator) -> np.ndarray:
        """Train for a segment; the mean return of its episodes and the learner's metrics, float64 [1 + M].

        RuntimeError: the learner has left out some of the segment's steps, or returns a metric that it does
        not name.
        """
        found = self.learner.learn(environment, environment.left, rng) or {}
        kind, unknown = type(self.learner).__qualname__, [name for name in found if name not in self.metrics]
        if unknown:
            raise RuntimeError(
                f"learn of {kind} returned {unknown[0]!r}, which is not in its metrics: {self.metrics}"
            )
        if environment.left:
            raise RuntimeError(f"learn of {kind} has left out {environment.left} steps of the segment")
        values = [float(found.get(name, np.nan)) for name in self.metrics]
        return np.array([*environment.returns.means(), *values])


class AgentEnvironment:
    """An agent's E environments for one segment: what ``Learner.learn`` is given.

    left: the steps that remain. returns: those of the training episodes.
    """

    def __init__(
        self,
        environment: Environment,
        domain: Domain,
        agent: Agent,
        envs: int,
        steps: int,
        failures: Failures,
    ) -> None:
        """environment: of this agent alone; envs: E; steps: of the segment, a multiple of E."""
        self.environment, self.agent, self.envs, self.left = environment, agent, envs, steps
        self.every, self.elapsed, self.failures = decision_steps(domain), staggered(domain, envs), failures
        self.returns = EpisodeReturns(1, self.elapsed)
        self.observations: np.ndarray | None = None  # until the first reset

    def reset(self) -> np.ndarray:
        """See ``TrainingEnvironment``."""
        self.returns.drop(self.elapsed)
        while True:
            try:
                self.observations = _numbers(self.environment.reset(elapsed=self.elapsed))
            except SimulatorFailure as failure:
                self.failures.note(failure)
            else:
                return self.observations

    def step(self, actions: np.ndarray) -> Step:
        """See ``TrainingEnvironment``. If the simulator fails, all episodes end without a reward."""
        if self.observations is None:
            raise RuntimeError("no episode is running: call reset first")
        if not self.left:
            raise RuntimeError(
                "all steps of this segment are taken: learn must take no more than it is given"
            )
        chosen = learner.checked(actions, self.envs, self.agent.actions)
        self.left -= self.envs
        self.failures.beat()
        try:
            outcome = decide(self.environment, chosen[None], self.every)
            self.returns.add(outcome)
            final, rewards, done = _numbers(outcome.observations), outcome.rewards[0], np.array(outcome.done)
            following = _numbers(self.environment.reset(where=done)) if done.any() else final
        except SimulatorFailure as failure:
            self.failures.note(failure)
            last = self.observations
            return Step(self.reset(), np.zeros(self.envs, np.float32), np.ones(self.envs, bool), last)
        self.failures.over()
        self.observations = following
        return Step(following, np.array(rewards, np.float32), done, final)


def _numbers(observations: Rows) -> np.ndarray:
    """A copy of the only agent's observations, float32 [E, O], which the learner may keep."""
    return np.array(observations[0], np.float32)


def _flat(arrays: Mapping[str, np.ndarray], dtype: type) -> np.ndarray:
    """The arrays one after another: their numbers, or with uint8 their bytes."""
    parts: list[np.ndarray] = [
        np.ascontiguousarray(array).reshape(-1).view(dtype) for array in arrays.values()
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _shaped(row: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the arrays in a row of ``_flat``, with names, shapes and types as in ``like``."""
    found, start = {}, 0
    for name, array in like.items():
        stop = start + prod(array.shape) * array.itemsize // row.itemsize
        found[name] = row[start:stop].copy().view(array.dtype).reshape(array.shape)
        start = stop
    return found
