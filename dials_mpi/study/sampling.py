"""Samplers and pruners of a sweep, from optuna; no other file imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.study.ranges import Choices, Range, combinations
from dials_mpi.study.sweep_plan import RANGES, Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SAMPLERS = ("optuna", "random", "grid")


class Sampling:
    """The trials of a sweep as optuna knows them, in memory: it is told the same trials in every session.

    The sampler of a trial depends only on the sweep's seed and the trial's number, so that its values are a
    function of the trials before it.
    """

    def __init__(self, sweep: Sweep, sampler: str) -> None:
        """sampler: one of SAMPLERS. BadInput: optuna is not installed, or a grid would be endless."""
        self._optuna = _imported()
        options = sweep.options
        self._kind, self._seed, self._startup = sampler, options.seed, options.startup_trials
        self._grid = combinations(sweep.ranges, f"{sweep.where}: sweep.{RANGES}") if sampler == "grid" else []
        self._ranges = {key: self._distribution(one) for key, one in sweep.ranges.items()}
        pruners = self._optuna.pruners
        self._study = self._optuna.create_study(
            direction="maximize" if sweep.higher else "minimize",
            pruner=pruners.MedianPruner(options.startup_trials, options.warmup_steps)
            if options.pruner == "median"
            else pruners.NopPruner(),
        )
        self.trials = min(options.trials, len(self._grid)) if self._grid else options.trials

    def ask(self, number: int, known: Mapping[str, Any] | None) -> Asked:
        """Begin trial ``number``; known: its values, if it has been asked before."""
        given = self._grid[number] if self._grid and known is None else known
        if given is not None:
            self._study.enqueue_trial(dict(given))
        self._study.sampler = self._sampler(number)
        return Asked(self._study, self._study.ask(self._ranges))

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        samplers = self._optuna.samplers
        if self._kind == "optuna":
            return samplers.TPESampler(n_startup_trials=self._startup, seed=seed)
        return samplers.RandomSampler(seed)

    def _distribution(self, one: Range) -> BaseDistribution:
        kinds = self._optuna.distributions
        if isinstance(one, Choices):
            return kinds.CategoricalDistribution(one.texts)
        if one.whole:
            return kinds.IntDistribution(one.low, one.high, log=one.log, step=one.step)
        return kinds.FloatDistribution(one.low, one.high, log=one.log)


class Asked:
    """A trial that was begun. drawn: the value of each range."""

    def __init__(self, study: Any, trial: Any) -> None:
        self._study, self._trial = study, trial
        self.drawn: dict[str, Any] = dict(trial.params)

    def report(self, env_steps: int, value: float) -> bool:
        """Report an evaluation; whether the trial shall be pruned."""
        self._trial.report(value, env_steps)
        return bool(self._trial.should_prune())

    def end(self, value: float) -> None:
        """The trial is complete with this value; with NaN, it has failed."""
        failed = {"state": _imported().trial.TrialState.FAIL} if np.isnan(value) else {"values": value}
        self._study.tell(self._trial, **failed)

    def end_pruned(self) -> None:
        """The trial is pruned."""
        self._study.tell(self._trial, state=_imported().trial.TrialState.PRUNED)


def _imported() -> Any:
    try:
        import optuna
    except ImportError:
        raise BadInput(
            "optuna, which --sampler needs, is not installed: pip install 'dials_mpi[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
