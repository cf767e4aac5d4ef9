"""Costs and memory of a configuration, measured in about a minute, in processes of their own.

One process plays the global simulator as a global rank does; then another trains a few regions as a worker
does. Each is a new process, so that its peak memory is that of its part alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dials_mpi.bench.costs import Costs
from dials_mpi.bench.projection import Line
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment
from dials_mpi.core.errors import BadInput
from dials_mpi.core.provenance import memory
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain

T = TypeVar("T")

PIECE = 12.0
"""Seconds after which a measured piece of work is long enough."""

WARMING, MOST = 2, 50
"""Updates of the first measurement of training, and the most of the second one, as a multiple."""

FIT_EPOCHS = 5
"""Epochs of the measured fit; how long one takes does not depend on their number."""

REGIONS = 3
"""Regions that the worker trains, after it has trained one."""

MORE_REGIONS = 17
"""Regions with which its memory is compared to that with one."""


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Memory in bytes, peak resident sets: worker, by the number of its regions, without their datasets; root,
    by the number of all regions, without the datasets that it records. shared: the part of libraries, once on
    each node. played: the share of an episode and the episodes that were played.
    """

    costs: Costs
    worker: Line
    root: Line
    shared: float
    played: str


class Played(NamedTuple):
    """CPU seconds of an episode with all regions; datasets of the first regions; memory as in ``Sample``."""

    collect: float
    evaluate: float
    datasets: list[Any]
    root: Line
    shared: float
    played: str


class Trained(NamedTuple):
    """CPU seconds of a step, and of a floating-point operation of a refit, of one region; memory."""

    train: float
    fit: float
    worker: Line


def take(config: Config) -> Sample:
    """Measure. BadInput: something is missing, or a measuring process ends early."""
    played = _in_process(_play, config)
    trained = _in_process(_train, config, played.datasets)
    regions = len(create(config.domain, config.domain_section).regions)
    costs = Costs(regions, trained.train, trained.fit, played.collect, played.evaluate)
    return Sample(costs, trained.worker, played.root, played.shared, played.played)


def _in_process(work: Callable[..., T], *arguments: Any) -> T:
    """What ``work`` returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise BadInput(
                "a measuring process ended early, maybe because the memory is full: measure on a machine "
                "with more memory, or plan a smaller configuration"
            ) from error


# In the process of a global rank -------------------------------------------------------------------------


def _play(config: Config) -> Played:
    """Collect and evaluate some episodes, or the beginning of one, with networks of the right sizes."""
    from dials_mpi.algorithm import joint
    from dials_mpi.algorithm.collect import collect, parts
    from dials_mpi.algorithm.evaluation import evaluate
    from dials_mpi.core.seeding import Purpose, streams
    from dials_mpi.run.sinks import console, registry, run_file  # noqa: F401  root loads them

    domain = _begin(config)
    fixed = _peak()
    policies, predictors = _networks(config, domain)
    datasets: list[Any] = []

    def collecting(part: Any, episodes: int) -> None:
        actions = streams(0, Purpose.COLLECT_ACTIONS, episodes)
        played = collect(
            part,
            streams(0, Purpose.COLLECT, episodes),
            lambda _, own: joint.TrainedPolicies(policies, actions[own]),
        )
        datasets[:] = played.datasets[:REGIONS]

    def evaluating(part: Any, episodes: int) -> None:
        evaluate(config, part, policies, predictors, episodes, segment=0)

    together = [parts(domain, most)[0].stop for most in (config.dataset_episodes, config.evaluation_episodes)]
    collect_seconds, described = _episode(config, collecting, together[0]) if predictors else (0.0, "")
    recorded = sum(array.nbytes for dataset in datasets for array in dataset.stored) / max(1, len(datasets))
    evaluate_seconds, described = _episode(config, evaluating, together[1])
    regions = len(domain.regions)
    each = max(0.0, _peak() - fixed - recorded * regions) / regions
    return Played(collect_seconds, evaluate_seconds, datasets, Line(fixed, each), _shared(), described)


def _networks(config: Config, domain: Any) -> tuple[Any, Any]:
    """All policies and predictors; how long they take does not depend on their parameters."""
    from dials_mpi.algorithm import joint
    from dials_mpi.learning.tables import tables, widths

    names = tables(config, domain)
    rows = {
        kind: np.full((len(names[kind]), width), 0.01, np.float32) for kind, width in widths(names).items()
    }
    predictors = joint.predictors(config, domain, rows["predictor"]) if "predictor" in rows else []
    return joint.policies(config, domain, rows["policy"]), predictors


def _episode(config: Config, play: Callable[[Any, int], None], episodes: int) -> tuple[float, str]:
    """CPU seconds of one whole episode; so many are played side by side, for longer and longer.

    The first attempt loads what is loaded at first use, and does not count where a longer one follows.
    """
    from dials_mpi.domains.decisions import decision_steps

    whole, unit = config.domain_section.horizon, decision_steps(create(config.domain, config.domain_section))
    horizon = min(whole, 4 * unit)
    while True:
        part = create(config.domain, replace(config.domain_section, horizon=horizon))
        spent = _seconds(config, partial(play, part, episodes))
        if horizon == whole or spent > PIECE / 3:
            break
        longer = min(8.0, PIECE / max(spent, 1e-3) / 1.5)
        horizon = min(whole, max(2, int(longer)) * horizon)
    described = f"{episodes} side by side, {horizon:,} of {whole:,} steps"
    return spent / episodes * whole / horizon, described


# In the process of a worker ------------------------------------------------------------------------------


def _train(config: Config, datasets: list[Any]) -> Trained:
    """Fit and train one region, then some; datasets: parts of those of the first regions."""
    domain = _begin(config)
    regions = len(domain.regions)
    if config.mode == "global":
        fixed = _peak()  # that of root has it, too
        _, step = _work(config, domain, range(regions), [])
        return Trained(step, 0.0, Line(fixed, max(0.0, _peak() - fixed) / regions))
    each = _each(config, domain)
    fit, step = _work(config, domain, range(1), datasets)
    few = min(REGIONS, regions)
    fits, steps = _work(config, domain, range(few), datasets) if few > 1 else (fit, step)
    fitted = datasets[:few] if config.mode == "dials" else []
    held = sum(array.nbytes for own in fitted for array in _repeated(own, config).stored)
    return Trained(max(step, steps), max(fit, fits), Line(_peak() - few * each - held, each))


def _each(config: Config, domain: Any) -> float:
    """Bytes by which a region more raises the peak, without its dataset."""
    from dials_mpi.algorithm.learners import Learners

    peaks = []
    most = min(MORE_REGIONS, len(domain.regions))
    for regions in (1, most):
        learners = Learners(config, domain, list(range(regions)))
        learners.train(_segment(1))
        peaks.append(_peak())
    return (peaks[1] - peaks[0]) / max(1, most - 1)


def _work(config: Config, domain: Any, regions: range, datasets: list[Any]) -> tuple[float, float]:
    """CPU seconds for one of these regions: of an operation of a refit, and of a step of training."""
    from dials_mpi.algorithm.dataset import Dataset
    from dials_mpi.algorithm.learners import Learners
    from dials_mpi.bench.flop import fit_flop

    few = replace(config, influence=replace(config.influence, epochs=FIT_EPOCHS, start="own", refit_epochs=0))
    learners, fit = Learners(few, domain, list(regions)), 0.0
    whole = {k: _repeated(datasets[k], config) for k in regions if config.mode == "dials"}
    if whole:
        learners.fit({k: Dataset(*own.some(slice(2))) for k, own in whole.items()}, _segment(0))
        fit = _seconds(config, lambda: learners.fit(whole, _segment(0))) / fit_flop(few) / len(regions)

    def spent(updates: int) -> float:
        return _seconds(config, lambda: learners.train(_segment(updates)))

    spent(WARMING)
    begun = spent(WARMING)
    updates = int(np.clip(PIECE / 3 / max(begun, 1e-3), 1, MOST)) * WARMING
    # The difference is without what a segment costs at its beginning.
    more = max(spent(updates + WARMING) - begun, 0.0) / updates
    return fit, more / config.ppo.memory_size / len(regions)


def _repeated(dataset: Any, config: Config) -> Any:
    """A whole dataset, from the part that was played."""
    from dials_mpi.algorithm.dataset import Dataset

    episodes, horizon = config.dataset_episodes, config.domain_section.horizon
    return Dataset(*(np.resize(part, (episodes, horizon, *part.shape[2:])) for part in dataset))


def _segment(updates: int) -> Segment:
    return Segment(0, 0, updates, 0, False, False)


# In both ---------------------------------------------------------------------------------------------------


def _begin(config: Config) -> Domain:
    """Load what a rank of a run loads, and compile."""
    from dials_mpi.core.launchers import launched
    from dials_mpi.parallel.launch import connect
    from dials_mpi.run.warm_up import warm_up

    if not launched():  # else these variables are those of the process that measures
        connect()
    domain = create(config.domain, config.domain_section)
    warm_up(config, domain)
    return domain


def _seconds(config: Config, work: Callable[[], object]) -> float:
    """CPU seconds; of SUMO in a process of its own, which has its own CPU time, wall-clock seconds."""
    clock = time.perf_counter if getattr(config.domain_section, "sumo", "") == "traci" else time.process_time
    start = clock()
    work()
    return clock() - start


def _peak() -> float:
    """The peak resident set of this process, bytes.

    ``memory`` gives the one of the process that started it, if that was larger.
    """
    return _status("VmHWM:") or memory()[0]


def _shared() -> float:
    """The part of libraries in the resident set, bytes; 0 where the system does not say it."""
    return _status("RssFile:")


def _status(name: str) -> float:
    """A line of /proc/self/status, in bytes; 0 if it is missing."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1]) * 1024
    return 0.0
