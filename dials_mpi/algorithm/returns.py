"""Returns of training episodes."""

from __future__ import annotations

import numpy as np

from dials_mpi.algorithm.ials import Outcome


class EpisodeReturns:
    """Undiscounted returns of N agents in E environments, for episodes played from their first step on."""

    def __init__(self, agents: int, elapsed: np.ndarray) -> None:
        self.total, self.count = np.zeros(agents), 0
        self.drop(elapsed)

    def drop(self, elapsed: np.ndarray) -> None:
        """All episodes start again; elapsed int [E]: the steps that they have behind them."""
        self.whole = elapsed == 0
        self.running = np.zeros((len(self.total), len(elapsed)))

    def add(self, outcome: Outcome) -> None:
        """Count one decision."""
        self.running += outcome.rewards
        if outcome.done.any():
            finished = outcome.done & self.whole
            self.total += self.running[:, finished].sum(1)
            self.count += finished.sum()
            self.running[:, outcome.done] = 0
            self.whole = self.whole | outcome.done

    def means(self) -> np.ndarray:
        """Mean return per agent, float64 [N]; NaN if no such episode has ended."""
        return self.total / self.count if self.count else np.full_like(self.total, np.nan)
