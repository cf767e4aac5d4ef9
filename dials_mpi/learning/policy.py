"""One agent's policy and value function: a network with one output per action and one for the value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.network import Network, advance

if TYPE_CHECKING:
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Agent


class Decision(NamedTuple):
    """Actions int64 [B], their log-probabilities [B], values [B] and the new recurrent state [B, H]."""

    actions: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    state: np.ndarray


class Policy:
    """An actor-critic of one agent (Table 5); its whole learnt content is ``network.vector``."""

    def __init__(self, config: PolicyConfig, agent: Agent, vector: np.ndarray | None = None) -> None:
        self.network = Network(
            config.architecture, agent.observation_size, config.hidden, agent.actions + 1, vector
        )

    def act(self, observations: np.ndarray, state: np.ndarray, uniforms: np.ndarray) -> Decision:
        """Sample actions: observations [B, O], state [B, H], uniforms float32 [B] in [0, 1)."""
        observations, uniforms = np.ascontiguousarray(observations), np.ascontiguousarray(uniforms)
        return Decision(*_act(self.network.sizes, self.network.vector, observations, state, uniforms))

    def value(self, observations: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The value [B] of observations [B, O] reached with state [B, H]."""
        return self.network.advance(np.ascontiguousarray(observations, np.float32), state)[0][:, -1]


@compiled
def _act(sizes, vector, observations, state, uniforms):
    outputs, state = advance(sizes, vector, observations.astype(np.float32), state)
    batch, count = outputs.shape[0], outputs.shape[1] - 1
    actions = np.empty(batch, np.int64)
    log_probabilities = np.empty(batch, np.float32)
    for b in range(batch):
        logits = outputs[b, :count]
        total = log_sum_exp(logits)
        actions[b] = draw(logits, total, uniforms[b])
        log_probabilities[b] = logits[actions[b]] - total
    return actions, log_probabilities, outputs[:, count].copy(), state


@compiled
def draw(logits, total, uniform):
    """A class, by a uniform number in [0, 1); total: the ``log_sum_exp`` of the logits."""
    drawn, cumulative = 0, np.exp(logits[0] - total)
    while drawn < logits.size - 1 and uniform >= cumulative:
        drawn += 1
        cumulative += np.exp(logits[drawn] - total)
    return drawn


@compiled
def log_sum_exp(logits):
    """The logarithm of the sum of e^logits [A], in double precision."""
    largest = np.float64(logits.max())
    total = 0.0
    for logit in logits:
        total += np.exp(logit - largest)
    return largest + np.log(total)
