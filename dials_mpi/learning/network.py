"""Two-layer networks whose parameters are one contiguous vector (Tables 4 and 5 of the paper).

A recurrent network is a GRU, a linear layer with ReLU and a linear head; a feed-forward one (FNN) has a
linear layer with ReLU in place of the GRU. Policies and influence predictors differ only in the sizes.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod, sqrt
from typing import NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.gemm import linear, of_weights, through_weights
from dials_mpi.learning.kernels.gru import gru_backward, gru_forward

Table = tuple[tuple[str, tuple[int, ...]], ...]

NO_CUTS = np.empty((0, 0), np.float32)
"""``keep`` where no episode begins inside any sequence."""


def parameter_table(architecture: str, inputs: int, hidden: tuple[int, int], outputs: int) -> Table:
    """Names and shapes of a network's parameters, in the order in which they lie in its vector."""
    first, second = hidden
    if architecture == "gru":
        layer: Table = (
            ("gru.weight_ih", (3 * first, inputs)),
            ("gru.weight_hh", (3 * first, first)),
            ("gru.bias_ih", (3 * first,)),
            ("gru.bias_hh", (3 * first,)),
        )
    else:
        layer = (("first.weight", (first, inputs)), ("first.bias", (first,)))
    return (
        *layer,
        ("second.weight", (second, first)),
        ("second.bias", (second,)),
        ("head.weight", (outputs, second)),
        ("head.bias", (outputs,)),
    )


class Sizes(NamedTuple):
    """What the inner loops know of a network; state is the length H of the recurrent state, 0 for an FNN."""

    inputs: int
    state: int
    first: int
    second: int
    outputs: int


class Network:
    """A GRU or feed-forward network on a flat float32 vector.

    vector [P] holds the parameters (``parameters`` are views of it, by layer), table their names and shapes.
    state_size is the length H of the recurrent state, 0 for an FNN. A given vector may be longer than P.
    """

    def __init__(
        self,
        architecture: str,
        inputs: int,
        hidden: tuple[int, int],
        outputs: int,
        vector: np.ndarray | None = None,
    ) -> None:
        self.architecture = architecture
        self.inputs, self.hidden = inputs, hidden
        self.table = parameter_table(architecture, inputs, hidden, outputs)
        self.state_size = hidden[0] if architecture == "gru" else 0
        self.sizes = Sizes(inputs, self.state_size, *hidden, outputs)
        size = sum(prod(shape) for _, shape in self.table)
        self.vector = np.zeros(size, np.float32) if vector is None else vector[:size]
        self.gradient: np.ndarray | None = None
        self._left: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def parameters(self) -> list[np.ndarray]:
        """The layers, as views of the vector in the table's shapes."""
        ends = np.cumsum([prod(shape) for _, shape in self.table])
        parts = np.split(self.vector, ends[:-1])
        return [part.reshape(shape) for part, (_, shape) in zip(parts, self.table, strict=True)]

    def initialise(self, stream: np.random.Generator) -> None:
        """Torch's default initialisation: uniform in +-1/sqrt(fan-in), for a GRU in +-1/sqrt(H)."""
        bounds = {"gru": self.hidden[0], "first": self.inputs, "second": self.hidden[0]}
        for (name, shape), view in zip(self.table, self.parameters, strict=True):
            bound = 1 / sqrt(bounds.get(name.split(".")[0], self.hidden[1]))
            view[:] = stream.uniform(-bound, bound, shape)

    def require_gradient(self) -> np.ndarray:
        """Make room for the gradient; return it, one vector [P] that ``backward`` fills."""
        if self.gradient is None:
            self.gradient = np.zeros_like(self.vector)
        return self.gradient

    def initial_state(self, batch: int) -> np.ndarray:
        """The state at the beginning of an episode: zeros [batch, H]."""
        return np.zeros((batch, self.state_size), np.float32)

    def advance(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step: x float32 [B, I], state [B, H] -> outputs [B, K], new state [B, H]."""
        return advance(self.sizes, self.vector, x, state)

    def forward(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Whole sequences: x [S, B, I], state [B, H] before the first step -> outputs [S, B, K].

        keep [S, B]: 0 where a new episode begins at that step, else 1; None: no episode begins inside.
        A ``backward`` must follow, with no other network's ``forward`` in between: networks of the same
        sizes share their workspace. Until then the network refers to x and the workspace.
        """
        work = workspace(*x.shape[:2], self.sizes)
        self._left = x, NO_CUTS if keep is None else keep, work
        return self._run(x, state, self._left[1], work)

    def predict(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The outputs of ``forward`` where no ``backward`` follows: its workspace is freed at once."""
        return self._run(x, state, NO_CUTS, np.empty(_items(*x.shape[:2], self.sizes), np.float32))

    def backward(self, grad_outputs: np.ndarray) -> None:
        """Overwrite the gradient vector with that of a loss whose gradient in the outputs is given.

        Written by hand so that each product lands in its place in the vector: nothing is allocated,
        cleared or added up. RuntimeError: no ``forward`` came before it.
        """
        if self._left is None:
            raise RuntimeError("backward needs a forward pass of its own before it")
        _backward(self.sizes, self.vector, self.gradient, *self._left, grad_outputs)
        self._left = None

    def _run(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray, work: np.ndarray) -> np.ndarray:
        outputs = np.empty((*x.shape[:2], self.sizes.outputs), np.float32)
        _forward(self.sizes, self.vector, x, state, keep, work, outputs)
        return outputs


@lru_cache(maxsize=16)
def workspace(steps: int, batch: int, sizes: Sizes) -> np.ndarray:
    """Room for what a forward pass leaves to its backward pass."""
    return np.empty(_items(steps, batch, sizes), np.float32)


@compiled
def _items(steps, batch, sizes):
    """How many numbers ``_room`` gives views of."""
    gru = 7 * sizes.state  # gates and products, 3 H each, and the states entering
    return steps * batch * (gru + 2 * sizes.first + 2 * sizes.second)


@compiled
def _take(vector, start, rows, columns):
    """A matrix in a vector, and where it ends."""
    end = start + rows * columns
    return vector[start:end].reshape(rows, columns), end


@compiled
def _layers(sizes, vector):
    """Views of a vector in the order of the table; the first layer's weights and biases twice for a GRU.

    (w_ih, w_hh, b_ih, b_hh, second weight, its bias, head weight, its bias); an FNN has no w_hh and b_hh.
    """
    gates = 3 * sizes.state if sizes.state else sizes.first
    w_ih, end = _take(vector, 0, gates, sizes.inputs)
    w_hh, end = _take(vector, end, 3 * sizes.state, sizes.state)
    b_ih, end = vector[end : end + gates], end + gates
    b_hh, end = vector[end : end + 3 * sizes.state], end + 3 * sizes.state
    w_2, end = _take(vector, end, sizes.second, sizes.first)
    b_2, end = vector[end : end + sizes.second], end + sizes.second
    w_3, end = _take(vector, end, sizes.outputs, sizes.second)
    return w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, vector[end : end + sizes.outputs]


@compiled
def _room(sizes, work, steps, batch):
    """Views of a workspace: gates, products, entering, features, second, and gradients of the last two."""
    rows, state = steps * batch, sizes.state
    gates, end = _take(work, 0, rows, 3 * state)
    products, end = _take(work, end, rows, 3 * state)
    entering, end = _take(work, end, rows, state)
    features, end = _take(work, end, rows, sizes.first)
    second, end = _take(work, end, rows, sizes.second)
    d_features, end = _take(work, end, rows, sizes.first)
    d_second, end = _take(work, end, rows, sizes.second)
    return (
        gates.reshape(steps, batch, 3 * state),
        products.reshape(steps, batch, 3 * state),
        entering.reshape(steps, batch, state),
        features,
        second,
        d_features,
        d_second,
    )


@compiled
def _rectify(x):
    """ReLU, in place."""
    flat = x.reshape(-1)
    for k in range(flat.size):
        flat[k] = max(flat[k], np.float32(0))


@compiled
def _where_positive(x, d_x):
    """The gradient before a ReLU that gave x, in place."""
    x, d_x = x.reshape(-1), d_x.reshape(-1)
    for k in range(x.size):
        d_x[k] = d_x[k] if x[k] > 0 else np.float32(0)


@compiled
def _forward(sizes, vector, x, state, keep, work, outputs):
    steps, batch = x.shape[:2]
    w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, b_3 = _layers(sizes, vector)
    gates, products, entering, features, second, _, _ = _room(sizes, work, steps, batch)
    if sizes.state:
        states = features.reshape(steps, batch, sizes.state)
        gru_forward(x, state, keep, w_ih, w_hh, b_ih, b_hh, gates, products, entering, states)
    else:
        linear(x.reshape(-1, sizes.inputs), w_ih, b_ih, features)
        _rectify(features)
    linear(features, w_2, b_2, second)
    _rectify(second)
    linear(second, w_3, b_3, outputs.reshape(-1, sizes.outputs))


@compiled
def _backward(sizes, vector, gradient, x, keep, work, d_outputs):
    steps, batch = x.shape[:2]
    _, w_hh, _, _, w_2, _, w_3, _ = _layers(sizes, vector)
    d_w_ih, d_w_hh, d_b_ih, d_b_hh, d_w_2, d_b_2, d_w_3, d_b_3 = _layers(sizes, gradient)
    gates, products, entering, features, second, d_features, d_second = _room(sizes, work, steps, batch)
    rows = d_outputs.reshape(-1, sizes.outputs)
    of_weights(rows, second, d_w_3, d_b_3)
    through_weights(rows, w_3, d_second, 0)
    _where_positive(second, d_second)
    of_weights(d_second, features, d_w_2, d_b_2)
    through_weights(d_second, w_2, d_features, 0)
    if sizes.state:
        d_states = d_features.reshape(steps, batch, sizes.state)
        gru_backward(x, d_states, keep, w_hh, gates, products, entering, d_w_ih, d_w_hh, d_b_ih, d_b_hh)
    else:
        _where_positive(features, d_features)
        of_weights(d_features, x.reshape(-1, sizes.inputs), d_w_ih, d_b_ih)


@compiled
def advance(sizes, vector, x, state):
    """One step of a network: x [B, I], state [B, H] -> outputs [B, K], new state [B, H]."""
    batch = x.shape[0]
    work = np.empty(_items(1, batch, sizes), np.float32)
    outputs = np.empty((1, batch, sizes.outputs), np.float32)
    no_cuts = np.empty((0, 0), np.float32)
    _forward(sizes, vector, x.reshape(1, batch, sizes.inputs), state, no_cuts, work, outputs)
    features = _room(sizes, work, 1, batch)[3]
    return outputs[0], features[:, : sizes.state].copy()
