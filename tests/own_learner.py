"""A learner that is none of this package's: a linear policy, trained by REINFORCE on immediate rewards.

For a run it is own_learner:Linear. It has a momentum and a counter, which a resumed run needs.
"""

from __future__ import annotations

import numpy as np


class Linear:
    metrics = ("segments", "unused")

    def __init__(self, task, rng, rate: float = 0.05):
        self.task, self.rate = task, rate
        shape = (task.observation_size, task.actions)
        self.parameters = {
            "weights": rng.normal(0, 0.01, shape).astype(np.float32),
            "bias": np.zeros(1, "f4"),
        }
        self.state = {"momentum": np.zeros(shape), "segments": np.zeros((), np.int64)}

    def shares(self, observations):
        """Probabilities [B, A]; einsum, since a row must not depend on the others."""
        logits = np.einsum("bo,oa->ba", observations, self.parameters["weights"]).astype(float)
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)

    def act(self, observations, state, uniforms):
        below = uniforms[:, None] >= np.cumsum(self.shares(observations), axis=1)
        return np.minimum(below.sum(axis=1), self.task.actions - 1), (state or 0) + 1

    def learn(self, environment, steps, rng):
        observations, envs = environment.reset(), self.task.environments
        for _ in range(steps // envs):
            actions, _ = self.act(observations, None, rng.random(envs, dtype=np.float32))
            step = environment.step(actions)
            surprise = (np.eye(self.task.actions)[actions] - self.shares(observations)) * step.rewards[
                :, None
            ]
            self.state["momentum"] *= 0.9
            self.state["momentum"] += np.einsum("bo,ba->oa", observations, surprise) / envs
            self.parameters["weights"] += (self.rate * self.state["momentum"]).astype(np.float32)
            observations = step.observations
        self.state["segments"] += 1
        return {"segments": int(self.state["segments"])}
