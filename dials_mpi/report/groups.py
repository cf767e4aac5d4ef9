"""Groups of runs that differ only in their seed: averages, labels and colours."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, groupby
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.domains import find
from dials_mpi.domains.base import Statistic
from dials_mpi.report.runs import Refits, RunData, System, mean_of_known, standard_error, training
from dials_mpi.results.style import RGB, look

METHODS = {"dials": "DIALS", "untrained": "untrained", "global": "global simulator"}
MAX_LABEL_SETTINGS = 3
"""The most settings that a label names beside F; with more, it names a run instead."""
LONGEST_NAME = 30
REFIT_LIMITS = (2, 7, 13)
"""Numbers of refits at which line and colour change: once, a few times (4), some (8), many times (40)."""


class Curve(NamedTuple):
    """Steps per agent, mean and standard error, [T] each; NaN where there is no standard error."""

    env_steps: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ in their seed, and how they are drawn."""

    runs: Sequence[RunData]
    label: str
    colour: RGB
    line: Any
    missing: Sequence[int] = ()
    """Seeds that other groups of the same system have."""

    @property
    def agents(self) -> int:
        """The number of agents N."""
        return self.runs[0].agents

    @property
    def system(self) -> System:
        """The system that the runs are of."""
        return self.runs[0].system

    @property
    def measure(self) -> Statistic:
        """What curves and scores are of."""
        return self.runs[0].measure

    @cached_property
    def curve(self) -> Curve:
        """Mean of the measure, with the standard error over seeds or, for a single run, over its episodes."""
        curve = self.average([run.level for run in self.runs])
        if len(self.runs) == 1:
            return curve._replace(standard_error=self.runs[0].level_error)
        return curve

    @cached_property
    def cross_entropy(self) -> Curve | None:
        """Nats per source, averaged over regions and seeds; None without predictors."""
        losses = [run.cross_entropy for run in self.runs if run.cross_entropy is not None]
        return self.average(losses) if losses else None

    @cached_property
    def refits(self) -> Refits | None:
        """At each refit the mean over the runs that have reached it; None without refits."""
        parts = [run.refits for run in self.runs if run.refits is not None]
        if not parts:
            return None
        return Refits(*(np.nanmean(_padded(column), axis=0) for column in zip(*parts, strict=True)))

    @property
    def finished(self) -> list[RunData]:
        """The finished runs."""
        return [run for run in self.runs if run.finished]

    @property
    def scores(self) -> np.ndarray:
        """The final value of the measure of each finished run."""
        return np.array([run.level[-1] for run in self.finished])

    @property
    def unfinished(self) -> list[RunData]:
        """The unfinished runs."""
        return [run for run in self.runs if not run.finished]

    def average(self, values: Sequence[np.ndarray]) -> Curve:
        """At each step the mean over the runs that have reached it."""
        rows = _padded(values)
        steps = max((run.env_steps for run in self.runs), key=len)
        return Curve(steps, mean_of_known(rows.T), standard_error(rows))


def group_runs(runs: Sequence[RunData]) -> list[Group]:
    """Group runs that differ only in their seed, in order of system, method, and descending F.

    The methods of a study have its names and order.
    Groups with one label, in different systems, have one colour and line; so has each F in all
    reports.
    """
    seeds = _by_configuration(runs)
    labels = _named_by_study(_labels(seeds), seeds)
    known: dict[System, set[int]] = {run.system: set() for run in runs}
    for run in runs:
        known[run.system].add(run.config.seed)
    looks: dict[str, dict[str, int]] = {method: {} for method in METHODS}
    for label, group in zip(labels, seeds, strict=True):
        own = looks[_method(group)]
        if label not in own:
            own[label] = _free_look(group[0].config, own.values())
    return [
        Group(group, label, *look(_method(group), looks[_method(group)][label]), _others(known, group))
        for label, group in zip(labels, seeds, strict=True)
    ]


def _free_look(config: Config, taken: Collection[int]) -> int:
    """The number of a colour and line, given by the number of refits; the next free one if it is taken."""
    refits = -(-config.total_steps // _without_seed(config).retrain_every)
    usual = bisect(REFIT_LIMITS, refits)
    return usual if usual not in taken else next(k for k in count() if k not in taken)


def _by_configuration(runs: Sequence[RunData]) -> list[list[RunData]]:
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(_without_seed(run.config).digest(), []).append(run)
    methods, orders = list(METHODS), [run.membership.order for run in runs if run.membership]

    def place(group: Sequence[RunData]) -> tuple[System, int, int]:
        config = group[0].config
        if len(orders) == len(runs):  # all are of a study
            return group[0].system, min(run.membership.order for run in group if run.membership), 0
        return group[0].system, methods.index(config.mode), -_without_seed(config).retrain_every

    return sorted(groups.values(), key=place)


def labels_of(groups: Sequence[Group]) -> dict[str, str]:
    """The label of each run's group, by the run's name."""
    return {run.name: group.label for group in groups for run in group.runs}


def by_system(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups of each system, the system with the fewest agents first."""
    ordered = sorted(groups, key=lambda group: group.system)
    return [list(same) for _, same in groupby(ordered, lambda group: group.system)]


def reference_levels(groups: Sequence[Group]) -> dict[str, float]:
    """The mean of the measure for hand-coded policies, then the random one, over the runs that have them."""
    runs = [run for group in groups for run in group.runs]
    domain: type[Any] = find(runs[0].config.domain)[0]
    return {
        name: float(np.mean([run.reference_levels[name] for run in runs if name in run.reference_levels]))
        for name in (*domain.hand_coded, "random")
        if any(name in run.reference_levels for run in runs)
    }


def best_controller(levels: Mapping[str, float], measure: Statistic) -> str | None:
    """The hand-coded policy with the best level; None if there is none or the measure has no direction."""
    hand_coded = [name for name in levels if name != "random"]
    if not hand_coded or not measure.better:
        return None
    return (min if measure.better == "lower" else max)(hand_coded, key=lambda name: levels[name])


def _others(known: Mapping[System, set[int]], group: Sequence[RunData]) -> list[int]:
    return sorted(known[group[0].system] - {run.config.seed for run in group})


def _labels(seeds: Sequence[Sequence[RunData]]) -> list[str]:
    """Each group's label: its method, F of DIALS, and the settings in which groups of the method differ.

    Settings of the domain are compared among groups of the same system only; all settings, and F, if systems
    have names, because each then has a configuration of its own.
    """
    if any(group[0].system.name for group in seeds):
        return [label for _, alike in groupby(seeds, _system_and_method) for label in _own_labels([*alike])]
    named: dict[str, dict[str, None]] = {method: {} for method in METHODS}
    named["dials"]["retrain_every"] = None
    for method, alike in groupby(sorted(seeds, key=_method), _method):
        configs = [_without_seed(group[0].config) for group in alike]
        sections = tuple(f"{config.domain_key}." for config in configs)
        named[method].update((key, None) for key in _varying(configs) if not key.startswith(sections))
    for (_, method), alike in groupby(seeds, _system_and_method):
        keys = _varying([_without_seed(group[0].config) for group in alike])
        named[method].update((key, None) for key in keys)
    for method in ("untrained", "global"):
        named[method].pop("retrain_every", None)
    return [_label(group[0], named[_method(group)]) for group in seeds]


def _named_by_study(labels: Sequence[str], seeds: Sequence[Sequence[RunData]]) -> list[str]:
    """The names of methods in their study, where they have one; else these labels.

    A name that two groups of one system would have names neither.
    """
    names = [_study_name(group) or label for group, label in zip(seeds, labels, strict=True)]
    places = [(group[0].system, name) for group, name in zip(seeds, names, strict=True)]
    return [
        name if places.count(place) == 1 else label
        for name, place, label in zip(names, places, labels, strict=True)
    ]


def _study_name(group: Sequence[RunData]) -> str | None:
    """The name that all runs of a group have for their method."""
    names = {run.membership.method if run.membership else None for run in group}
    return names.pop() if len(names) == 1 else None


def _own_labels(alike: Sequence[Sequence[RunData]]) -> list[str]:
    """The labels of groups of one system and method."""
    keys = _varying([_without_seed(group[0].config) for group in alike])
    if _method(alike[0]) != "dials" and "retrain_every" in keys:
        keys.remove("retrain_every")
    return [_label(group[0], keys) for group in alike]


def _method(group: Sequence[RunData]) -> str:
    return group[0].config.mode


def _system_and_method(group: Sequence[RunData]) -> tuple[System, str]:
    return group[0].system, _method(group)


def _without_seed(config: Config) -> Config:
    """The configuration without its seed and, where there are no refits, without F."""
    every = config.retrain_every if config.mode == "dials" else config.total_steps
    return replace(training(config), seed=0, retrain_every=every)


def _varying(configs: Sequence[Config]) -> list[str]:
    """The settings in which these configurations differ."""
    values = [config.decisive() for config in configs]
    return [key for key in (values[0] if values else ()) if any(v[key] != values[0][key] for v in values)]


def _label(run: RunData, varying: Collection[str]) -> str:
    """A run's method and the varying settings; the run's name if these are many."""
    config, values = run.config, run.config.decisive()
    if len([key for key in varying if key != "retrain_every"]) > MAX_LABEL_SETTINGS:
        name = run.name if len(run.name) <= LONGEST_NAME else f"{run.name[: LONGEST_NAME - 1]}…"
        return f"{METHODS[config.mode]}, as {name}"
    parts = [f"F = {short(values[k])}" if k == "retrain_every" else f"{k}={values[k]}" for k in varying]
    return ", ".join([METHODS[config.mode], *parts])


def short(steps: float) -> str:
    """A number of steps with a unit: 500K, 1.5M."""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if steps >= size:
            return f"{steps / size:g}{unit}"
    return f"{steps:g}"


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different lengths as one array [len(rows), longest], NaN behind the shorter ones."""
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
