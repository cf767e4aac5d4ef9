"""Networks in PyTorch behind the protocol ``network.Network``.

A module's parameters are views of the flat vector, so that the optimiser, checkpoints and files are those of
the built-in networks. Only what builds such a network imports this file, and with it torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.learning import tables
from dials_mpi.learning.devices import chosen
from dials_mpi.learning.tables import NetworkConfig

# First: it says what to do where torch is missing.
from dials_mpi.learning.torch_modules import CPU, Memory, build, contents, device  # isort: skip
from dials_mpi.learning.torch_twins import TWINS  # isort: skip
import torch

if TYPE_CHECKING:
    from dials_mpi.domains.base import Description


class TorchNetwork:
    """A module's parameters on a flat float32 vector; see ``network.Network``.

    module: the user's, in training mode; memory: how its state lies in a row. Its buffers are what its
    constructor makes of them. device: where it computes. kind: equal for networks whose modules are built in
    the same way. inputs: I; outputs: K.
    """

    def __init__(
        self,
        config: NetworkConfig,
        inputs: int,
        outputs: int,
        vector: np.ndarray | None = None,
        description: Description = (),
    ) -> None:
        """vector: its first P numbers are the parameters; by default they are zero.

        BadInput: the module does not fulfil the contract.
        """
        self.kind = config, inputs, outputs, description
        self.inputs, self.outputs = inputs, outputs
        self.table, self.memory = contents(*self.kind)
        self.state_size = self.memory.size
        length = tables.size(self.table)
        self.vector = np.zeros(length, np.float32) if vector is None else vector[:length]
        self.gradient: np.ndarray | None = None
        self.module = build(*self.kind)
        self._parameters = [parameter for _, parameter in self.module.named_parameters()]
        self.device = device(chosen())
        self._sent: np.ndarray | None = None
        if self.on_cpu:
            self._point()
        else:
            self.module.to(self.device)
        self._outputs: torch.Tensor | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the module's parameters are views of the vector, and not copies on another device."""
        return self.device == CPU

    def move(self, vector: np.ndarray, gradient: np.ndarray) -> None:
        """Keep the parameters and the gradient in these arrays float32 [P], which hold their values."""
        self.vector, self.gradient = vector, gradient
        if self.on_cpu:
            self._point()

    def _point(self) -> None:
        for parameter, view in self._views(self.vector):
            parameter.data = torch.from_numpy(view)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that are not trained: their requires_grad is False."""
        return tuple(name for name, part in self.module.named_parameters() if not part.requires_grad)

    def initialise(self, stream: np.random.Generator) -> None:
        """The parameters that the constructor draws under a seed from the stream; a twin's: as the built-in
        network's."""
        if self.kind[0].architecture in TWINS:
            tables.initialise(self.table, self.vector, stream)
            return
        drawn = build(*self.kind, seed=int(stream.integers(2**63)))
        for (_, view), new in zip(self._views(self.vector), drawn.parameters(), strict=True):
            view[...] = new.detach().numpy()

    def require_gradient(self) -> np.ndarray:
        """The gradient [P], allocated with the first call."""
        if self.gradient is None:
            self.gradient = np.zeros_like(self.vector)
        return self.gradient

    def initial_state(self, batch: int) -> np.ndarray:
        """Zeros [batch, H]."""
        return np.zeros((batch, self.state_size), np.float32)

    def advance(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step: x float32 [B, I], state [B, H] -> outputs [B, K], a new state [B, H]."""
        self._send()
        with torch.no_grad():
            outputs, after = self.module(self._copy(x), self.memory.unpack(self._copy(state)))
            rows = _array(self.memory.pack(after)) if self.state_size else self.initial_state(len(x))
        return _array(outputs), rows

    def forward(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Sequences x [S, B, I], state [B, H] -> outputs [S, B, K]. ``backward`` needs the graph of the last
        call."""
        self._outputs = self._sequence(x, state, keep)
        return _array(self._outputs.detach())

    def backward(self, grad_outputs: np.ndarray) -> None:
        """Fill the gradient [P] from that in the outputs [S, B, K]. RuntimeError: no ``forward`` came before.

        A parameter that no output depends on has the gradient 0.
        """
        if self._outputs is None:
            raise RuntimeError("backward needs a forward pass of its own before it")
        learnt = [parameter for parameter in self._parameters if parameter.requires_grad]
        found = iter(torch.autograd.grad(self._outputs, learnt, self._copy(grad_outputs), allow_unused=True))
        self._outputs = None
        for parameter, view in self._views(self.require_gradient()):
            gradient = next(found) if parameter.requires_grad else None
            view[...] = 0 if gradient is None else _array(gradient)

    def predict(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The outputs of ``forward``, without a graph."""
        with torch.no_grad():
            return _array(self._sequence(x, state, None))

    def release(self) -> None:
        """Free the graph of the last forward pass."""
        self._outputs = None

    def _sequence(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None) -> torch.Tensor:
        self._send()
        kept = self._copy(np.ones(x.shape[:2]) if keep is None else keep)
        return sequence(self.module, self.memory, self._copy(x), self._copy(state), kept)

    def _views(self, vector: np.ndarray) -> Iterator[tuple[torch.nn.Parameter, np.ndarray]]:
        """Each parameter, and the view of a vector [P] that belongs to it."""
        return zip(self._parameters, tables.layers(self.table, vector).values(), strict=True)

    def _send(self) -> None:
        """Copy the vector to a device with memory of its own, if it has changed since the last copy."""
        if self.on_cpu or (self._sent is not None and np.array_equal(self._sent, self.vector)):
            return
        self._sent = self.vector.copy()
        with torch.no_grad():
            for parameter, view in self._views(self._sent):
                parameter.copy_(torch.from_numpy(view))

    def _copy(self, array: np.ndarray) -> torch.Tensor:
        """A float32 tensor of its own on the device, which a module may change in place."""
        return torch.from_numpy(np.array(array, np.float32)).to(self.device)


def sequence(
    module: Any, memory: Memory, x: torch.Tensor, state: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """A module's outputs [S, B, K] for sequences x [S, B, I], from its state in rows [B, H]; keep [S, B]."""
    outputs: torch.Tensor
    if not memory.size:
        outputs = module(x.flatten(0, 1), None)[0]
        return outputs.unflatten(0, x.shape[:2])
    if hasattr(module, "sequence"):
        outputs = module.sequence(x, memory.unpack(state), keep)
        return outputs
    steps = []
    for inputs, kept in zip(x, keep, strict=True):
        output, after = module(inputs.clone(), memory.unpack(state * kept[:, None]))  # it may change them
        state = memory.pack(after)
        steps.append(output)
    return torch.stack(steps)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as a contiguous array."""
    array: np.ndarray = tensor.contiguous().cpu().numpy()
    return array
