"""The built-in networks: compiled, with gradients written by hand (Tables 4 and 5 of the paper).

A recurrent network is a GRU, a linear layer with ReLU and a linear output layer; a feed-forward one (FNN) has
a linear layer with ReLU in place of the GRU. Policies and influence predictors differ only in the sizes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.adam import layer_step
from dials_mpi.learning.kernels.gemm import linear, of_weights, through_weights
from dials_mpi.learning.kernels.gru import gru_backward, gru_forward
from dials_mpi.learning.kernels.inputs import scaled
from dials_mpi.learning.kernels.sampling import draw_actions, draw_sources
from dials_mpi.learning.tables import NetworkConfig, initialise, layers, network_table, size

if TYPE_CHECKING:
    from dials_mpi.learning.adam import Adam

NO_KEEP = np.empty((0, 0), np.float32)
"""``keep`` where no episode begins within a sequence."""


class Sizes(NamedTuple):
    """What the compiled loops need: numbers of units; state is the length H of the state, 0 for an FNN."""

    inputs: int
    state: int
    first: int
    second: int
    outputs: int


class BuiltinNetwork:
    """A GRU or an FNN on a flat float32 vector; see ``network.Network`` and ``network.FusedNetwork``.

    parameters: views of the vector [P], by name.
    """

    def __init__(
        self, config: NetworkConfig, inputs: int, outputs: int, vector: np.ndarray | None = None
    ) -> None:
        """vector: its first P numbers are the parameters; by default they are zero."""
        self.table = network_table(config, inputs, outputs)
        self.state_size = config.hidden[0] if config.architecture == "gru" else 0
        self.sizes = Sizes(inputs, self.state_size, *config.hidden, outputs)
        length = size(self.table)
        self.vector = np.zeros(length, np.float32) if vector is None else vector[:length]
        self.gradient: np.ndarray | None = None
        self._saved: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Views of the vector, by name, in the table's shapes."""
        return layers(self.table, self.vector)

    def initialise(self, stream: np.random.Generator) -> None:
        """Torch's default initialisation."""
        initialise(self.table, self.vector, stream)

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
        return advance(self.sizes, self.vector, x, state)

    def act(
        self, observations: np.ndarray, state: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``advance`` and ``draw_actions`` in one compiled call."""
        observations, uniforms = np.ascontiguousarray(observations), np.ascontiguousarray(uniforms)
        return _act(self.sizes, self.vector, observations, state, uniforms)

    def sample(
        self,
        inputs: np.ndarray,
        state: np.ndarray,
        uniforms: np.ndarray,
        counts: np.ndarray,
        starts: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """``advance`` and ``draw_sources`` in one compiled call."""
        inputs = np.ascontiguousarray(inputs)
        return _sample(self.sizes, self.vector, inputs, state, uniforms, counts, starts)

    def forward(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Sequences x [S, B, I], state [B, H] -> outputs [S, B, K].

        Until ``backward`` the network refers to x and to the workspace.
        """
        work = workspace(*x.shape[:2], self.sizes)
        self._saved = x, NO_KEEP if keep is None else keep, work
        return self._run(x, state, self._saved[1], work)

    def backward(self, grad_outputs: np.ndarray) -> None:
        """Fill the gradient [P] from that in the outputs [S, B, K].

        It is written by hand so that each product goes to its place in the vector: nothing is allocated,
        cleared or added up. RuntimeError: no ``forward`` came before.
        """
        _backward(self.sizes, self.vector, self.require_gradient(), *self._take_saved(), grad_outputs)

    def descend(self, grad_outputs: np.ndarray, optimiser: Adam, learning_rate: float) -> None:
        """``backward`` and the optimiser's step, to the same bits, but the gradient is not kept.

        This is faster where the vectors do not fit in the cache. RuntimeError: as of ``backward``.
        """
        moments, rates = (optimiser.first_moment, optimiser.second_moment), optimiser.rates(learning_rate)
        _descend(self.sizes, self.vector, *moments, rates, *self._take_saved(), grad_outputs)

    def _take_saved(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._saved is None:
            raise RuntimeError("backward needs a forward pass of its own before it")
        saved, self._saved = self._saved, None
        return saved

    def predict(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The outputs of ``forward``; the workspace is freed at once."""
        return self._run(x, state, NO_KEEP, np.empty(_items(*x.shape[:2], self.sizes), np.float32))

    def release(self) -> None:
        """Free the workspaces of all networks."""
        workspace.cache_clear()

    def _run(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray, work: np.ndarray) -> np.ndarray:
        outputs = np.empty((*x.shape[:2], self.sizes.outputs), np.float32)
        _forward(self.sizes, self.vector, x, state, keep, work, outputs)
        return outputs


@lru_cache(maxsize=16)
def workspace(steps: int, batch: int, sizes: Sizes) -> np.ndarray:
    """Memory for the intermediate results of a forward pass; networks of equal sizes share it."""
    return np.empty(_items(steps, batch, sizes), np.float32)


@compiled
def _items(steps, batch, sizes):
    """How many numbers ``_parts`` gives views of."""
    gru = 7 * sizes.state  # gates and products, 3 H each, and the state before each step
    return steps * batch * (gru + 2 * sizes.first + 2 * sizes.second)


@compiled
def _matrix(vector, start, rows, columns):
    """A view of a part of a vector as a matrix, and where the part ends."""
    end = start + rows * columns
    return vector[start:end].reshape(rows, columns), end


@compiled
def _layers(sizes, vector):
    """Views of a vector [P] in the order of the table: weights and biases.

    (w_ih, w_hh, b_ih, b_hh, second weight, its bias, head weight, its bias); w_hh and b_hh of an FNN are
    empty.
    """
    gates = 3 * sizes.state if sizes.state else sizes.first
    w_ih, end = _matrix(vector, 0, gates, sizes.inputs)
    w_hh, end = _matrix(vector, end, 3 * sizes.state, sizes.state)
    b_ih, end = vector[end : end + gates], end + gates
    b_hh, end = vector[end : end + 3 * sizes.state], end + 3 * sizes.state
    w_2, end = _matrix(vector, end, sizes.second, sizes.first)
    b_2, end = vector[end : end + sizes.second], end + sizes.second
    w_3, end = _matrix(vector, end, sizes.outputs, sizes.second)
    return w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, vector[end : end + sizes.outputs]


@compiled
def _parts(sizes, work, steps, batch):
    """Views of a workspace: gates, products, entering, features, second, and gradients of the last two.

    entering: the state before each step; features, second: the outputs of the first and second layer.
    """
    rows, state = steps * batch, sizes.state
    gates, end = _matrix(work, 0, rows, 3 * state)
    products, end = _matrix(work, end, rows, 3 * state)
    entering, end = _matrix(work, end, rows, state)
    features, end = _matrix(work, end, rows, sizes.first)
    second, end = _matrix(work, end, rows, sizes.second)
    d_features, end = _matrix(work, end, rows, sizes.first)
    d_second, end = _matrix(work, end, rows, sizes.second)
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
def _relu(x):
    """ReLU, in place."""
    flat = x.reshape(-1)
    for k in range(flat.size):
        flat[k] = max(flat[k], np.float32(0))


@compiled
def _relu_backward(x, d_x):
    """The gradient in the inputs of a ReLU from that in its outputs x, in place."""
    x, d_x = x.reshape(-1), d_x.reshape(-1)
    for k in range(x.size):
        d_x[k] = d_x[k] if x[k] > 0 else np.float32(0)


@compiled
def _forward(sizes, vector, x, state, keep, work, outputs):
    steps, batch = x.shape[:2]
    w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, b_3 = _layers(sizes, vector)
    gates, products, entering, features, second, _, _ = _parts(sizes, work, steps, batch)
    if sizes.state:
        states = features.reshape(steps, batch, sizes.state)
        gru_forward(x, state, keep, w_ih, w_hh, b_ih, b_hh, gates, products, entering, states)
    else:
        linear(x.reshape(-1, sizes.inputs), w_ih, b_ih, features)
        _relu(features)
    linear(features, w_2, b_2, second)
    _relu(second)
    linear(second, w_3, b_3, outputs.reshape(-1, sizes.outputs))


@compiled
def _propagate(sizes, vector, x, keep, work, d_outputs):
    """From the gradient in the outputs to that in the products of all layers, in the workspace.

    Returns these [S B, N] and the inputs [S B, K] of the layers' weights; those of w_hh are empty for an FNN.
    """
    steps, batch = x.shape[:2]
    _, w_hh, _, _, w_2, _, w_3, _ = _layers(sizes, vector)
    gates, products, entering, features, second, d_features, d_second = _parts(sizes, work, steps, batch)
    rows, count = d_outputs.reshape(-1, sizes.outputs), steps * batch
    through_weights(rows, w_3, d_second, 0)
    _relu_backward(second, d_second)
    through_weights(d_second, w_2, d_features, 0)
    if sizes.state:
        d_states = d_features.reshape(steps, batch, sizes.state)
        gru_backward(d_states, keep, w_hh, gates, products, entering)
        d_first = gates.reshape(count, 3 * sizes.state)
    else:
        _relu_backward(features, d_features)
        d_first = d_features
    d_recurrent, before = products.reshape(count, 3 * sizes.state), entering.reshape(count, sizes.state)
    inputs = x.reshape(-1, sizes.inputs), before, features, second
    return (d_first, d_recurrent, d_second, rows), inputs


@compiled
def _backward(sizes, vector, gradient, x, keep, work, d_outputs):
    d_out, inputs = _propagate(sizes, vector, x, keep, work, d_outputs)
    w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, b_3 = _layers(sizes, gradient)
    of_weights(d_out[0], inputs[0], w_ih, b_ih)
    of_weights(d_out[1], inputs[1], w_hh, b_hh)
    of_weights(d_out[2], inputs[2], w_2, b_2)
    of_weights(d_out[3], inputs[3], w_3, b_3)


@compiled
def _pairs(sizes, vector):
    """The layers of a vector, each its weights and biases."""
    w_ih, w_hh, b_ih, b_hh, w_2, b_2, w_3, b_3 = _layers(sizes, vector)
    return (w_ih, b_ih), (w_hh, b_hh), (w_2, b_2), (w_3, b_3)


@compiled
def _descend(sizes, vector, first, second, rates, x, keep, work, d_outputs):
    d_out, inputs = _propagate(sizes, vector, x, keep, work, d_outputs)
    layers, firsts, seconds = _pairs(sizes, vector), _pairs(sizes, first), _pairs(sizes, second)
    for k in range(4):
        layer_step(d_out[k], inputs[k], layers[k], firsts[k], seconds[k], rates)


@compiled
def advance(sizes, vector, x, state):
    """One step of a network: x [B, I], state [B, H] -> outputs [B, K], new state [B, H]."""
    batch = x.shape[0]
    work = np.empty(_items(1, batch, sizes), np.float32)
    outputs = np.empty((1, batch, sizes.outputs), np.float32)
    no_keep = np.empty((0, 0), np.float32)
    _forward(sizes, vector, x.reshape(1, batch, sizes.inputs), state, no_keep, work, outputs)
    features = _parts(sizes, work, 1, batch)[3]
    return outputs[0], features[:, : sizes.state].copy()


@compiled
def _act(sizes, vector, observations, state, uniforms):
    """One step of a policy: actions, log-probabilities, values [B], a new state [B, H]."""
    outputs, state = advance(sizes, vector, observations.astype(np.float32), state)
    actions, log_probabilities, values = draw_actions(outputs, uniforms)
    return actions, log_probabilities, values, state


@compiled
def _sample(sizes, vector, inputs, state, uniforms, counts, starts):
    """One step of a predictor: sources [B, M], a new state [B, H]."""
    outputs, state = advance(sizes, vector, scaled(inputs), state)
    return draw_sources(outputs, uniforms, counts, starts), state
