"""The time of a checkpoint, compared with a plain file of the same size, written and synchronised."""

from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.bench.subject import Subject
from dials_mpi.config import Config
from dials_mpi.core.provenance import memory
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains import create
from dials_mpi.learning import tables as parameters
from dials_mpi.run import state
from dials_mpi.run.costs import UnrecordedCosts
from dials_mpi.storage.progress import Progress

TIMES = 3
"""Repetitions of each measurement; the median counts."""

TRIED = 16
"""Regions in the file that is written for a projection."""


def checkpoint_figures(subject: Subject, folder: str) -> dict[str, float]:
    """Bytes and wall-clock seconds of a checkpoint of all regions in ``folder``, on root; elsewhere empty.

    All written files are removed.
    """
    from dials_mpi.run.checkpointing import save
    from dials_mpi.run.state_exchange import StateExchange

    ranks, config, domain = subject.comm, subject.config, subject.domain
    costs = UnrecordedCosts(Stopwatch(), Failures())
    exchange = StateExchange(ranks, subject.layout, state.RankState(subject.learners, costs))
    kept = [entry for entry in state.entries(config, domain) if entry.kept(0)]
    if ranks.is_root:
        from dials_mpi.storage.checkpoint import Checkpoint, files_of

    seconds: dict[str, list[float]] = {
        name: [] for name in ("write", "busiest_rank_write_cpu", "plain_write", "read")
    }
    with TemporaryDirectory(dir=folder if ranks.is_root else None) as own:
        shared = Path(ranks.broadcast(own))
        path, plain = shared / "checkpoint-0.h5", shared / "plain"
        before = memory()[0]
        for _ in range(TIMES):
            ranks.barrier()
            start, busy = time.perf_counter(), time.process_time()
            save(exchange, kept, config, domain, shared, 0, Progress() if ranks.is_root else None)
            seconds["write"].append(time.perf_counter() - start)
            spent = ranks.gather_by_rank(np.array([time.process_time() - busy]))
            if spent is not None:
                seconds["busiest_rank_write_cpu"].append(float(spent.max()))
                size = sum(file.stat().st_size for file in files_of(path))
                seconds["plain_write"].append(_plain_write(plain, size))
            ranks.barrier()
            start = time.perf_counter()
            if ranks.is_root:
                Checkpoint(path)  # its checksum, as before a run continues
            exchange.restore(kept, path, segments=0)
            ranks.barrier()
            seconds["read"].append(time.perf_counter() - start)
        if not ranks.is_root:
            return {}
        figures = {f"checkpoint_{name}_seconds": float(np.median(spent)) for name, spent in seconds.items()}
        return {
            "checkpoint_bytes": size,
            **figures,
            "checkpoint_share_of_plain_write": figures["checkpoint_plain_write_seconds"]
            / figures["checkpoint_write_seconds"],
            "checkpoint_growth_of_peak_memory_bytes": memory()[0] - before,
        }


def write_seconds_per_region(config: Config, folder: str) -> float:
    """Wall-clock seconds in which root writes one region's state into a checkpoint in ``folder``."""
    from dials_mpi.storage.checkpoint import Rows, writing

    domain = create(config.domain, config.domain_section)
    names = parameters.tables(config, domain)
    # As many networks as a region has on average; for one agent in each, one of each kind.
    each = {kind: round(len(own) / len(domain.regions)) for kind, own in names.items()}
    tables = {kind: own[:1] * TRIED * each[kind] for kind, own in names.items()}
    datasets = [
        Rows(entry.name, len(own), entry.width)
        for kind, own in tables.items()
        for entry in state.entries(config, domain)
        if entry.name.startswith(f"{kind}/")
    ]
    draw = np.random.default_rng(0)
    rows = {each.name: draw.random(each.width, dtype=np.float32) for each in datasets}
    seconds = []
    with TemporaryDirectory(dir=folder) as own:
        for _ in range(TIMES):
            start = time.perf_counter()
            with writing(Path(own), Progress(), ("", ""), {}, datasets, tables) as put:
                for dataset in datasets:
                    for i in range(dataset.count or 0):
                        put(dataset.name, i, rows[dataset.name])
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / TRIED


def _plain_write(path: Path, size: int) -> float:
    """Seconds for a new file of this size, written a megabyte at a time and synchronised."""
    piece = bytes(range(256)) * 4096
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for rest in range(size, 0, -len(piece)):
            file.write(piece[:rest])
        os.fsync(file.fileno())
    return time.perf_counter() - start
