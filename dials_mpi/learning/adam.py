"""Adam (Kingma and Ba, 2015) on one flat parameter vector."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dials_mpi.core.jit import compiled


class Gradients:
    """Room for gradients, one vector for all networks of the same length: they learn one after another."""

    def __init__(self) -> None:
        self._vectors: dict[int, np.ndarray] = {}

    def room(self, length: int) -> np.ndarray:
        """The vector float32 [length]."""
        return self._vectors.setdefault(length, np.zeros(length, np.float32))


class Adam:
    """The optimiser of one network: two moment vectors and the number of steps."""

    beta1 = 0.9
    beta2 = 0.999

    def __init__(self, parameters: np.ndarray, gradient: np.ndarray, epsilon: float) -> None:
        self.parameters, self.gradient, self.epsilon = parameters, gradient, epsilon
        self.first_moment = np.zeros_like(parameters)
        self.second_moment = np.zeros_like(parameters)
        self.steps = np.zeros((), np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters and moments float32 [P] and the number of steps float32 [], by name, not copied."""
        return {
            "parameters": self.parameters,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "adam_steps": self.steps,
        }

    def restore(self, part: str, row: np.ndarray) -> None:
        """Set a part of ``state``; row: float32, at least as long."""
        array = self.state()[part]
        array[...] = row[: array.size].reshape(array.shape)

    def step(self, learning_rate: float) -> None:
        """Move the parameters [P] against the gradient [P]."""
        self.steps += 1
        size = learning_rate / (1 - _power(self.beta1, int(self.steps)))
        correction = 1 / sqrt(1 - _power(self.beta2, int(self.steps)))
        rates = self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2
        numbers = (np.float32(number) for number in (size, correction, self.epsilon, *rates))
        _step(self.parameters, self.gradient, self.first_moment, self.second_moment, *numbers)


@compiled
def _power(base, exponent):
    """base^exponent by products alone: the C library's function may round differently elsewhere."""
    return base**exponent


@compiled
def _step(parameters, gradient, first, second, size, correction, epsilon, keep_1, take_1, keep_2, take_2):
    """One pass over all four vectors; memory bandwidth limits its speed.

    Moments too small to change a parameter become zero: without a gradient they would decay to denormal
    numbers, whose arithmetic is many times slower.
    """
    zero, least_1, least_2 = np.float32(0), np.float32(1e-30), np.float32(1e-36)
    for k in range(parameters.size):
        g = gradient[k]
        m = keep_1 * first[k] + take_1 * g
        v = keep_2 * second[k] + take_2 * g * g
        m = zero if abs(m) < least_1 else m
        v = zero if v < least_2 else v
        first[k], second[k] = m, v
        parameters[k] -= size * m / (np.sqrt(v) * correction + epsilon)
