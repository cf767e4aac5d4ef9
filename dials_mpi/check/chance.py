"""Whether a difference is more than chance explains.

All tests are of paired differences that are as often positive as negative if nothing is wrong: numbers that
one simulator gives less those that another one gives under the same conditions. For such differences the sum
over the root of the sum of squares has no heavier tail than about that of a standard normal number, whatever
their distribution is, and however few they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, sqrt
from statistics import NormalDist

import numpy as np

LEVEL = 0.001
"""The probability of a false alarm in one check, over all that it compares."""

ROUNDING = 1e-5
"""Differences below this share of the largest number are rounding."""

_improbability = np.vectorize(erfc, otypes=[np.float64])


def improbability(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """The two-sided p-values [M] of M quantities in n pairs, [n, M] each; 1 where all pairs are equal."""
    gaps = np.asarray(these, np.float64) - those
    scale = np.abs(those).max(axis=0)
    gaps[np.abs(gaps) <= ROUNDING * scale] = 0
    size = np.sqrt(np.sum(gaps**2, axis=0))
    ratio = np.abs(gaps.sum(axis=0)) / np.where(size > 0, size, 1)
    return np.asarray(_improbability(ratio / sqrt(2)))


def over_all(families: Sequence[np.ndarray]) -> float:
    """The p-value of the smallest of several ones; each family has the same share (Bonferroni)."""
    found = [len(families) * family.size * family.min() for family in families if family.size]
    return float(min([1.0, *found]))


def detectable(error: float, episodes: int, families: int) -> float:
    """The difference of means that the first of several families, a single quantity, would show; inf: none.

    error: the standard error of the difference.
    """
    needed = NormalDist().inv_cdf(1 - LEVEL / families / 2)
    spare = episodes - needed**2
    return error * needed * sqrt((episodes - 1) / spare) if spare > 0 else np.inf
