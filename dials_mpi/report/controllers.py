"""Methods against the hand-coded policies of each system: final values, and when they pass the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.domains.decisions import decision_steps
from dials_mpi.report.groups import Group, best_controller, by_system, reference_levels
from dials_mpi.report.others import HOUR, Other
from dials_mpi.report.runs import RunData, System
from dials_mpi.report.runtimes import core_seconds
from dials_mpi.report.statistics import Interval, mean

NEVER = "-"
NO_INTERVAL = Interval(np.nan, np.nan, np.nan)
Cost = float | str
"""Until the mean over seeds passes the best policy, or NEVER; NaN if that is not known."""


class Method(NamedTuple):
    """One method on one system.

    final: over the seeds that are finished. beyond: whether the interval is on the better side of the best
    hand-coded policy, yes or no, "" if not known. effort: simulated hours, or steps in a domain without
    ``decision_every``. seconds: CPU time of all ranks in training, collecting data and fitting predictors.
    """

    seeds: int
    final: Interval
    beyond: str
    effort: Cost
    seconds: Cost


class Comparison(NamedTuple):
    """levels: of each policy that needs no training; best: the best hand-coded one, "" if there is none."""

    system: System
    levels: Mapping[str, float]
    best: str
    methods: Mapping[str, Method]


def comparisons(groups: Sequence[Group], others: Sequence[Other] = ()) -> list[Comparison]:
    """One for each system."""
    found = []
    for same in by_system(groups):
        levels, better = reference_levels(same), same[0].measure.better
        best = best_controller(levels, same[0].measure)
        target = np.nan if best is None else levels[best]
        sign = -1.0 if better == "higher" else 1.0
        methods = {group.label: _method(group, target, sign) for group in same}
        methods |= {
            other.label: _other_method(other, target, sign)
            for other in others
            if other.system == same[0].system
        }
        found.append(Comparison(same[0].system, levels, best or "", methods))
    return found


def effort_unit(groups: Sequence[Group]) -> str:
    """The unit of ``Method.effort``."""
    return "simulated hours" if _has_decisions(groups[0].runs[0]) else "steps"


def _has_decisions(run: RunData) -> bool:
    return hasattr(run.config.domain_section, "decision_every")


def _method(group: Group, target: float, sign: float) -> Method:
    """sign: 1 if lower values are better, -1 if higher ones are."""
    final = mean(group.scores) if group.scores.size else NO_INTERVAL
    runs = group.finished or group.runs
    length = min(len(run.env_steps) for run in runs)
    curve = np.mean([run.level[:length] for run in runs], axis=0)
    effort = runs[0].env_steps[:length]
    if _has_decisions(runs[0]):
        effort = effort * decision_steps(runs[0].config.domain_section) / HOUR
    seconds = np.mean([core_seconds(run)[:length] for run in runs], axis=0)
    beyond = _beyond(final, target, sign)
    return Method(group.scores.size, final, beyond, *_until(curve, target, sign, effort, seconds))


def _other_method(other: Other, target: float, sign: float) -> Method:
    """The CPU time of these runs is known as a whole, and is divided over their hours."""
    final = mean(other.values[:, -1])
    share = other.hours / other.hours[-1] if other.hours[-1] else np.full(len(other.hours), np.nan)
    costs = other.hours, other.cpu_seconds.mean() * share
    reached = _until(other.values.mean(axis=0), target, sign, *costs)
    return Method(len(other.values), final, _beyond(final, target, sign), *reached)


def _beyond(final: Interval, target: float, sign: float) -> str:
    worst = final.high if sign > 0 else final.low
    if np.isnan(worst) or np.isnan(target):
        return ""
    return "yes" if sign * worst < sign * target else "no"


def _until(curve: np.ndarray, target: float, sign: float, *costs: np.ndarray) -> tuple[Cost, Cost]:
    """Each cost [T] at the first evaluation whose mean [T] is better than the target."""
    if np.isnan(target):
        return np.nan, np.nan
    passed = np.flatnonzero(sign * curve < sign * target)
    effort, seconds = (cost[passed[0]].item() if passed.size else NEVER for cost in costs)
    return effort, seconds


# Tables --------------------------------------------------------------------------------------------------


def wide_rows(found: Sequence[Comparison], unit: str) -> list[dict[str, Any]]:
    """One row per system, with all columns; unit: of the effort."""
    return [
        {
            **_policies(found, one),
            **{
                f"{label}{heading}": value
                for label in _labels(found)
                for heading, value in _columns(one.methods.get(label), unit).items()
            },
        }
        for one in found
    ]


def final_rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One row per system: every policy, and each method's final mean with its interval as text."""
    rows = []
    for one in found:
        row = _policies(found, one)
        for label in _labels(found):
            method = one.methods.get(label)
            row[label] = "" if method is None else _as_text(method.final)
            row[f"{label}: better than the best"] = "" if method is None else method.beyond
        rows.append(row)
    return rows


def effort_rows(found: Sequence[Comparison], unit: str) -> list[dict[str, Any]]:
    """One row per system: what each method needs until its mean over seeds passes the best policy."""
    return [
        {
            **one.system.columns,
            "best controller": one.best,
            **{
                f"{label}, {heading}": "" if method is None else value
                for label in _labels(found)
                for method in [one.methods.get(label)]
                for heading, value in zip(
                    (unit, "core-seconds"), method[-2:] if method else ("", ""), strict=True
                )
            },
        }
        for one in found
    ]


def _policies(found: Sequence[Comparison], one: Comparison) -> dict[str, Any]:
    """The system, the level of each policy that any system has, and the best hand-coded one."""
    names = dict.fromkeys(name for other in found for name in other.levels)
    levels = {name: one.levels.get(name, np.nan) for name in names}
    return {**one.system.columns, **levels, "best controller": one.best}


def _labels(found: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(label for one in found for label in one.methods))


def _columns(method: Method | None, unit: str) -> dict[str, Any]:
    """The end of each heading, and the value."""
    shown = method or Method(0, NO_INTERVAL, "", np.nan, np.nan)
    return {
        "": shown.final.estimate,
        " from": shown.final.low,
        " to": shown.final.high,
        " finished seeds": shown.seeds,
        " better than the best controller": shown.beyond,
        f" {unit} until better": shown.effort,
        " core-seconds until better": shown.seconds,
    }


def _as_text(interval: Interval) -> str:
    """The estimate, and the bounds in brackets if they are known."""
    if np.isnan(interval.estimate):
        return ""
    if np.isnan(interval.low):
        return f"{interval.estimate:.4g}"
    return f"{interval.estimate:.4g} ({interval.low:.4g} to {interval.high:.4g})"
