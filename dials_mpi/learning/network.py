"""What policies and influence predictors need of a network, and which class implements an architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from dials_mpi.learning.builtin import BuiltinNetwork
from dials_mpi.learning.tables import NetworkConfig, Table

if TYPE_CHECKING:
    from dials_mpi.domains.base import Description


class Network(Protocol):
    """A network with I inputs and K outputs whose P parameters are one contiguous float32 vector.

    vector [P]: the parameters; the optimiser and checkpoints change it in place. table: their names and
    shapes, in this order. gradient [P]: None, until the caller sets it or ``require_gradient`` allocates it.
    state_size: the length H of the recurrent state, 0 for a network without one.

    A recurrent state is a float32 array [B, H], B sequences. It is zero at the beginning of an episode, and
    callers set rows of it to zero in place.
    """

    vector: np.ndarray
    table: Table
    gradient: np.ndarray | None
    state_size: int

    def initialise(self, stream: np.random.Generator) -> None:
        """Draw all parameters anew from this random stream and nothing else."""
        ...

    def require_gradient(self) -> np.ndarray:
        """Allocate the gradient unless it is there; return it: one vector [P] that ``backward`` fills."""
        ...

    def initial_state(self, batch: int) -> np.ndarray:
        """The state at the beginning of an episode: zeros [batch, H]."""
        ...

    def advance(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step: x float32 [B, I], state [B, H] -> outputs float32 [B, K], a new state [B, H]."""
        ...

    def forward(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Whole sequences: x float32 [S, B, I], state [B, H] before step 0 -> outputs float32 [S, B, K].

        keep [S, B]: 0 where an episode begins at that step, so that the state before it is zero, else 1;
        None: no episode begins within a sequence. ``backward`` must follow, and no other network's
        ``forward`` may come between them.
        """
        ...

    def backward(self, grad_outputs: np.ndarray) -> None:
        """Overwrite the gradient with that of a loss, given the loss's gradient in the outputs [S, B, K].

        RuntimeError: no ``forward`` came before.
        """
        ...

    def predict(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The outputs of ``forward`` where no ``backward`` follows."""
        ...

    def release(self) -> None:
        """Free the memory that is kept from one forward pass to the next."""
        ...


@runtime_checkable
class FusedNetwork(Protocol):
    """Optional for a network: a step and the draw that follows it in one call, which is faster.

    The results must equal those of ``advance`` followed by ``kernels.sampling``. act: as ``Policy.act``.
    sample: as ``Predictor.sample``; counts, starts [M]: each source's number of classes and first output.
    """

    def act(
        self, observations: np.ndarray, state: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Actions int64 [B], their log-probabilities [B], values [B], a new state [B, H]."""
        ...

    def sample(
        self,
        inputs: np.ndarray,
        state: np.ndarray,
        uniforms: np.ndarray,
        counts: np.ndarray,
        starts: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sources int64 [B, M], a new state [B, H]."""
        ...


NETWORKS: dict[str, Callable[[NetworkConfig, int, int, np.ndarray | None], Network]] = {
    "gru": BuiltinNetwork,
    "fnn": BuiltinNetwork,
}
"""What builds a built-in network of each architecture; ``tables.TABLES`` has its parameters."""


def create(
    config: NetworkConfig,
    inputs: int,
    outputs: int,
    vector: np.ndarray | None = None,
    description: Description = (),
) -> Network:
    """The configured network. Its parameters are the first P numbers of the vector; by default all zero.

    description: of the inputs, which only a network in PyTorch sees. BadInput: as of ``tables.tables``.
    """
    if config.architecture in NETWORKS:
        return NETWORKS[config.architecture](config, inputs, outputs, vector)
    from dials_mpi.learning.torch_network import TorchNetwork  # loads torch

    return TorchNetwork(config, inputs, outputs, vector, description)
