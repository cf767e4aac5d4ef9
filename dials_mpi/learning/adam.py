"""Adam (Kingma and Ba, 2015) on one flat parameter vector."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.adam import adam_step


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
        moments, rates = (self.first_moment, self.second_moment), self.rates(learning_rate)
        adam_step(self.parameters, self.gradient, *moments, rates)

    def rates(self, learning_rate: float) -> tuple[np.float32, ...]:
        """The numbers of ``kernels.adam.adam_step`` for the next step, which is counted."""
        self.steps += 1
        size = learning_rate / (1 - _power(self.beta1, int(self.steps)))
        correction = 1 / sqrt(1 - _power(self.beta2, int(self.steps)))
        rates = self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2
        return tuple(np.float32(number) for number in (size, correction, self.epsilon, *rates))


@compiled
def _power(base, exponent):
    """base^exponent by products alone: the C library's function may round differently elsewhere."""
    return base**exponent
