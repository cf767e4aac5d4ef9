"""Algorithm 3: the influence-augmented local simulator, the environment that a policy trains in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dials_mpi.domains.base import GlobalSimulator, LocalSimulator, Rows
from dials_mpi.learning.influence import Predictor


class Outcome(NamedTuple):
    """What a step brought: observations [N, E, O] (final ones where done), rewards [N, E], done [E]."""

    observations: Rows
    rewards: np.ndarray
    done: np.ndarray


class Environment(Protocol):
    """What N agents train in, E environments side by side."""

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """Restart the episodes in the mask ``where`` [E]; observations [N, E, O] of all."""
        ...

    def step(self, actions: np.ndarray) -> Outcome:
        """Advance by one step; actions int [N, E]."""
        ...


class IALS:
    """Local simulators driven by influence predictors instead of the rest of the system.

    One predictor and one random stream (for sampling the sources) per region of the simulator.
    sources: those of the last step, int [R, E, M].
    """

    def __init__(
        self,
        simulator: LocalSimulator,
        predictors: Sequence[Predictor],
        environments: int,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.simulator, self.predictors, self.streams = simulator, predictors, streams
        self.environments = environments
        self.states = [predictor.network.initial_state(environments) for predictor in predictors]

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """Restart episodes (mask [E], default all) and forget their action-local-state history (ALSH)."""
        state = self.simulator.reset(where, elapsed)
        for history in self.states:
            history[slice(None) if where is None else where] = 0
        self.inputs = state.inputs
        return state.observations

    def step(self, actions: np.ndarray) -> Outcome:
        """Sample the influence sources given the history, then the local transition (Equation 1)."""
        self.sources = self._sample_sources()
        state, rewards, done = self.simulator.step(actions, self.sources)
        self.inputs = state.inputs
        return Outcome(state.observations, rewards, done)

    def _sample_sources(self) -> list[np.ndarray]:
        sources = []
        for r, (predictor, stream) in enumerate(zip(self.predictors, self.streams, strict=True)):
            uniforms = stream.random((self.environments, len(predictor.heads.classes)), dtype=np.float32)
            drawn, self.states[r] = predictor.sample(self.inputs[r], self.states[r], uniforms)
            sources.append(drawn)
        return sources


class GlobalEnvironment:
    """The global simulator as the environment of all agents together: the paper's baseline GS."""

    def __init__(self, simulator: GlobalSimulator) -> None:
        self.simulator = simulator

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """Restart episodes (mask [E], default all)."""
        return self.simulator.reset(where, elapsed).observations

    def step(self, actions: np.ndarray) -> Outcome:
        """One joint step of the whole system."""
        state, _, rewards, done = self.simulator.step(actions)
        return Outcome(state.observations, rewards, done)
