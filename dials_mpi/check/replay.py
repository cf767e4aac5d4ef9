"""Definition 3: local simulators fed with the true influences of recorded global episodes.

Where a region's dynamics are the global ones, and it draws no random number of its own, it repeats what was
recorded to the bit. Else the difference of the means is measured, which says the less the more the sources
depend on those draws: then test the abstraction with draws that are shared. What the influence matters is
told by other sources in the same episodes: independent ones of the same frequencies, and the most frequent
ones alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.check.findings import Finding, good, note
from dials_mpi.check.play import Played, agents_of, play_globally, play_locally
from dials_mpi.domains.base import Domain
from dials_mpi.seeding import Purpose, streams

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


def check_replay(domain: Domain, seed: int, episodes: int) -> Iterator[Finding]:
    """The replay, and what the influence matters."""
    recorded = play_globally(domain, seed, episodes)
    regions = range(len(domain.regions))
    actions = recorded_actions(domain, recorded)
    true = play_locally(domain, seed, regions, episodes, recorded.sources, actions)
    yield _replayed(domain, recorded, true)
    yield from _other_sources(domain, seed, recorded, actions, true)


def recorded_actions(domain: Domain, recorded: Played) -> list[np.ndarray]:
    """The recorded actions of all agents, in the order in which regions hold them."""
    order = agents_of(domain, range(len(domain.regions)))
    return [actions[order] for actions in recorded.actions]


def _replayed(domain: Domain, recorded: Played, local: Played) -> Finding:
    what = "true sources fed to the local simulators (Definition 3)"
    order = agents_of(domain, range(len(domain.regions)))
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
        "recording, and its means differ as far as the true sources depend on what was drawn there"
        + ("; if they do not, this is a fault of the local simulator" if gap.sure else ""),
    )


def _other_sources(
    domain: Domain, seed: int, recorded: Played, actions: Sequence[np.ndarray], true: Played
) -> Iterator[Finding]:
    regions = range(len(domain.regions))
    episodes = recorded.returns.shape[1]
    gaps = []
    for what, sources in (
        ("independent sources of the same frequencies", _marginal(domain, seed, recorded)),
        ("the most frequent sources alone", _most_frequent(domain, recorded)),
    ):
        local = play_locally(domain, seed, regions, episodes, sources, actions)
        gap = difference(local.returns, true.returns)
        gaps.append(gap)
        yield note(what, f"change the mean return of random policies by {gap}")
    matters = any(gap.sure for gap in gaps)
    yield (good if matters else note)(
        "the influence matters",
        "already to random policies"
        if matters
        else "not to random policies, as far as these episodes show: try more --episodes",
    )


def difference(these: np.ndarray, those: np.ndarray) -> Gap:
    """Of mean returns [A, E], paired by episode."""
    by_episode = these.mean(axis=0) - those.mean(axis=0)
    count = len(by_episode)
    error = by_episode.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Gap(float(by_episode.mean()), float(error), float(those.mean()))


def frequencies(recorded: Played, region: int, classes: Sequence[int]) -> list[np.ndarray]:
    """Of the classes of each source of a region, in the recorded episodes."""
    values = np.stack([sources[region] for sources in recorded.sources]).reshape(-1, len(classes))
    return [np.bincount(values[:, m], minlength=count) / len(values) for m, count in enumerate(classes)]


def _marginal(domain: Domain, seed: int, recorded: Played) -> list[list[np.ndarray]]:
    episodes, every = recorded.returns.shape[1], streams(seed, Purpose.SOURCES, len(domain.regions))
    rows: list[list[np.ndarray]] = [[] for _ in recorded.sources]
    for k, region in enumerate(domain.regions):
        known = frequencies(recorded, k, region.source_classes)
        drawn = [every[k].choice(len(p), size=(len(rows), episodes), p=p) for p in known]
        for t, row in enumerate(rows):
            row.append(np.stack([values[t] for values in drawn], axis=1))
    return rows


def _most_frequent(domain: Domain, recorded: Played) -> list[list[np.ndarray]]:
    episodes = recorded.returns.shape[1]
    row = []
    for k, region in enumerate(domain.regions):
        usual = [int(p.argmax()) for p in frequencies(recorded, k, region.source_classes)]
        row.append(np.tile(usual, (episodes, 1)))
    return [row] * len(recorded.sources)
