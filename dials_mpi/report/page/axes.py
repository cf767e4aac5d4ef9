"""Axes of charts: limits, round ticks, places in the drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LOG_STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
MOST_TICKS = 8
SPACE = 0.05  # beyond the lowest and the highest value, as a share of their distance


class Axis(NamedTuple):
    """low, high: the limits. start, end: their places in the drawing. ticks: values and their texts."""

    name: str
    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: Sequence[tuple[float, str]]

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """The places of values, with NaN where a value has none."""
        values = np.asarray(values, float)
        low, high = self.low, self.high
        if self.log:
            values = np.log(np.where(values > 0, values, np.nan))
            low, high = np.log([low, high])
        return self.start + (values - low) / (high - low) * (self.end - self.start)


def axis(
    name: str,
    values: np.ndarray,
    start: float,
    end: float,
    log: bool = False,
    zero: bool = False,
    text: Callable[[float], str] = "{:g}".format,
) -> Axis:
    """An axis for these values. zero: it begins at 0 if no value is negative. text: of a tick."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    if log:
        low, high = low / 1.1, high * 1.1
        return Axis(name, low, high, start, end, True, [(v, text(v)) for v in _log_ticks(low, high)])
    space = SPACE * (high - low) or SPACE * abs(high) or 1.0
    low, high = (0.0 if zero and low >= 0 else low - space), high + space
    return Axis(name, low, high, start, end, False, [(v, text(v)) for v in _ticks(low, high)])


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round values between the limits."""
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(s * power for s in (*ROUND_STEPS, 20.0) if (high - low) / (s * power) <= most - 0.5)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") + 0.0 for k in np.arange(first, last + 1)]  # + 0.0: no -0


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values between positive limits: as many in each decade as there is room for."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    choices = [
        [float(f"{step * power:.10g}") for power in powers for step in steps if low <= step * power <= high]
        for steps in LOG_STEPS
    ]
    found = max((ticks for ticks in choices if len(ticks) <= MOST_TICKS), key=len, default=choices[0])
    return found if len(found) > 1 else _ticks(low, high)
