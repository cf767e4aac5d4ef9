"""Groups of runs that differ only in their seed: their averages, and what each is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.report.runs import Refreshes, Run, standard_error
from dials_mpi.report.style import look

METHODS = {"dials": "DIALS", "untrained": "untrained", "global": "global simulator"}


class Curve(NamedTuple):
    """Steps per agent, mean and standard error, [T] each; NaN where there is no standard error."""

    env_steps: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ in their seed, and how they are drawn."""

    runs: Sequence[Run]
    label: str
    colour: tuple[float, ...]
    line: Any

    @cached_property
    def returns(self) -> Curve:
        """Mean return, with the standard error over seeds or, for a single run, over its episodes."""
        curve = self._average([run.mean for run in self.runs])
        if len(self.runs) == 1:
            return curve._replace(standard_error=self.runs[0].standard_error)
        return curve

    @cached_property
    def cross_entropy(self) -> Curve | None:
        """Nats per source, averaged over regions and seeds; None without predictors."""
        if self.runs[0].cross_entropy is None:
            return None
        return self._average([run.cross_entropy for run in self.runs])

    @cached_property
    def refreshes(self) -> Refreshes | None:
        """Averaged over the runs that have come so far; None without any."""
        parts = [run.refreshes for run in self.runs if run.refreshes is not None]
        if not parts:
            return None
        return Refreshes(*(np.nanmean(_padded(column), axis=0) for column in zip(*parts, strict=True)))

    @property
    def unfinished(self) -> list[Run]:
        """The runs that have not come to their end."""
        return [run for run in self.runs if not run.finished]

    def _average(self, values: Sequence[np.ndarray]) -> Curve:
        """At each step the mean over the runs that have come so far."""
        rows = _padded(values)
        steps = max((run.env_steps for run in self.runs), key=len)
        return Curve(steps, np.nanmean(rows, axis=0), standard_error(rows))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ only in their seed go together; ordered by method, then from the largest F down."""
    by_configuration: dict[str, list[Run]] = {}
    for run in runs:
        by_configuration.setdefault(_without_seed(run.config).digest(), []).append(run)
    groups = []
    for method in METHODS:
        seeds = [runs for runs in by_configuration.values() if runs[0].config.mode == method]
        groups += _groups_of(method, sorted(seeds, key=lambda runs: -runs[0].config.retrain_every))
    return groups


def _groups_of(method: str, seeds: Sequence[Sequence[Run]]) -> list[Group]:
    """One group for each sequence of runs, labelled by what tells it from the others of the method."""
    varying = _varying([_without_seed(runs[0].config) for runs in seeds])
    if method != "dials":
        varying = [key for key in varying if key != "retrain_every"]
    return [Group(runs, _label(runs[0].config, varying), *look(method, k)) for k, runs in enumerate(seeds)]


def _without_seed(config: Config) -> Config:
    """What runs that are averaged have in common; F means nothing where there are no refreshes."""
    every = config.retrain_every if config.mode == "dials" else config.total_steps
    return replace(config, seed=0, retrain_every=every)


def _varying(configs: Sequence[Config]) -> list[str]:
    """The settings in which these configurations differ."""
    values = [config.decisive() for config in configs]
    return [key for key in (values[0] if values else ()) if any(v[key] != values[0][key] for v in values)]


def _label(config: Config, varying: Iterable[str]) -> str:
    values = config.decisive()
    parts = [f"F = {short(values[k])}" if k == "retrain_every" else f"{k}={values[k]}" for k in varying]
    return ", ".join([METHODS[config.mode], *parts])


def short(steps: float) -> str:
    """A number of steps as people write it: 500K, 1.5M."""
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
