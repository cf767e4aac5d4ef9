"""Differences of mean returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIGNIFICANT = 3.0
"""A difference counts if it is larger than this many standard errors."""

LARGEST_SHARE = 10.0


class Gap(NamedTuple):
    """A difference of mean returns, its standard error over episodes, and the mean that it refers to.

    typical: the mean size of the returns that the mean is of.
    """

    mean: float
    error: float
    level: float
    typical: float

    @property
    def significant(self) -> bool:
        """Whether it is larger than chance explains."""
        return abs(self.mean) > SIGNIFICANT * self.error

    @property
    def share(self) -> float | None:
        """Its share of the mean; None: the mean is near zero, since returns have both signs or are small."""
        near_zero = abs(self.level) < self.typical / 2 or abs(self.mean) > LARGEST_SHARE * abs(self.level)
        return None if near_zero or not self.level else self.mean / abs(self.level)

    def __str__(self) -> str:
        share = "" if self.share is None else f" ({self.share:+.1%})"
        return f"{self.mean:+.3g} ± {self.error:.2g}{share}"


def difference(these: np.ndarray, those: np.ndarray) -> Gap:
    """The difference of mean returns, from returns [A, E] paired by episode."""
    by_episode = these.mean(axis=0) - those.mean(axis=0)
    count = len(by_episode)
    error = by_episode.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Gap(float(by_episode.mean()), float(error), float(those.mean()), float(np.abs(those).mean()))
