"""Statistics for few runs: means, interquartile means and probabilities of improvement, with intervals.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice". A run's score
is its final return, the mean over episodes and agents; agents of a run are not independent, so a run is one
sample. The bootstrap of interquartile means is stratified: runs are resampled within each size of the
system. Probabilities have the interval of Newcombe (2006), "Confidence intervals for an effect size measure
based on the Mann-Whitney statistic", part 2, method 5: a bootstrap interval has no width where all runs of
one method score higher than all of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000
ENOUGH = 5
"""The fewest runs of each size for a bootstrap interval. With normal scores, the interval of three runs
contains the true value in 71 % of cases, that of five runs in 90 %."""
CONFIDENCE = 0.95
TINY = 1e-9
Samples = Sequence[np.ndarray]
"""Scores of runs [runs], for each size of the system."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval; NaN bounds where there are too few runs for one."""

    estimate: float
    low: float
    high: float


def mean(sample: np.ndarray) -> Interval:
    """The mean of the scores of one size, with Student's interval, which is valid for few runs."""
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
    """The probability that a run of the first method scores higher than one of the second, of one size.

    It is the mean over sizes of Mann and Whitney's U divided by the number of pairs; a tie counts half.
    Single runs give no interval.
    """
    parts = np.array([_improvement(one, other) for one, other in zip(these, those, strict=True)])
    estimates, lows, highs = parts.T
    middle = estimates.mean()
    # Sizes are independent: their distances from the bounds add up like standard errors.
    below, above = (np.sqrt(((estimates - bounds) ** 2).sum()) / len(parts) for bounds in (lows, highs))
    return Interval(float(middle), float(middle - below), float(middle + above))


def _improvement(one: np.ndarray, other: np.ndarray) -> Interval:
    """Within one size: the share of pairs where the first scores higher, with Newcombe's interval."""
    wins = float(((np.sign(one[:, None] - other) + 1) / 2).mean())
    if min(len(one), len(other)) < 2:
        return Interval(wins, np.nan, np.nan)
    pairs, more = len(one) * len(other), (len(one) + len(other)) / 2 - 1
    z = _stats().norm.ppf((1 + CONFIDENCE) / 2)

    def beyond(p: float) -> float:
        """Negative for probabilities under which the share is within z standard deviations."""
        variance = p * (1 - p) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p))) / pairs
        return (p - wins) ** 2 - z**2 * variance

    root = _optimize().brentq
    low = root(beyond, 0, wins - TINY) if wins > TINY else 0.0
    high = root(beyond, wins + TINY, 1) if wins < 1 - TINY else 1.0
    return Interval(wins, low, high)


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


def _optimize() -> Any:
    from scipy import optimize

    return optimize
