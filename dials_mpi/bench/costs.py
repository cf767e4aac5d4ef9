"""Costs of the parts of a run in CPU seconds per unit of work: from a run file or from measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dials_mpi import settings
from dials_mpi.bench.flop import fit_flop
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown

PHASES = ("collect", "influence", "train", "communicate", "evaluate")
"""Phases read from a run file; also ``wait`` in newer files, where it is separate from communicate."""

FREE = (
    *("seed", "total_steps", "retrain_every", "evaluate_every", "segment_every", "evaluation_episodes"),
    *("dataset_size", "checkpoint_every", "checkpoint_minutes", "checkpoint_keep", "silence", "sinks"),
    *("schedule", "global_ranks", "influence.epochs", "influence.learning_rate", "influence.held_out"),
    *("ppo.learning_rate", "ppo.clip", "ppo.anneal", "ppo.discount", "ppo.gae_lambda"),
)
"""Settings that do not change the costs per unit of work; the number of regions does not either."""


@dataclass(frozen=True)
class Costs:
    """CPU seconds per unit of work in a system with ``regions`` regions.

    Of the slowest rank that trains: train, per step of one region, with all its agents; fit, per
    floating-point operation of one region's refit. Of the ranks with global simulators, all together and
    for all regions: collect and evaluate, per episode. Fit and collect are 0 if predictors are never fitted.
    Global ranks that share agents each simulate: in their runs this is counted more than once.
    """

    regions: int
    train: float
    fit: float
    collect: float
    evaluate: float


@dataclass(frozen=True)
class Recorded:
    """The costs and times of a recorded run.

    steps: per agent. whole: all of it had one number of ranks. held: the most regions of a rank. seconds: CPU
    seconds of the slowest rank of each row, and wall-clock seconds of communicate, without waiting. wall:
    seconds up to the last evaluation.
    """

    config: Config
    costs: Costs
    steps: int
    whole: bool
    held: int
    seconds: Mapping[str, float]
    wall: float


def measured_costs(config: Config, figures: Mapping[str, Mapping[str, Any]]) -> Costs:
    """The costs from the figures of ``measure``."""
    world, predictors = figures["global simulator"], figures["predictors"]
    setting = figures["setting"]
    agents = setting["agents"] / setting["regions"]
    return Costs(
        regions=setting["regions"],
        train=agents * figures["training"]["slowest_cpu_seconds_per_agent_step"],
        fit=predictors["slowest_fit_cpu_seconds_per_region"] / predictors["fit_flop_per_region"],
        collect=world["collect_cpu_seconds"] / config.dataset_episodes,
        evaluate=world["evaluate_cpu_seconds"] / config.evaluation_episodes,
    )


def read_run(directory: str, unchecked: bool = False) -> Recorded:
    """The record of a run, finished or not, from its rows with the last number of ranks.

    unchecked: also read a file that another program has changed.
    BadInput: there is none, it cannot be read, it has not trained yet, or its mode is global.
    """
    from dials_mpi.results.run import Run
    from dials_mpi.storage.hdf5 import READ_ERRORS

    run = Run.open(directory, unchecked=unchecked)
    file, config, where = run.recorded, run.config, printable(str(run.recorded.path))
    if not file.has("timing/env_steps"):
        raise BadInput(f"{where} holds no timings yet: give a run that has come to its first evaluation")
    require_spread(config, where)
    if config.segment_every and file.has("config/1"):
        raise BadInput(
            f"{where} was continued after an interruption, maybe between two evaluations, so its timings do "
            "not give the cost of a step: give a run that was not interrupted, or one without segment_every"
        )
    try:
        waits = ("wait",) if file.has("timing/wait") else ()
        names = ("env_steps", *PHASES, *waits)
        timing = {name: np.asarray(file.read(f"timing/{name}"), np.float64) for name in names}
        holders = np.asarray(file.read("placement/rank"), np.int64)
        wall = float(file.read("evaluation/wall_time")[-1])
        refits = np.zeros(0)
        if file.has("influence/env_steps"):
            refits = np.asarray(file.read("influence/env_steps"), np.float64)
        ranks = int(file.attributes()["ranks"])
        return _recorded(config, timing, refits, np.bincount(holders, minlength=ranks), wall, where)
    except READ_ERRORS as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise BadInput(f"{where} is not a run file, or a damaged one: {reason}") from error


def require_spread(config: Config, where: str) -> None:
    """BadInput: the configuration's mode trains on one rank, so more ranks do not help."""
    if config.mode == "global":
        raise BadInput(f"mode is global in {where}, which trains on one rank: there is nothing to project")


def require_same_costs(one: Config, other: Config, where: str) -> None:
    """BadInput: the configurations differ in a setting that changes the cost of a step, a sample or an
    episode; where: the source of the second one."""
    theirs = settings.flat(other)
    for key, value in settings.flat(one).items():
        if key not in (*FREE, f"{one.domain_key}.grid") and theirs.get(key) != value:
            given = shown(theirs[key]) if key in theirs else "missing"
            raise BadInput(
                f"{key} is {shown(value)} in the configuration and {given} in {where}, so its costs "
                "differ: give a run that has the same settings but for its length and its number of regions"
            )


def _recorded(
    config: Config,
    timing: Mapping[str, np.ndarray],
    refits: np.ndarray,
    regions: np.ndarray,
    wall: float,
    where: str,
) -> Recorded:
    """timing: env_steps [t] and each phase [t, W, 2]; refits: steps before each; regions: of each rank
    of the last session."""
    ranks, ends = len(regions), timing["env_steps"]
    same = np.isfinite(timing["train"][:, :, 1]).sum(axis=1) == ranks
    own = {phase: rows[same][:, :ranks] for phase, rows in timing.items() if rows.ndim == 3}
    steps = np.diff(ends, prepend=0.0)[same]
    # A refit belongs to the row that ends after it.
    in_row = np.searchsorted(ends, refits, side="right")
    refitted = np.bincount(in_row[in_row < len(ends)], minlength=len(ends))[same]
    if not steps.sum():
        raise BadInput(
            f"{where} holds no training yet on {ranks} ranks: give a run that has trained a segment"
        )
    if config.mode == "dials" and not refitted.sum():
        raise BadInput(f"{where} holds no refit of the predictors on {ranks} ranks: give a run that has one")
    holding = regions > 0
    train, fit = (
        (own[phase][:, holding, 1] / regions[holding]).max(axis=1).sum() for phase in ("train", "influence")
    )
    slowest = {phase: own[phase][:, holding, 1].max(axis=1).sum() for phase in ("train", "influence")}
    collect, evaluate = (own[phase][:, :, 1].sum(axis=1) for phase in ("collect", "evaluate"))
    number = refitted.sum()
    costs = Costs(
        regions=int(regions.sum()),
        train=train / steps.sum(),
        fit=fit / (number * fit_flop(config)) if number else 0.0,
        collect=collect.sum() / (number * config.dataset_episodes) if number else 0.0,
        # The median, since the first one also loads and compiles.
        evaluate=float(np.median(evaluate)) / config.evaluation_episodes,
    )
    seconds = {
        "train": slowest["train"],
        "fit": slowest["influence"],
        "collect": own["collect"][:, :, 1].max(axis=1).sum(),
        "evaluate": own["evaluate"][:, :, 1].max(axis=1).sum(),
        "communicate": _exchanging(own),
    }
    return Recorded(
        config,
        costs,
        steps=int(ends[-1]),
        whole=bool(same.all()),
        held=int(regions.max()),
        seconds={name: float(spent) for name, spent in seconds.items()},
        wall=wall,
    )


def _exchanging(own: Mapping[str, np.ndarray]) -> float:
    """Wall-clock seconds of exchanges, without waiting.

    Older files do not separate waiting from exchanging: there, the time of the rank that waited least in each
    row, less the time in which ranks that train wait for root to collect.
    """
    if "wait" in own:
        return own["communicate"][:, :, 0].max(axis=1).sum()
    workers = own["communicate"][:, 1:, 0] if own["communicate"].shape[1] > 1 else own["communicate"][..., 0]
    return np.maximum(workers.min(axis=1) - own["collect"][:, 0, 0], 0).sum()
