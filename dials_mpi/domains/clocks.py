"""The step counters of episodes that run side by side."""

from __future__ import annotations

import numpy as np


class Clocks:
    """The step counters of E episodes. gone: int [E], number of steps since the start of each."""

    def __init__(self, episodes: int, horizon: int) -> None:
        self.gone = np.zeros(episodes, dtype=np.int64)
        self._horizon = horizon

    def restart(self, where: np.ndarray | None, elapsed: np.ndarray | None) -> np.ndarray:
        """Set the counters in the mask ``where`` (bool [E], default all) to ``elapsed`` (int [E], default 0).

        Returns the mask.
        """
        where = np.ones(len(self.gone), dtype=bool) if where is None else np.asarray(where, dtype=bool)
        self.gone[where] = 0 if elapsed is None else np.asarray(elapsed)[where]
        return where

    def tick(self) -> np.ndarray:
        """Count one step; returns bool [E], the time limit is reached."""
        self.gone += 1
        return self.gone >= self._horizon
