"""Methods compared seed by seed: differences between runs of the same seed, from the first method.

Runs of one seed have much in common: the start of the networks and, in a study, the evaluation episodes. The
difference of two methods is therefore known better than either mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.algorithm.evaluation import paired
from dials_mpi.config.schedule import segments
from dials_mpi.report.groups import Group, by_system
from dials_mpi.report.runs import RETURN, RunData
from dials_mpi.report.statistics import Interval, mean


class Comparison(NamedTuple):
    """A method and the first one on a system; pairs: their finished runs of the same seed, by seed.

    alone: seeds of finished runs of either method that the other has no finished run of.
    """

    method: Group
    first: Group
    pairs: Mapping[int, tuple[RunData, RunData]]
    alone: Sequence[int]


def comparisons(groups: Sequence[Group]) -> list[Comparison]:
    """Each method with the first one, by system; none where either has no finished run."""
    found = []
    for same in by_system(groups):
        first = _first(same, groups)
        others = [group for group in same if group is not first and group.finished]
        found += [_comparison(group, first) for group in others if first.finished]
    return found


def _first(same: Sequence[Group], groups: Sequence[Group]) -> Group:
    """The first method of the report, if the system has it; else the system's own first one."""
    return next((group for group in same if group.label == groups[0].label), same[0])


def _comparison(method: Group, first: Group) -> Comparison:
    ours, theirs = ({run.config.seed: run for run in group.finished} for group in (method, first))
    pairs = {seed: (ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs)}
    return Comparison(method, first, pairs, sorted(ours.keys() ^ theirs))


def difference_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The mean difference over the seeds that both methods have, with Student's interval."""
    return [
        {**_who(one), "seeds": len(one.pairs), **_columns(_over_seeds(one))}
        for one in comparisons(groups)
        if one.pairs
    ]


def seed_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The difference of each seed, with its standard error over the episodes that both runs have played."""
    return [
        {**_who(one), "seed": seed, **_of_seed(*pair)}
        for one in comparisons(groups)
        for seed, pair in one.pairs.items()
    ]


def notes(groups: Sequence[Group]) -> list[str]:
    """Which seeds are in no difference, and why there may be no standard error."""
    lines = [
        f"{one.method.label} minus {one.first.label}, {one.method.system.title}: {_about(one)}"
        for one in comparisons(groups)
        if one.alone
    ]
    lines += [
        f"{same[0].system.title}: no finished run of {first.label}, so no paired difference."
        for same in by_system(groups)
        if not (first := _first(same, groups)).finished and any(group.finished for group in same)
    ]
    pairs = [pair for one in comparisons(groups) for pair in one.pairs.values()]
    if pairs:
        lines.append(
            "Paired differences: a method's run minus the first method's run of the same seed; their 95 % "
            "interval is Student's t over seeds, the standard error of one seed is over episodes."
        )
    if any(not same_episodes(*pair) for pair in pairs):
        lines.append(
            "A pair of runs without a standard error was evaluated on different episodes "
            "(studies set evaluation_seed, with which all runs share them)."
        )
    return lines


def _about(one: Comparison) -> str:
    """What is said of seeds without a pair."""
    if not one.pairs:
        return "no seed in common, so no paired difference."
    return f"seed {', '.join(map(str, one.alone))} of one method alone is in no paired difference."


def same_episodes(one: RunData, other: RunData) -> bool:
    """Whether the last evaluations of two finished runs are of the same episodes, number by number."""
    return _episodes(one) == _episodes(other)


def _episodes(run: RunData) -> tuple[int, int, int]:
    """What the random streams of the last evaluation depend on, and the number of episodes."""
    config = run.config
    segment = 0 if config.shares_episodes else len(segments(config))
    return config.episodes_seed, segment, run.returns.shape[1]


def _over_seeds(one: Comparison) -> Interval:
    return mean(np.array([ours.level[-1] - theirs.level[-1] for ours, theirs in one.pairs.values()]))


def _of_seed(ours: RunData, theirs: RunData) -> dict[str, float]:
    difference = float(ours.level[-1] - theirs.level[-1])
    known = same_episodes(ours, theirs)
    error = paired(_values(ours), _values(theirs)).standard_error if known else np.nan
    return {"difference": difference, "standard error": error}


def _values(run: RunData) -> np.ndarray:
    """The measure in each episode of the last evaluation [E]."""
    if run.measure is RETURN:
        return run.returns[-1].mean(axis=1)
    return run.statistics[run.measure.name][-1]


def _who(one: Comparison) -> dict[str, Any]:
    return {"method": one.method.label, "minus": one.first.label, **one.method.system.columns}


def _columns(interval: Interval) -> dict[str, float]:
    return {"difference": interval.estimate, "from": interval.low, "to": interval.high}
