"""Steps of Adam: on whole vectors, and on a layer's weights as soon as their gradient is known.

A large network's parameters, moments and gradient are larger than the second-level cache of a core. If some
rows of a layer's gradient are used while they are in the nearest cache, it never travels to memory.
"""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.gemm import ROWS, of_biases, of_some_weights

AT_ONCE = 2**13
"""About how many numbers of a layer's gradient are computed before their step."""


@compiled
def adam_step(parameters, gradient, first, second, rates):
    """A step of Adam on vectors [P]; rates: as of ``Adam.rates``. Memory bandwidth limits its speed.

    Moments too small to change a parameter become zero: without a gradient they would decay to denormal
    numbers, whose arithmetic is many times slower.
    """
    size, correction, epsilon, keep_1, take_1, keep_2, take_2 = rates
    zero, least_1, least_2 = np.float32(0), np.float32(1e-30), np.float32(1e-36)
    for k in range(parameters.size):
        g = gradient[k]
        m = keep_1 * first[k] + take_1 * g
        v = keep_2 * second[k] + take_2 * g * g
        m = zero if abs(m) < least_1 else m
        v = zero if v < least_2 else v
        first[k], second[k] = m, v
        parameters[k] -= size * m / (np.sqrt(v) * correction + epsilon)


@compiled
def layer_step(d_out, x, layer, first, second, rates):
    """``gemm.of_weights`` and ``adam_step`` of one layer, bit for bit, without its gradient in memory.

    layer, first, second: weights [N, K] and biases [N], and their moments.
    """
    outputs, inputs = layer[0].shape
    rows = max(ROWS, AT_ONCE // max(inputs, 1) // ROWS * ROWS)
    gradient = np.empty((min(rows, outputs), inputs), np.float32)
    for row in range(0, outputs, rows):
        end = min(row + rows, outputs)
        here = gradient[: end - row]
        of_some_weights(d_out, x, row, here)
        flat = here.reshape(-1)
        parts = layer[0][row:end].reshape(-1), first[0][row:end].reshape(-1), second[0][row:end].reshape(-1)
        adam_step(parts[0], flat, parts[1], parts[2], rates)
    d_bias = np.empty(outputs, np.float32)
    of_biases(d_out, d_bias)
    adam_step(layer[1], d_bias, first[1], second[1], rates)
