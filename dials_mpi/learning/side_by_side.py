"""Equal networks of several agents or regions, computed at a time where that is faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dials_mpi.learning.builtin import BuiltinNetwork
from dials_mpi.learning.ppo import descend

if TYPE_CHECKING:
    from dials_mpi.learning.adam import Adam
    from dials_mpi.learning.network import Network
    from dials_mpi.learning.ppo import PPO


class Together(Protocol):
    """N equal networks computed at a time, as by their own methods of these names.

    Arguments and results have a first axis of length N, or are sequences of N arrays.
    """

    def advance(self, x: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [N, B, K] and new states [N, B, H]."""
        ...

    def forward(
        self, x: Sequence[np.ndarray], states: Sequence[np.ndarray], keep: Sequence[np.ndarray] | None
    ) -> np.ndarray:
        """Outputs [N, S, B, K]."""
        ...

    def backward(self, grad_outputs: Sequence[np.ndarray]) -> None:
        """Fill the gradient of each network."""
        ...


def together(
    networks: Sequence[Network],
    optimisers: Sequence[Adam],
    rows: int,
    batches: Sequence[tuple[int, int]] = (),
) -> tuple[Together | None, Together | None]:
    """What computes networks at a time as they act, and as they learn; None: one after another.

    It moves parameters and gradients, also those of the optimisers. rows: B of ``advance``; batches: S and B
    of each ``forward`` that they learn from.
    """
    if not networks or any(isinstance(network, BuiltinNetwork) for network in networks):
        return None, None
    from dials_mpi.learning.torch_stack import stack  # loads torch

    return stack(networks, optimisers, rows, batches)


def update(
    agents: Sequence[PPO], networks: Together, observations: Mapping[int, np.ndarray], progress: float
) -> None:
    """``PPO.update`` of agents whose networks are computed at a time."""
    batches = [
        agent.minibatches(after, progress) for agent, after in zip(agents, observations.values(), strict=True)
    ]
    for found in zip(*batches, strict=True):
        samples, remaining = [batch for batch, _ in found], found[0][1]
        keep = [batch.keep for batch in samples if batch.keep is not None]
        x, states = [batch.observations for batch in samples], [batch.state for batch in samples]
        outputs = networks.forward(x, states, keep or None)
        pairs = zip(agents, outputs, samples, strict=True)
        networks.backward([agent.loss(own, batch, remaining) for agent, own, batch in pairs])
        for agent in agents:
            descend(agent.optimiser, agent.config, agent.config.learning_rate * remaining)
