"""One agent's policy and value function: a network with one output per action and one for the value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dials_mpi.learning.network import Network

if TYPE_CHECKING:
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Region


class Decision(NamedTuple):
    """Actions int64 [B], their log-probabilities [B], values [B] and the new recurrent state [B, H]."""

    actions: Tensor
    log_probabilities: Tensor
    values: Tensor
    state: Tensor


class Policy:
    """An actor-critic of one region (Table 5); its whole learnt content is ``network.vector``."""

    def __init__(self, config: PolicyConfig, region: Region, vector: Tensor | None = None) -> None:
        self.network = Network(
            config.architecture, region.observation_size, config.hidden, region.actions + 1, vector
        )

    def act(self, observations: np.ndarray, state: Tensor, uniforms: np.ndarray) -> Decision:
        """Sample actions: observations [B, O], state [B, H], uniforms float32 [B] in [0, 1)."""
        outputs, state = self.network.advance(as_float(observations), state)
        log_probabilities = outputs[:, :-1].log_softmax(-1)
        cumulative = log_probabilities.exp().cumsum(-1)[:, :-1]
        actions = (torch.from_numpy(uniforms).unsqueeze(1) >= cumulative).sum(-1)
        chosen = log_probabilities.gather(1, actions.unsqueeze(1)).squeeze(1)
        return Decision(actions, chosen, outputs[:, -1], state)

    def value(self, observations: np.ndarray, state: Tensor) -> Tensor:
        """The value [B] of observations [B, O] reached with state [B, H]."""
        return self.network.advance(as_float(observations), state)[0][:, -1]


def as_float(array: np.ndarray) -> Tensor:
    """A float32 tensor of an array of bits (uint8) or float32."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.float32)
