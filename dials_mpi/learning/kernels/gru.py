"""A gated recurrent unit along whole sequences: forward, and its gradient by hand.

The cell is that of torch (gate order reset, update, new; Cho et al., 2014). All products with the input are
computed in one call before the loop over time; all weight gradients can be computed in two large products
after it.

Shapes: S steps, B sequences, I inputs, H units. w_ih [3H, I], w_hh [3H, H], b_ih [3H], b_hh [3H].
"""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.activations import sigmoid, tanh
from dials_mpi.learning.kernels.gemm import MANY, linear, linear_transposed, through_weights
from dials_mpi.learning.kernels.instructions import fused

_ONE = np.float32(1)


@compiled
def _thirds(values):
    """Views of a vector [3 H]: the parts of the reset, the update and the new gate, [H] each."""
    size = values.shape[0] // 3
    return values[:size], values[size : 2 * size], values[2 * size :]


@compiled
def _cell(gates, products, before, after):
    """One step of one sequence: the state [H] before it -> the state after it.

    gates [3 H]: the products with the input, which the values of the gates replace; products [3 H]: those
    with the state.
    """
    reset, update, new = _thirds(gates)
    state_reset, state_update, state_new = _thirds(products)
    for j in range(before.shape[0]):
        r = sigmoid(reset[j] + state_reset[j])
        z = sigmoid(update[j] + state_update[j])
        n = tanh(fused(r, state_new[j], new[j]))
        reset[j], update[j], new[j] = r, z, n
        after[j] = fused(z, before[j] - n, n)


@compiled
def _cell_backward(gates, products, before, d_state):
    """The gradients of ``_cell``: in the products with the input they replace the gates, in the products with
    the state they replace these.

    d_state [H] becomes the part of the gradient in the state before that does not pass through the products.
    """
    reset, update, new = _thirds(gates)
    state_reset, state_update, state_new = _thirds(products)
    for j in range(before.shape[0]):
        d, r, z, n = d_state[j], reset[j], update[j], new[j]
        d_n = d * (_ONE - z) * (_ONE - n * n)
        d_z = d * (before[j] - n) * z * (_ONE - z)
        d_r = d_n * state_new[j] * r * (_ONE - r)
        reset[j], update[j], new[j] = d_r, d_z, d_n
        state_reset[j], state_update[j], state_new[j] = d_r, d_z, d_n * r
        d_state[j] = d * z


@compiled
def gru_forward(x, h0, keep, w_ih, w_hh, b_ih, b_hh, gates, products, entering, states):
    """The states [S, B, H] along sequences x [S, B, I] from h0 [B, H].

    keep [S, B]: 0 where an episode begins at that step, so that the state before it is zero, else 1; or [0,
    0]. gates, products [S, B, 3H], entering [S, B, H], the state before each step: ``gru_backward`` needs
    them.
    """
    steps, batch, size = states.shape
    linear(x.reshape(-1, x.shape[2]), w_ih, b_ih, gates.reshape(-1, 3 * size))
    transposed = np.ascontiguousarray(w_hh.T) if steps * batch >= MANY else w_hh
    for s in range(steps):
        before = entering[s]
        before[:] = h0 if s == 0 else states[s - 1]
        if keep.size:
            for b in range(batch):
                before[b] *= keep[s, b]
        if steps * batch < MANY:
            linear(before, w_hh, b_hh, products[s])
        else:
            linear_transposed(before, transposed, b_hh, products[s])
        for b in range(batch):
            _cell(gates[s, b], products[s, b], before[b], states[s, b])


@compiled
def gru_backward(d_states, keep, w_hh, gates, products, entering):
    """From the gradient in all states [S, B, H], which is overwritten, to that in all products.

    gates, products, entering: as ``gru_forward`` left them. The gradient in the products with the input
    replaces the gates, that in the products with the state these. h0 and x are constants: h0 is a state that
    was stored when the policy acted (truncated backpropagation through time).
    """
    steps, batch, size = d_states.shape
    for s in range(steps - 1, -1, -1):
        for b in range(batch):
            _cell_backward(gates[s, b], products[s, b], entering[s, b], d_states[s, b])
        if s > 0:
            through_weights(products[s], w_hh, d_states[s], 1)
            for b in range(batch):
                cut = keep[s, b] if keep.size else _ONE
                for j in range(size):
                    d_states[s - 1, b, j] += d_states[s, b, j] * cut
