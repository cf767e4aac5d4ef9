"""All measurements of one configuration, in one run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dials_mpi.bench import floors
from dials_mpi.bench.checkpoints import checkpoint_figures
from dials_mpi.bench.flop import fit_flop, flop_per_agent_step
from dials_mpi.bench.shares import PARTS, shares
from dials_mpi.bench.subject import Subject
from dials_mpi.bench.torch_twins import prepared
from dials_mpi.config import Config
from dials_mpi.core.provenance import memory, own_memory
from dials_mpi.domains.base import Domain
from dials_mpi.domains.decisions import decisions_per_episode
from dials_mpi.parallel.communicator import Communicator

TILES = (1, 8, 16, 32, 64, 256)
"""Measured numbers of traffic's local regions in one SUMO process."""

RESETS = 500

Figures = dict[str, dict[str, Any]]
"""By group and name, with the unit in the name; ``shares`` is a group as well."""

ROW = (
    "regions",
    "steps",
    "wall",
    "cpu",
    "gflops",
    "copy",
    "library",
    "fit",
    "peak",
    "pss",
    "torch_cpu",
    "torch_alone_cpu",
    "torch_pss",
    "collect",
    "stepping",
    "evaluate",
    *PARTS,
)
"""What every rank sends to root."""


def measure(
    config: Config, comm: Communicator, updates: int, folder: str, library: str | None, torch: bool = False
) -> Figures | None:
    """Collect, fit, evaluate and train ``updates`` updates per region twice; the figures, on root.

    folder: where a checkpoint is written and removed. library: of the matrix products that are the limit,
    default the fastest. torch: also train with the networks in PyTorch. Ranks without regions (root, if there
    are others) are idle during training.
    """
    subject = Subject(config, comm)
    subject.warm_up()
    row = dict.fromkeys(ROW, 0.0)
    if subject.predicts:
        row["collect"], row["stepping"] = subject.collect(config.dataset_episodes)
        row["fit"] = subject.fit()
    row["evaluate"] = subject.evaluate(config.evaluation_episodes)
    row["peak"], row["pss"] = memory()
    twins = prepared(config, subject) if torch else None  # before the floors, which load torch as well
    row["torch_pss"] = memory()[1]
    before = _floors(subject, library)
    row["wall"], row["cpu"] = subject.train(updates)
    if twins:
        row["torch_cpu"] = twins.train(updates)[1]
        twins.learners.compute_alone()
        row["torch_alone_cpu"] = twins.train(updates)[1]
    row["gflops"], row["copy"], row["library"] = (before + _floors(subject, library)) / 2
    row["regions"] = len(subject.mine)
    row["steps"] = updates * config.ppo.memory_size * len(subject.learners.agents)
    row |= zip(PARTS, subject.profile(updates), strict=True)
    rows = comm.gather_by_rank(np.array([row[name] for name in ROW]))
    checkpoint = checkpoint_figures(subject, folder)
    if rows is None:
        return None
    by_rank = dict(zip(ROW, rows.T, strict=True))
    return {
        "setting": {
            "ranks": comm.size,
            "training_ranks": int((by_rank["steps"] > 0).sum()),
            "agents": len(subject.domain.agents),
            "regions": len(subject.domain.regions),
            "cores": _cores(),
            "matmul_library": floors.LIBRARIES[int(by_rank["library"].max())],
        },
        **_training(subject, config, by_rank),
        **(_predictors(subject, config, by_rank) if subject.predicts else {}),
        **(_torch(by_rank) if torch else {}),
        "global simulator": _global_simulator(subject, config, by_rank),
        **(_city(subject.domain) if config.domain == "city" else {}),
        "memory": _memory(by_rank),
        "checkpoint": checkpoint,
    }


def tiles(domain: Domain) -> dict[str, float]:
    """Throughput of traffic's local simulators by number of tiles, that of SUMO's bare stepping of the same
    tiles, and the growth of memory over RESETS resets."""
    from dials_mpi.domains.traffic import Traffic
    from dials_mpi.domains.traffic.throughput import reset_often, throughput

    assert isinstance(domain, Traffic)
    reset_often(domain, 10)
    before = own_memory()
    reset_often(domain, RESETS)
    figures = {f"memory_growth_over_{RESETS}_resets_bytes": own_memory() - before}
    for count in TILES:
        rate, bare = throughput(domain, count, seconds=3)
        figures[f"local_region_steps_per_second_{count}_tiles"] = rate
        figures[f"bare_sumo_region_steps_per_second_{count}_tiles"] = bare
        figures[f"share_of_bare_stepping_{count}_tiles"] = rate / bare
    return figures


def _floors(subject: Subject, library: str | None) -> np.ndarray:
    """Matrix products in GFLOP/s, copies in GB/s, and the index in LIBRARIES, on at most one rank per core.

    More ranks cannot run at a time, and torch on each of them may not fit into memory. Zeros elsewhere.
    """
    subject.comm.barrier()
    if not subject.among_first(_cores()):
        return np.zeros(3)
    library = library or floors.best_library()
    rates = floors.matmul_gflops(library), floors.copy_gigabytes_per_second()
    return np.array([*rates, floors.LIBRARIES.index(library)])


def _training(subject: Subject, config: Config, rows: Mapping[str, np.ndarray]) -> Figures:
    """Throughput, its limits, and the shares of its parts."""
    flop, gflops, per_core = (
        flop_per_agent_step(config),
        _floor(rows),
        rows["steps"].sum() / rows["cpu"].sum(),
    )
    training = {
        "agent_steps_per_second": rows["steps"].sum() / rows["wall"].max(),
        "agent_steps_per_second_per_core": per_core,
        "flop_per_agent_step": flop,
        "utilisation": per_core * flop / (gflops * 1e9),
    }
    limits = {"matmul_gflops": gflops, "memory_copy_gigabytes_per_second": _mean_measured(rows["copy"])}
    if config.domain == "traffic":
        bare = floors.sumo_bare_steps_per_second(subject.domain)
        limits["sumo_bare_steps_per_second"] = bare
        training["sumo_ratio"] = per_core / bare
    # The slowest rank determines the time of a segment; projections use it.
    busy = rows["steps"] > 0
    training["slowest_cpu_seconds_per_agent_step"] = (rows["cpu"][busy] / rows["steps"][busy]).max()
    parts = np.array([rows[part].sum() for part in PARTS])
    return {"training": training, "floors": limits, "shares": shares(parts, config)}


def _torch(rows: Mapping[str, np.ndarray]) -> Figures:
    """Training with the networks in PyTorch beside the built-in ones, and what memory they add to a rank."""
    busy = rows["steps"] > 0
    return {
        "networks in PyTorch": {
            "torch_agent_steps_per_second_per_core": rows["steps"].sum() / rows["torch_cpu"].sum(),
            "torch_ratio_to_built_in": rows["cpu"].sum() / rows["torch_cpu"].sum(),
            "torch_speed_of_equal_networks_together": rows["torch_alone_cpu"].sum() / rows["torch_cpu"].sum(),
            "torch_added_memory_bytes_per_training_rank": (rows["torch_pss"] - rows["pss"])[busy].mean(),
        }
    }


def _predictors(subject: Subject, config: Config, rows: Mapping[str, np.ndarray]) -> Figures:
    """Figures of the fit; its seconds are scaled to the configured epochs by the number of operations."""
    busy = rows["steps"] > 0
    regions = rows["regions"][busy]
    measured, configured = fit_flop(subject.config), fit_flop(config)
    rate = regions.sum() * measured / rows["fit"][busy].sum()
    return {
        "predictors": {
            "fit_cpu_seconds_per_region": configured / rate,
            "slowest_fit_cpu_seconds_per_region": (rows["fit"][busy] / regions).max() * configured / measured,
            "fit_flop_per_region": configured,
            "fit_utilisation": rate / (_floor(rows) * 1e9),
        }
    }


def _global_simulator(subject: Subject, config: Config, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Root's CPU seconds of collecting and evaluating with networks as policies."""
    per_episode = decisions_per_episode(subject.domain) * len(subject.domain.agents)
    figures: dict[str, float] = {}
    if subject.predicts:
        steps = config.dataset_episodes * per_episode
        figures |= {
            "collect_cpu_seconds": rows["collect"][0],
            "collect_cpu_microseconds_per_agent_step": rows["collect"][0] / steps * 1e6,
        }
        if config.domain == "traffic":
            figures["collect_ratio_to_bare_sumo"] = 1 / rows["stepping"][0]
    evaluated = config.evaluation_episodes * per_episode
    return figures | {
        "evaluate_cpu_seconds": rows["evaluate"][0],
        "evaluate_cpu_microseconds_per_agent_step": rows["evaluate"][0] / evaluated * 1e6,
    }


def _city(domain: Domain) -> Figures:
    """CPU seconds of a city's simulators beside SUMO alone with the same vehicles and signals."""
    from dials_mpi.domains.city import City
    from dials_mpi.domains.city.throughput import COPIES, collect_ratio, local_share

    assert isinstance(domain, City)
    return {
        "SUMO alone": {
            "collect_ratio_to_bare_hour": collect_ratio(domain),
            f"local_share_of_bare_stepping_{COPIES}_copies": local_share(domain),
        }
    }


def _memory(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Memory after collecting, fitting, evaluating and some training, before the limits are measured."""
    busy = rows["steps"] > 0
    return {
        "proportional_set_bytes": rows["pss"].sum(),
        "proportional_set_bytes_of_root": rows["pss"][0],
        "proportional_set_bytes_per_training_rank": rows["pss"][busy].mean(),
        "peak_resident_set_bytes_of_root": rows["peak"][0],
        "peak_resident_set_bytes_of_a_training_rank": rows["peak"][busy].max(),
    }


def _floor(rows: Mapping[str, np.ndarray]) -> float:
    """The matrix-product rate, GFLOP/s."""
    return _mean_measured(rows["gflops"])


def _mean_measured(values: np.ndarray) -> float:
    """The mean over the ranks that measured it."""
    return float(values[values > 0].mean())


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
