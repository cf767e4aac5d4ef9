"""Equal networks in PyTorch computed together: many small products become few large ones.

Their parameters are the rows of one matrix, and ``torch.vmap`` maps one module over the rows. Results must
not depend on how many networks a rank has, so this is done only where a trial gives the same bits as one
network after another; and only where it is faster. PyTorch's recurrent cells (GRUCell, LSTMCell) cannot be
mapped in one product; they are slower together.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dials_mpi.core.logging import LOG
from dials_mpi.learning import tables
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.torch_network import TorchNetwork, sequence

import torch  # isort: skip

Rows = Sequence[np.ndarray] | np.ndarray
"""N arrays of equal shape, or one with a first axis of length N."""

LEAST = 2
"""Fewer networks are not worth a trial."""

ROUNDS = 5
"""Timed passes of a trial; the fastest counts."""


class Stack:
    """N networks with equal modules; their parameters and gradients are rows of float32 [N, P].

    networks, optimisers: their vectors and gradients become these rows.
    """

    def __init__(self, networks: Sequence[TorchNetwork], optimisers: Sequence[Adam]) -> None:
        self.networks = networks
        self.parameters = np.stack([network.vector for network in networks])
        self.gradient = np.stack([network.require_gradient() for network in networks])
        places = zip(self.parameters, self.gradient, strict=True)
        for network, optimiser, place in zip(networks, optimisers, places, strict=True):
            network.move(*place)
            optimiser.parameters, optimiser.gradient = place
        first = networks[0]
        self._steps, self._sequences = _Step(first), _Sequence(first)
        self._leaves, self._sent = self._make_leaves(), self.parameters.copy()
        self._outputs: torch.Tensor | None = None

    def advance(self, x: Rows, states: Rows) -> tuple[np.ndarray, np.ndarray]:
        """``Network.advance`` of each network: x N times [B, I], states N times [B, H] -> outputs [N, B, K],
        new states [N, B, H]."""
        with torch.no_grad():
            outputs, rows = self._mapped(self._steps, x, states)
        return _array(outputs), _array(rows)

    def forward(self, x: Rows, states: Rows, keep: Rows | None) -> np.ndarray:
        """``Network.forward`` of each network: x N times [S, B, I] -> outputs [N, S, B, K]."""
        kept = np.ones((len(x), *x[0].shape[:2]), np.float32) if keep is None else keep
        self._outputs = self._mapped(self._sequences, x, states, kept)
        return _array(self._outputs.detach())

    def backward(self, grad_outputs: Rows) -> None:
        """``Network.backward`` of each network: gradients in the outputs, N times [S, B, K].

        RuntimeError: no ``forward`` came before.
        """
        if self._outputs is None:
            raise RuntimeError("backward needs a forward pass of its own before it")
        learnt = {name: leaf for name, leaf in self._leaves.items() if leaf.requires_grad}
        given = self._stacked(grad_outputs)
        found = torch.autograd.grad(self._outputs, list(learnt.values()), given, allow_unused=True)
        self._outputs = None
        self.gradient[:] = 0
        for name, part in zip(learnt, found, strict=True):
            if part is not None:
                self._columns(self.gradient)[name][...] = _array(part)

    def _make_leaves(self) -> dict[str, torch.Tensor]:
        """Each parameter of all networks, [N, ...]: a view of the matrix, or a copy on another device."""
        first, columns = self.networks[0], self._columns(self.parameters)
        leaves = {name: torch.from_numpy(part) for name, part in columns.items()}
        if not first.on_cpu:
            leaves = {name: leaf.to(first.device, copy=True) for name, leaf in leaves.items()}
        return {name: leaf.requires_grad_(name not in first.frozen) for name, leaf in leaves.items()}

    def _send(self) -> None:
        """Copy the parameters to another device, if they have changed since the last copy."""
        if self.networks[0].on_cpu or np.array_equal(self._sent, self.parameters):
            return
        self._sent = self.parameters.copy()
        with torch.no_grad():
            for name, part in self._columns(self._sent).items():
                self._leaves[name].copy_(torch.from_numpy(part))

    def _columns(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """The view [N, ...] of a matrix [N, P] that belongs to each parameter, by its name."""
        found, start = {}, 0
        for name, shape in self.networks[0].table:
            end = start + tables.size(((name, shape),))
            found[name] = matrix[:, start:end].reshape(len(matrix), *shape)
            start = end
        return found

    def _stacked(self, arrays: Rows) -> torch.Tensor:
        found = torch.from_numpy(np.stack(list(arrays)).astype(np.float32, copy=False))
        return found.to(self.networks[0].device)

    def _mapped(self, module: torch.nn.Module, *inputs: Rows) -> Any:
        def call(leaves: dict[str, torch.Tensor], *own: torch.Tensor) -> Any:
            return torch.func.functional_call(module, leaves, own)

        named = {f"module.{name}": leaf for name, leaf in self._leaves.items()}
        self._send()
        return torch.vmap(call)(named, *map(self._stacked, inputs))


class _Step(torch.nn.Module):
    """One step of a network's module with its state in rows."""

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.module, self.memory = network.module, network.memory

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, after = self.module(x, self.memory.unpack(state))
        return outputs, self.memory.pack(after) if self.memory.size else state


class _Sequence(_Step):
    """Whole sequences of a network's module."""

    def forward(self, x: torch.Tensor, state: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return sequence(self.module, self.memory, x, state, keep)


def stack(
    networks: Sequence[Any], optimisers: Sequence[Adam], rows: int, batches: Sequence[tuple[int, int]]
) -> tuple[Stack | None, Stack | None]:
    """As ``network.together``. Networks that are not all alike are computed one after another."""
    if len(networks) < LEAST or not all(isinstance(network, TorchNetwork) for network in networks):
        return None, None
    if len({network.kind for network in networks}) > 1:
        return None, None
    made = Stack(networks, optimisers)
    acts = _is_better(*_acting(made, rows))
    learns = bool(batches) and all(_is_better(*_learning(made, *shape)) for shape in batches)
    LOG.info("%d equal networks: act together %s, learn together %s", len(networks), acts, learns)
    made.gradient[:] = 0
    return made if acts else None, made if learns else None


Pass = Callable[[], list[np.ndarray]]


def _acting(made: Stack, rows: int) -> tuple[Pass, Pass]:
    """A step of all networks, one after another and together."""
    x, states = _trial(made, rows, made.networks[0].inputs), _trial(made, rows, made.networks[0].state_size)

    def alone() -> list[np.ndarray]:
        found = zip(made.networks, x, states, strict=True)
        return [part for network, own, state in found for part in network.advance(own, state)]

    def together() -> list[np.ndarray]:
        return [part for pair in zip(*made.advance(x, states), strict=True) for part in pair]

    return alone, together


def _learning(made: Stack, steps: int, columns: int) -> tuple[Pass, Pass]:
    """A forward and a backward pass of all networks, one after another and together."""
    first = made.networks[0]
    x = _trial(made, steps, columns, first.inputs)
    states = _trial(made, columns, first.state_size)
    given = _trial(made, steps, columns, first.outputs)

    def alone() -> list[np.ndarray]:
        found = []
        for network, own, state, gradient in zip(made.networks, x, states, given, strict=True):
            found.append(network.forward(own, state))
            network.backward(gradient)
        return [*found, made.gradient.copy()]

    def together() -> list[np.ndarray]:
        outputs = made.forward(x, states, None)
        made.backward(given)
        return [*outputs, made.gradient.copy()]

    return alone, together


def _is_better(alone: Pass, together: Pass) -> bool:
    """Whether all networks together give the same bits in less time."""
    with warnings.catch_warnings(action="ignore"):  # vmap warns of operations that it computes one by one
        try:
            same = all(map(np.array_equal, alone(), together()))
        except Exception as error:  # the user's module may do what vmap cannot map
            LOG.info("networks are computed one after another: %s", error)
            return False
        return same and _is_faster(alone, together)


def _is_faster(alone: Pass, together: Pass) -> bool:
    return _seconds(together) < _seconds(alone)


def _seconds(work: Pass) -> float:
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def _trial(made: Stack, *shape: int) -> np.ndarray:
    """Random numbers [N, ...], always the same."""
    size = len(made.networks), *shape
    return np.random.default_rng(0).standard_normal(size).astype(np.float32)


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.contiguous().cpu().numpy()
    return array
