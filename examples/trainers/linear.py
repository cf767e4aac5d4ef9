"""A learner of one's own in plain numpy: a linear policy, trained by REINFORCE with a moving baseline.

docs/trainers.md has the command that trains with it, and explains the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dials_mpi.learning.learner import Task, TrainingEnvironment


class Linear:
    """Actions are drawn from softmax(W x); W moves along the gradient of the discounted rewards to come."""

    metrics = ("reward", "entropy")

    def __init__(
        self, task: Task, rng: np.random.Generator, rate: float = 0.01, discount: float = 0.9
    ) -> None:
        """rate: step size of the gradient ascent; discount: per decision."""
        self.task, self.rate, self.discount = task, rate, discount
        self.parameters = {"weights": np.zeros((task.observation_size, task.actions), np.float32)}
        self.state = {"baseline": np.zeros(())}

    def act(self, observations: np.ndarray, state: Any, uniforms: np.ndarray) -> tuple[np.ndarray, Any]:
        """Draw an action for each row; there is no state."""
        ends = np.cumsum(self._shares(observations), axis=1)
        below = uniforms[:, None] >= ends
        return np.minimum(below.sum(axis=1), self.task.actions - 1), None

    def learn(
        self, environment: TrainingEnvironment, steps: int, rng: np.random.Generator
    ) -> Mapping[str, float]:
        """An update after every step; an eligibility trace credits earlier actions with its rewards."""
        envs, observations = self.task.environments, environment.reset()
        trace = np.zeros((envs, *self.parameters["weights"].shape))
        rewards, entropies = [], []
        for _ in range(steps // envs):
            actions, _ = self.act(observations, None, rng.random(envs))
            step, shares = environment.step(actions), self._shares(observations)
            surprise = np.eye(self.task.actions)[actions] - shares
            trace = self.discount * trace + observations[:, :, None] * surprise[:, None, :]
            advantage = step.rewards - self.state["baseline"]
            gradient = np.einsum("e,eoa->oa", advantage, trace) / envs
            self.parameters["weights"] += (self.rate * gradient).astype(np.float32)
            self.state["baseline"] += 0.01 * (step.rewards.mean() - self.state["baseline"])
            trace[step.done] = 0
            observations = step.observations
            rewards.append(step.rewards.mean())
            entropies.append(-(shares * np.log(shares)).sum(axis=1).mean())
        return {"reward": float(np.mean(rewards)), "entropy": float(np.mean(entropies))}

    def _shares(self, observations: np.ndarray) -> np.ndarray:
        """The actions' probabilities [B, A]; einsum computes each row by itself, whatever the others are."""
        logits = np.einsum("bo,oa->ba", observations, self.parameters["weights"]).astype(np.float64)
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)
