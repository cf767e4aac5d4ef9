"""Definition 3: local simulators under the true influence sources of recorded global episodes.

A region with the global dynamics and without random numbers of its own repeats the recording exactly. For
others the difference of mean returns is measured. It says little if the sources depend on those random
numbers; then test the abstraction with shared random numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dials_mpi.check.findings import Finding, good, note
from dials_mpi.check.play import Played, agents_of, play_locally
from dials_mpi.domains.base import Domain

SIGNIFICANT = 2.0
"""A difference counts if it is larger than this many standard errors."""


class Gap(NamedTuple):
    """A difference of mean returns, its standard error over episodes, and the mean that it refers to."""

    mean: float
    error: float
    level: float

    @property
    def significant(self) -> bool:
        """Whether it is larger than chance explains."""
        return abs(self.mean) > SIGNIFICANT * self.error

    def __str__(self) -> str:
        share = f" ({self.mean / abs(self.level):+.1%})" if self.level else ""
        return f"{self.mean:+.3g} ± {self.error:.2g}{share}"


def check_replay(domain: Domain, seed: int, recorded: Played) -> Finding:
    """Whether local simulators, given the actions and sources of recorded global episodes, repeat them."""
    what = "local simulators under the true sources (Definition 3)"
    regions = range(len(domain.regions))
    order, episodes = agents_of(domain, regions), recorded.returns.shape[1]
    actions = [row[order] for row in recorded.actions]
    local = play_locally(domain, seed, regions, episodes, recorded.sources, actions)
    seen, rewarded, total = 0, 0, 0
    for t, (state, mine) in enumerate(zip(recorded.states[1:], local.states[1:], strict=True)):
        for place, i in enumerate(order):
            same = np.asarray(state.observations[i]) == np.asarray(mine.observations[place])
            seen += int(same.all(axis=1).sum())
            rewarded += int((recorded.rewards[t][i] == local.rewards[t][place]).sum())
            total += same.shape[0]
    if seen == rewarded == total:
        return good(what, "they repeat the recording exactly: the abstraction is exact")
    gap = difference(local.returns, recorded.returns[order])
    return note(
        what,
        f"{seen / total:.1%} of the observations and {rewarded / total:.1%} of the rewards are as recorded, "
        f"and the mean return differs by {gap}: a region with random numbers of its own cannot repeat a "
        "recording, and its mean differs if the sources and actions depend on these numbers"
        + ("; if they do not, this is a fault of the local simulator" if gap.significant else ""),
    )


def difference(these: np.ndarray, those: np.ndarray) -> Gap:
    """The difference of mean returns, from returns [A, E] paired by episode."""
    by_episode = these.mean(axis=0) - those.mean(axis=0)
    count = len(by_episode)
    error = by_episode.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Gap(float(by_episode.mean()), float(error), float(those.mean()))
