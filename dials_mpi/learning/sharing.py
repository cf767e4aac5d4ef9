"""One policy for several agents: the mean of their gradients, and the step of one optimiser.

The mean must not depend on the order in which gradients are added, because the number of ranks decides it.
Gradients are therefore added as integers, whose sum is the same in any order: all numbers are rounded to
multiples of a power of two, which the largest magnitude decides, so that the sum fits into 64 bits. With N
agents the rounding error of a number is at most 2^-(60 - log2 N) of the largest magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import frexp, isfinite
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dials_mpi.learning.adam import Adam
from dials_mpi.learning.ppo import descend

if TYPE_CHECKING:
    from dials_mpi.config import PPO as PPOConfig

BITS = 61
"""Bits of the largest sum; with the sign there is one to spare."""


class Exchange(Protocol):
    """Reductions over all ranks that train. They call the same methods in the same order."""

    def maximum(self, numbers: np.ndarray) -> None:
        """Replace each number, float64 [n], by the largest of all ranks."""
        ...

    def total(self, numbers: np.ndarray) -> None:
        """Replace each number, int64 [n], by the sum over all ranks."""
        ...


class Alone:
    """The exchange of a rank that trains alone."""

    def maximum(self, numbers: np.ndarray) -> None:
        """Nothing to do."""

    def total(self, numbers: np.ndarray) -> None:
        """Nothing to do."""


def magnitude(vector: np.ndarray) -> float:
    """The largest magnitude in a vector; infinity if a number is infinite or NaN."""
    found = float(np.abs(vector).max(initial=0))
    return found if isfinite(found) else np.inf


def unit(largest: float, count: int) -> float:
    """The power of two that is 1 in the integers, for sums of ``count`` numbers up to this magnitude."""
    return 2.0 ** (frexp(largest)[1] + count.bit_length() - BITS)


def add(total: np.ndarray, vector: np.ndarray, unit: float) -> None:
    """Add a vector float32 [P], rounded to whole units, to a total int64 [P]."""
    total += np.rint(vector.astype(np.float64) / unit).astype(np.int64)


class SharedPolicies:
    """The policies that agents share, as one rank sees them.

    kinds: for each agent of the system the number of its policy, that of its first agent. optimisers: by this
    number, of this rank's agents. All ranks take the same steps, so that their parameters stay equal.
    """

    def __init__(
        self, kinds: Sequence[int], sizes: Sequence[int], optimisers: Mapping[int, Adam], exchange: Exchange
    ) -> None:
        """sizes: for each agent of the system P of its policy."""
        self.kinds, self.optimisers, self._exchange = kinds, optimisers, exchange
        self._order = sorted(set(kinds))
        self._counts = [kinds.count(kind) for kind in self._order]
        self._sizes = [sizes[kind] for kind in self._order]

    def descend(self, gradients: Mapping[int, np.ndarray], config: PPOConfig, learning_rate: float) -> None:
        """One step of each policy; gradients: float32 [P] of each of this rank's agents, by number.

        Where a gradient is not finite, all parameters of its policy become NaN, on every rank.
        """
        means = dict(zip(self._order, self._means(gradients), strict=True))
        for kind, optimiser in self.optimisers.items():
            optimiser.gradient[:] = means[kind]
            descend(optimiser, config, learning_rate)

    def _means(self, gradients: Mapping[int, np.ndarray]) -> Iterator[np.ndarray]:
        """The mean gradient of each policy over all ranks' agents, float64 [P]."""
        own = [[vector for i, vector in gradients.items() if self.kinds[i] == kind] for kind in self._order]
        largest = np.array([max(map(magnitude, vectors), default=0.0) for vectors in own])
        self._exchange.maximum(largest)
        units = [unit(number, count) for number, count in zip(largest, self._counts, strict=True)]
        totals = np.zeros(sum(self._sizes), np.int64)
        parts = np.split(totals, np.cumsum(self._sizes)[:-1])
        for part, vectors, one, number in zip(parts, own, units, largest, strict=True):
            for vector in vectors if isfinite(number) else ():
                add(part, vector, one)
        self._exchange.total(totals)
        for part, one, number, count in zip(parts, units, largest, self._counts, strict=True):
            yield part * (one if isfinite(number) else np.nan) / count
