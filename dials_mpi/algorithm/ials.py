"""Algorithm 3: the influence-augmented local simulator, the environment that a policy trains in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dials_mpi.domains.base import GlobalSimulator, LocalSimulator, Rows
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.kernels.inputs import scaled
from dials_mpi.learning.side_by_side import Together


class Outcome(NamedTuple):
    """The result of a step, or of a decision of several: rewards [N, E], done bool [E].

    observations [N, E, O]: those after the step; where done, the last ones of the episode.
    """

    observations: Rows
    rewards: np.ndarray
    done: np.ndarray


class Environment(Protocol):
    """E environments side by side, in which N agents are trained."""

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """Restart the episodes in the mask ``where`` [E], default all; the observations [N, E, O] of all.

        elapsed: int [E], the steps that a restarted episode has behind it, default 0.
        """
        ...

    def step(self, actions: np.ndarray) -> Outcome:
        """Advance by one step; actions int [N, E]."""
        ...


class IALS:
    """Local simulators whose influence sources are sampled from influence predictors.

    predictors, streams (for sampling the sources): one per region of the simulator. together: computes all
    predictors at a time, if that is faster.
    sources: those of the last step, int [R, E, M].
    """

    def __init__(
        self,
        simulator: LocalSimulator,
        predictors: Sequence[Predictor],
        environments: int,
        streams: Sequence[np.random.Generator],
        together: Together | None = None,
    ) -> None:
        self.simulator, self.predictors, self.streams = simulator, predictors, streams
        self.together = together
        self.environments = environments
        self.states = [predictor.network.initial_state(environments) for predictor in predictors]

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """As ``Environment.reset``; the predictors' states [B, H] of the restarted episodes become zero.

        The state summarises the action-local-state history (ALSH).
        """
        state = self.simulator.reset(where, elapsed)
        for history in self.states:
            history[slice(None) if where is None else where] = 0
        self.inputs = state.inputs
        return state.observations

    def step(self, actions: np.ndarray) -> Outcome:
        """Sample the influence sources given the history, then do the local transition (Equation 1)."""
        self.sources = self._sample_sources()
        state, rewards, done = self.simulator.step(actions, self.sources)
        self.inputs = state.inputs
        return Outcome(state.observations, rewards, done)

    def _sample_sources(self) -> list[np.ndarray]:
        sizes = [(self.environments, len(predictor.heads.classes)) for predictor in self.predictors]
        pairs = zip(self.streams, sizes, strict=True)
        uniforms = [stream.random(size, dtype=np.float32) for stream, size in pairs]
        if self.together:
            x = [scaled(np.ascontiguousarray(inputs)) for inputs in self.inputs]
            outputs, states = self.together.advance(x, self.states)
            self.states = list(states)
            return [p.heads.draw(*own) for p, *own in zip(self.predictors, outputs, uniforms, strict=True)]
        sources = []
        for r, predictor in enumerate(self.predictors):
            drawn, self.states[r] = predictor.sample(self.inputs[r], self.states[r], uniforms[r])
            sources.append(drawn)
        return sources


class GlobalEnvironment:
    """The global simulator as the training environment of all agents: the paper's baseline GS."""

    def __init__(self, simulator: GlobalSimulator) -> None:
        self.simulator = simulator

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> Rows:
        """As ``Environment.reset``."""
        return self.simulator.reset(where, elapsed).observations

    def step(self, actions: np.ndarray) -> Outcome:
        """One joint step of the whole system."""
        state, _, rewards, done = self.simulator.step(actions)
        return Outcome(state.observations, rewards, done)
