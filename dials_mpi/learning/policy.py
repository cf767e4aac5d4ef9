"""One agent's policy and value function: a network with one output per action and one for the value."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.learning.kernels.sampling import draw_actions
from dials_mpi.learning.network import FusedNetwork, Network, create
from dials_mpi.learning.tables import policy_sizes

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
    """An actor-critic of one agent (Table 5); all that it learns is in ``network.vector``."""

    def __init__(self, config: PolicyConfig, agent: Agent, vector: np.ndarray | None = None) -> None:
        """vector: its first P numbers are the network's parameters; by default they are zero."""
        self.config, self.agent = config, agent
        self.network = create(config, *policy_sizes(agent), vector, agent.description)
        network = self.network
        self._act = network.act if isinstance(network, FusedNetwork) else partial(act, network)

    def initial_state(self, batch: int) -> np.ndarray:
        """The recurrent state at the beginning of an episode: zeros [batch, H]."""
        return self.network.initial_state(batch)

    def act(self, observations: np.ndarray, state: np.ndarray, uniforms: np.ndarray) -> Decision:
        """Sample actions: observations [B, O], state [B, H], uniforms float32 [B] in [0, 1)."""
        return Decision._make(self._act(observations, state, uniforms))

    def most_probable(self, observations: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most probable actions int64 [B], and the new state: observations [B, O], state [B, H]."""
        outputs, state = self.network.advance(np.ascontiguousarray(observations, np.float32), state)
        return outputs[:, :-1].argmax(axis=1), state

    def value(self, observations: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The values [B] of observations [B, O] at state [B, H]."""
        return self.network.advance(np.ascontiguousarray(observations, np.float32), state)[0][:, -1]


def drawn(outputs: np.ndarray, state: np.ndarray, uniforms: np.ndarray) -> Decision:
    """The decision that follows a network's outputs [B, A + 1] and new state [B, H]."""
    actions, logs, values = draw_actions(np.ascontiguousarray(outputs), np.ascontiguousarray(uniforms))
    return Decision(actions, logs, values, state)


def act(network: Network, observations: np.ndarray, state: np.ndarray, uniforms: np.ndarray) -> Decision:
    """``Policy.act`` for any network."""
    return drawn(*network.advance(np.ascontiguousarray(observations, np.float32), state), uniforms)
