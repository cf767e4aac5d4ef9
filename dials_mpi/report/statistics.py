"""Statistics for few runs: interquartile means and probabilities of improvement, with bootstrap intervals.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice". A run's score
is its final return, the mean over episodes and regions; regions of a run are not independent, so a run counts
once. The bootstrap is stratified: runs are drawn again within each size of the system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000
ENOUGH = 5
"""Runs of each size below which a bootstrap's interval is left out: of three it is from the least to the
greatest and holds the truth in 71 % of cases, of five in 90 % (normal scores)."""
CONFIDENCE = 0.95
Samples = Sequence[np.ndarray]
"""Scores of runs [runs], for each size of the system."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval; NaN bounds where there are too few runs for one."""

    estimate: float
    low: float
    high: float


def mean(sample: np.ndarray) -> Interval:
    """Of the scores of one size, with Student's interval, which holds for few runs as well."""
    middle, count = float(sample.mean()), len(sample)
    if count < 2:
        return Interval(middle, np.nan, np.nan)
    half = _stats().t.ppf((1 + CONFIDENCE) / 2, count - 1) * sample.std(ddof=1) / np.sqrt(count)
    return Interval(middle, middle - float(half), middle + float(half))


def interquartile_mean(samples: Samples) -> Interval:
    """The mean of the middle half of all scores."""
    trim_mean = _stats().trim_mean

    def middle(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    return _bootstrap(samples, middle)


def probability_of_improvement(these: Samples, those: Samples) -> Interval:
    """That a run of the first method scores higher than one of the second of the same size.

    A tie counts half: the mean over sizes of Mann and Whitney's U over the number of pairs.
    """
    sizes = len(these)

    def improvement(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = zip(samples[:sizes], samples[sizes:], strict=True)
        return np.mean([_wins(one, other) for one, other in pairs], axis=0)

    return _bootstrap([*these, *those], improvement)


def _wins(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The share of pairs that the first wins: [..., n] and [..., m] -> [...]."""
    difference = one[..., :, None] - other[..., None, :]
    return ((np.sign(difference) + 1) / 2).mean(axis=(-2, -1))


def _bootstrap(samples: Samples, statistic: Callable[..., np.ndarray]) -> Interval:
    estimate = float(statistic(*samples))
    if min(map(len, samples)) < ENOUGH:
        return Interval(estimate, np.nan, np.nan)
    interval = (
        _stats()
        .bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            vectorized=True,
            batch=1000,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        .confidence_interval
    )
    return Interval(estimate, float(interval.low), float(interval.high))


def _stats() -> Any:
    from scipy import stats  # of the extra report

    return stats
