"""Definition 3: local simulators under the true influence sources of recorded global episodes.

A local simulator repeats a recording if its regions draw no random numbers, or get the recorded ones
(``RegionDraws``). Otherwise the means over time of all that it gives are compared, under random policies:
the actions of other policies depend on the recorded random numbers, and say nothing under new ones.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.check.chance import LEVEL, ROUNDING, detectable, improbability, over_all
from dials_mpi.check.draws import Replay, untouched
from dials_mpi.check.findings import Breach, Finding, good, note, wrong
from dials_mpi.check.gaps import SIGNIFICANT, Gap, difference
from dials_mpi.check.play import Played, agents_of, play_globally, play_locally
from dials_mpi.domains.base import Domain

WHAT = "local simulators under the true sources (Definition 3)"

ENOUGH = 25
"""Below this number of episodes means are not judged: chance may explain almost any difference."""

SUSPICIOUS, MORE = 0.05, 8
"""A p-value below which the verdict comes from so many times as many other episodes."""

FAMILIES = 2
"""The mean return; and all other quantities."""

SHARE = (
    "If the sources depend on random numbers that the region draws, this comparison is not valid: add "
    "region_draws() to the global simulator (docs/domain.md), which makes the replay exact. If they do not, "
    "the local simulator is at fault"
)


class Series(NamedTuple):
    """Numbers of an agent or of a region in all steps, [T, E, D]; first: the step of its first row."""

    name: str
    region: int
    first: int
    values: np.ndarray


def check_replay(domain: Domain, seed: int, recorded: Played, random_policies: bool = True) -> Finding:
    """Whether local simulators, given the actions and sources of recorded global episodes, repeat them.

    random_policies: the recorded actions are independent of the observations.
    """
    try:
        local = _repeated(domain, seed, recorded)
    except Breach as breach:
        return wrong(WHAT, str(breach))
    true = _in_order(domain, recorded)
    seen = _first_difference(domain, true, local)
    if not seen:
        other = _other_draws([stream for stream in local.streams if isinstance(stream, Replay)])
        exact = good(WHAT, "they repeat the recording: the abstraction is exact")
        return wrong(WHAT, other) if other else exact
    if recorded.draws is not None:
        return wrong(WHAT, f"given the recorded random numbers, {seen}; {_difference(true, local)}")
    fixed = _without_chance(domain, seed, recorded, local)
    tolerance = getattr(domain, "return_tolerance", None)
    if tolerance is None and (seen := _first_difference(domain, true, local, fixed)):
        why = f"this region's local simulator draws no random numbers; {_difference(true, local)}"
        return wrong(WHAT, f"{seen}, and {why}")
    if not random_policies:
        true, local = _played_again(domain, seed, recorded.returns.shape[1])
    return _judged(domain, seed, true, local) if tolerance is None else _tolerated(true, local, tolerance)


def _played_again(domain: Domain, seed: int, episodes: int) -> tuple[Played, Played]:
    """Other episodes of random policies, recorded and repeated."""
    recorded = play_globally(domain, seed, episodes)
    return _in_order(domain, recorded), _repeated(domain, seed, recorded)


def _repeated(domain: Domain, seed: int, recorded: Played) -> Played:
    """The recorded episodes in the local simulators. Breach: they do not draw what was recorded."""
    regions = range(len(domain.regions))
    order, episodes = agents_of(domain, regions), recorded.returns.shape[1]
    actions = [row[order] for row in recorded.actions]
    return play_locally(domain, seed, regions, episodes, recorded.sources, actions, draws=recorded.draws)


def _in_order(domain: Domain, recorded: Played) -> Played:
    """The recording, with the agents in the order of the local simulators: region after region."""
    regions = range(len(domain.regions))
    return recorded.part(agents_of(domain, regions), regions)


def _series(domain: Domain, played: Played) -> Iterator[Series]:
    """The rewards and observations of each agent, and the inputs of each region, in local order."""
    states, place = played.states, 0
    for k, region in enumerate(domain.regions):
        for i in region.agents:
            rewards = np.stack([np.asarray(step[place])[:, None] for step in played.rewards])
            yield Series(f"reward of agent {i}", k, 1, rewards)
            seen = np.stack([np.asarray(state.observations[place]) for state in states])
            yield Series(f"observation of agent {i}", k, 0, seen)
            place += 1
        yield Series(
            f"predictor's input of region {k}",
            k,
            0,
            np.stack([np.asarray(state.inputs[k]) for state in states]),
        )


def _pairs(domain: Domain, one: Played, other: Played) -> Iterator[tuple[Series, Series]]:
    return zip(_series(domain, one), _series(domain, other), strict=True)


def _unequal(one: Series, other: Series) -> np.ndarray:
    """Where two series differ by more than rounding, bool [T, E, D]."""
    values = one.values.astype(np.float64)
    return np.asarray(np.abs(values - other.values) > ROUNDING * np.abs(values).max())


def _first_difference(
    domain: Domain, true: Played, local: Played, regions: Container[int] | None = None
) -> str:
    """Where and how the earliest difference in some regions (None: in all) shows; "": there is none."""
    found = []
    for one, other in _pairs(domain, true, local):
        places = np.argwhere(_unequal(one, other))
        if len(places) and (regions is None or one.region in regions):
            t, e, d = places[0]
            number = f"number {d} of the" if one.values.shape[2] > 1 else "the"
            values = f"{other.values[t, e, d]:.4g}, and {one.values[t, e, d]:.4g} in the recording"
            found.append((t + one.first, f"{number} {one.name} after step {t + one.first} is {values}"))
    return min(found, default=(0, ""))[1]


def _difference(true: Played, local: Played) -> str:
    return f"the mean return differs by {difference(local.returns, true.returns)}"


def _without_chance(domain: Domain, seed: int, recorded: Played, local: Played) -> set[int]:
    """The regions whose local simulators draw nothing, and are the same under another seed."""
    quiet = {k for k, stream in enumerate(local.streams) if untouched(stream, seed, k)}
    if not quiet:
        return quiet
    again = _repeated(domain, seed + 1, recorded)
    return quiet - {one.region for one, other in _pairs(domain, local, again) if _unequal(one, other).any()}


def _other_draws(replays: Sequence[Replay]) -> str:
    """Which local simulator asks its generator for numbers that are distributed otherwise; "": none does."""
    methods = [(replay, name, gaps) for replay in replays for name, gaps in replay.gaps.items()]
    found = [improbability(np.concatenate(gaps), np.zeros(2)) for *_, gaps in methods]
    if not found or over_all([np.stack(found)]) >= LEVEL:
        return ""
    replay, name, gaps = methods[int(np.argmin([p.min() for p in found]))]
    mean, square = np.concatenate(gaps).mean(axis=0)
    return (
        f"the numbers that the local simulator of {replay.where} draws by {name}() are not distributed as "
        f"those of region_draws(): their mean differs by {mean:+.3g}, their mean square by {square:+.3g}"
    )


def _judged(domain: Domain, seed: int, true: Played, local: Played) -> Finding:
    """Whether means differ; a suspicion is followed up with other episodes, and more of them."""
    finding, p = _compared(domain, true, local)
    if LEVEL <= p < SUSPICIOUS:
        finding, _ = _compared(domain, *_played_again(domain, seed + 1, MORE * true.returns.shape[1]))
    return finding


class Comparison(NamedTuple):
    """A mean over time and episodes, locally and as recorded; p: of the null hypothesis that they agree."""

    p: float
    name: str
    local: float
    true: float


def _compared(domain: Domain, true: Played, local: Played) -> tuple[Finding, float]:
    """Compare the mean return, and the means over time of all numbers and their squares. Also the p-value."""
    episodes, gap = true.returns.shape[1], difference(local.returns, true.returns)
    if episodes < ENOUGH:
        return _too_few(gap, episodes), 1.0
    whole = _compare("return", local.returns.mean(axis=0)[:, None], true.returns.mean(axis=0)[:, None])
    others = [found for pair in _pairs(domain, true, local) for found in _means(*pair)]
    p = over_all([np.array([found.p for found in family]) for family in (whole, others)])
    count = f"{len(whole) + len(others)} comparisons"
    if p >= LEVEL:
        shown = detectable(gap.error, episodes, FAMILIES)
        told = (
            f"no difference beyond chance (p = {p:.2g} over {count}): {_differs(gap, episodes)}, and a "
            f"difference of {shown:.2g} would show; more --episodes show smaller ones"
        )
        return good(WHAT, told), p
    worst = min(others)
    told = (
        f"different beyond chance (p = {p:.2g} over {count}): {_differs(gap, episodes)}; the least probable: "
        f"the mean {worst.name} is {worst.local:.4g}, and {worst.true:.4g} in the recording. {SHARE}"
    )
    return wrong(WHAT, told), p


def _too_few(gap: Gap, episodes: int) -> Finding:
    return note(WHAT, f"{_differs(gap, episodes)}: give --episodes {ENOUGH} or more for a verdict")


def _differs(gap: Gap, episodes: int) -> str:
    return f"the mean return of random policies differs by {gap} in {episodes} episodes"


def _means(true: Series, local: Series) -> Iterator[Comparison]:
    """Of each number and of its square."""
    for square in ("", "square of the "):
        values = [np.asarray(series.values, np.float64) for series in (local, true)]
        means = [np.mean(value**2 if square else value, axis=0) for value in values]
        yield from _compare(f"{square}{true.name}", *means)


def _compare(name: str, local: np.ndarray, true: np.ndarray) -> list[Comparison]:
    """The comparisons of D numbers in E episodes, [E, D] each."""
    p, width = improbability(local, true), true.shape[1]
    names = [f"{name}, number {d}" if width > 1 else name for d in range(width)]
    return [
        Comparison(*row)
        for row in zip(p.tolist(), names, local.mean(0).tolist(), true.mean(0).tolist(), strict=True)
    ]


def _tolerated(true: Played, local: Played, tolerance: float) -> Finding:
    """Whether the mean return differs by no more than the domain allows for its approximation."""
    gap, episodes = difference(local.returns, true.returns), true.returns.shape[1]
    if episodes < ENOUGH:
        return _too_few(gap, episodes)
    allowed = tolerance * abs(gap.level)
    told = f"{_differs(gap, episodes)}; the domain's approximation allows {tolerance:.0%}"
    if abs(gap.mean) - SIGNIFICANT * gap.error > allowed:
        return wrong(WHAT, told)
    if abs(gap.mean) + SIGNIFICANT * gap.error <= allowed:
        return good(WHAT, told)
    return note(WHAT, f"{told}: more --episodes tell whether this is kept")
