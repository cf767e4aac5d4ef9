"""Timing of each rank: wall-clock and CPU seconds per phase of Algorithm 1."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

PHASES = ("collect", "influence", "train", "wait", "communicate", "evaluate")
"""``wait``: until all ranks have reached an exchange; ``communicate``: the exchange itself."""


class Stopwatch:
    """seconds: per phase since the last ``take``, float64 [len(PHASES), 2], (wall, CPU).

    The time of a block inside another block counts for the inner phase alone.
    """

    def __init__(self) -> None:
        self.seconds = np.zeros((len(PHASES), 2))
        self._inner = np.zeros(2)  # of the blocks that have ended inside the current one

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the block to ``phase``."""
        outer, self._inner = self._inner, np.zeros(2)
        begun = _now()
        try:
            yield
        finally:
            spent = _now() - begun
            self.seconds[PHASES.index(phase)] += spent - self._inner
            self._inner = outer + spent

    def take(self) -> np.ndarray:
        """Return the seconds so far and reset them to zero."""
        seconds, self.seconds = self.seconds, np.zeros((len(PHASES), 2))
        return seconds


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])
