"""Definition 3: local simulators fed with the true influences of recorded global episodes.

Where a region's dynamics are the global ones, and it draws no random number of its own, it repeats what was
recorded to the bit. Else the difference of the means is measured, which says the less the more the sources
depend on those draws: then test the abstraction with draws that are shared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dials_mpi.check.findings import Finding, good, note
from dials_mpi.check.play import Played, agents_of, play_locally
from dials_mpi.domains.base import Domain

SURE = 2.0
"""Standard errors of a difference that is taken for one."""


class Gap(NamedTuple):
    """A difference of mean returns, its standard error over episodes, and what it is a difference to."""

    mean: float
    error: float
    level: float

    @property
    def sure(self) -> bool:
        """Whether it is larger than chance makes it."""
        return abs(self.mean) > SURE * self.error

    def __str__(self) -> str:
        share = f" ({self.mean / abs(self.level):+.1%})" if self.level else ""
        return f"{self.mean:+.3g} ± {self.error:.2g}{share}"


def check_replay(domain: Domain, seed: int, recorded: Played) -> Finding:
    """Whether local simulators, given the actions and sources of recorded global episodes, repeat them."""
    what = "true sources fed to the local simulators (Definition 3)"
    regions = range(len(domain.regions))
    order, episodes = agents_of(domain, regions), recorded.returns.shape[1]
    actions = [row[order] for row in recorded.actions]
    local = play_locally(domain, seed, regions, episodes, recorded.sources, actions)
    seen, paid, total = 0, 0, 0
    for t, (state, mine) in enumerate(zip(recorded.states[1:], local.states[1:], strict=True)):
        for place, i in enumerate(order):
            same = np.asarray(state.observations[i]) == np.asarray(mine.observations[place])
            seen += int(same.all(axis=1).sum())
            paid += int((recorded.rewards[t][i] == local.rewards[t][place]).sum())
            total += same.shape[0]
    if seen == paid == total:
        return good(what, "they repeat what was recorded, to the bit: the abstraction is exact")
    gap = difference(local.returns, recorded.returns[order])
    return note(
        what,
        f"{seen / total:.1%} of the observations and {paid / total:.1%} of the rewards are as recorded, and "
        f"the mean return differs by {gap}: a region that draws random numbers of its own cannot repeat a "
        "recording, and its means differ as far as the sources and actions depend on what was drawn there"
        + ("; if they do not, this is a fault of the local simulator" if gap.sure else ""),
    )


def difference(these: np.ndarray, those: np.ndarray) -> Gap:
    """Of mean returns [A, E], paired by episode."""
    by_episode = these.mean(axis=0) - those.mean(axis=0)
    count = len(by_episode)
    error = by_episode.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Gap(float(by_episode.mean()), float(error), float(those.mean()))
