"""How fast this machine trains, next to what it could do: throughput and floor in one run.

Every figure that the README quotes about speed comes from here, as a ratio to a floor that was measured in
the same run on the same cores: absolute figures drift with the machine and with what else runs on it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from dials_mpi import ranks as mpi
from dials_mpi.cli import Parser, agreed
from dials_mpi.config import Config, Segment, load
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain
from dials_mpi.errors import BadInput
from dials_mpi.ranks import Ranks
from dials_mpi.values import printable

if TYPE_CHECKING:
    from dials_mpi.learners import Learners

EXAMPLES = """examples:
  python -m dials_mpi.bench --config configs/warehouse/4.yaml
  mpirun -n 3 python -m dials_mpi.bench --config configs/warehouse/4.yaml --json bench.json"""

TILES = (1, 8, 16, 32, 64, 256)
"""Numbers of traffic's local regions in one SUMO process at which it is measured."""

RESETS = 500

CHECKPOINTS = 5
"""How often a checkpoint is written and read."""

FLOOR_SIZE = 512
"""Rows and columns of the matrices whose product is the floor: they stay in a core's cache."""


def forward_flop(architecture: str, inputs: int, hidden: tuple[int, int], outputs: int) -> tuple[int, int]:
    """Floating-point operations of one forward step: (of the first layer's input product, of the rest).

    Matrix products only, a multiplication and an addition each (Tables 4 and 5 give the sizes).
    """
    first, second = hidden
    gates, recurrent = (3, 3 * first * first) if architecture == "gru" else (1, 0)
    return 2 * gates * inputs * first, 2 * (recurrent + first * second + second * outputs)


def training_flop(first_layer: int, rest: int) -> int:
    """Of one forward and backward step: the weights' gradients cost as much as the products, and the
    gradients that flow back as much again, except into the network's input."""
    return 2 * first_layer + 3 * rest


def flop_per_agent_step(config: Config) -> float:
    """Of one agent-step in mode dials: the predictor and the policy act, the policy learns ``epochs`` times.

    The mean over the regions where they differ.
    """
    from dials_mpi.learning.influence import Heads

    counts = []
    for region in create(config.domain, config.domain_section).regions:
        policy = forward_flop(
            config.policy.architecture, region.observation_size, config.policy.hidden, region.actions + 1
        )
        predictor = forward_flop(
            config.influence.architecture,
            region.input_size,
            config.influence.hidden,
            Heads(region.source_classes).outputs,
        )
        acting = sum(policy) + (sum(predictor) if config.mode != "global" else 0)
        counts.append(acting + config.ppo.epochs * training_flop(*policy))
    return float(np.mean(counts))


def matmul_gflops(seconds: float = 0.3) -> float:
    """Rate of float32 matrix products on this core, GFLOP/s."""
    import torch

    a, b = torch.ones(2, FLOOR_SIZE, FLOOR_SIZE)
    out = torch.empty(FLOOR_SIZE, FLOOR_SIZE)
    torch.mm(a, b, out=out)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        torch.mm(a, b, out=out)
        count += 1
    return count * 2 * FLOOR_SIZE**3 / spent / 1e9


def measure(config: Config, ranks: Ranks, updates: int, folder: str = ".") -> dict[str, float] | None:
    """Train ``updates`` updates per region on every rank at once; the figures, on root.

    folder: where a checkpoint is written, and removed.
    Ranks that hold no region (root, where there are others) do nothing, as in training they sleep.
    """
    from dials_mpi.collect import collect
    from dials_mpi.joint import RandomPolicy
    from dials_mpi.learners import Learners
    from dials_mpi.learning import set_up_torch
    from dials_mpi.provenance import memory
    from dials_mpi.seeding import Purpose, streams

    set_up_torch()
    domain = create(config.domain, config.domain_section)
    mine = ranks.place(len(domain.regions), on_root=config.mode == "global")
    learners = Learners(config, domain, mine)
    learners.train(Segment(0, 0, 1, 0, False, False))
    ranks.barrier()
    row = np.zeros(4)
    if mine:
        before = matmul_gflops()
        start = time.perf_counter()
        learners.train(Segment(1, 1, updates, 0, False, False))
        seconds = time.perf_counter() - start
        steps = updates * config.ppo.memory_size * len(mine)
        row[:3] = steps / seconds, (before + matmul_gflops()) / 2, 1
    row[3] = memory()[1]
    rows = ranks.gather_by_rank(row)
    local = _checkpoint(config, ranks, learners, folder)
    if not ranks.is_root:
        return None
    busy = rows[rows[:, 2] > 0]
    episodes = config.dataset_episodes
    actions = streams(0, Purpose.COLLECT_ACTIONS, episodes)
    start = time.perf_counter()
    collect(
        domain,
        streams(0, Purpose.COLLECT, episodes),
        lambda _, part: RandomPolicy(domain.regions, actions[part]),
    )
    global_seconds = time.perf_counter() - start
    local |= _traffic(domain) if config.domain == "traffic" else {}
    flop, floor, rate = flop_per_agent_step(config), busy[:, 1].mean(), busy[:, 0].mean()
    return {
        "ranks": ranks.size,
        "regions": len(domain.regions),
        "agent_steps_per_second": busy[:, 0].sum(),
        "agent_steps_per_second_per_core": rate,
        "flop_per_agent_step": flop,
        "matmul_gflops": floor,
        "utilisation": rate * flop / (floor * 1e9),
        "global_simulator_steps_per_second": episodes * domain.horizon / global_seconds,
        "proportional_set_bytes": rows[:, 3].sum(),
        **local,
    }


def _checkpoint(config: Config, ranks: Ranks, learners: Learners, folder: str) -> dict[str, float]:
    """Of a checkpoint of all regions: its size, how long writing and reading it takes, and how long as many
    bytes take that are only written in large pieces and synchronised. On root; medians of CHECKPOINTS."""
    from dials_mpi.joint import tables
    from dials_mpi.position import Position
    from dials_mpi.provenance import memory
    from dials_mpi.upkeep import load, save

    if ranks.is_root:
        from dials_mpi.storage.checkpoint import Checkpoint

    names = tables(config, learners.domain)
    seconds = {"write": [], "plain_write": [], "read": []}
    with TemporaryDirectory(dir=folder if ranks.is_root else None) as own:
        path, plain = Path(own) / "checkpoint-0.h5", Path(own) / "plain"
        before = memory()[0]
        for _ in range(CHECKPOINTS):
            ranks.barrier()
            start = time.perf_counter()
            save(ranks, learners, names, Path(own), Position() if ranks.is_root else None)
            seconds["write"].append(time.perf_counter() - start)
            if ranks.is_root:
                seconds["plain_write"].append(_plain_write(plain, path.stat().st_size))
            ranks.barrier()
            start = time.perf_counter()
            if ranks.is_root:
                Checkpoint(path)  # its checksum, as before a run goes on
            load(ranks, learners, names, path)
            ranks.barrier()
            seconds["read"].append(time.perf_counter() - start)
        if not ranks.is_root:
            return {}
        figures = {f"checkpoint_{name}_seconds": float(np.median(spent)) for name, spent in seconds.items()}
        return {
            "checkpoint_bytes": path.stat().st_size,
            **figures,
            "checkpoint_share_of_plain_write": figures["checkpoint_plain_write_seconds"]
            / figures["checkpoint_write_seconds"],
            "checkpoint_growth_of_peak_memory_bytes": memory()[0] - before,
        }


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


def _traffic(domain: Domain) -> dict[str, float]:
    """Of traffic's local simulators: throughput by number of tiles, beside SUMO's bare stepping of the same
    tiles, and what RESETS resets leave behind in memory."""
    from dials_mpi.domains.traffic.throughput import reset_often, throughput
    from dials_mpi.provenance import memory

    reset_often(domain, 10)
    before = memory()[1]
    reset_often(domain, RESETS)
    figures = {f"memory_growth_over_{RESETS}_resets_bytes": memory()[1] - before}
    for tiles in TILES:
        rate, bare = throughput(domain, tiles, seconds=3)
        figures[f"local_region_steps_per_second_{tiles}_tiles"] = rate
        figures[f"bare_sumo_region_steps_per_second_{tiles}_tiles"] = bare
        figures[f"share_of_bare_stepping_{tiles}_tiles"] = rate / bare
    return figures


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = Parser("bench", "Measure training speed beside the machine's own limits.", EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as ppo.epochs=3")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file; default: the paper's 100-agent warehouse"
    )
    parser.add_argument("--updates", type=int, default=40, help="updates per region (default 40)")
    parser.add_argument(
        "--folder", default=".", metavar="DIR", help="where to try a checkpoint; default: here"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    options = parser.parse_intermixed_args(argv)

    def program(ranks: Ranks) -> int:
        config = agreed(ranks, lambda: _checked(options))
        if isinstance(config, int):
            return config
        figures = measure(config, ranks, options.updates, options.folder)
        if ranks.is_root:
            _show(figures)
            if options.json:
                Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
        ranks.barrier()
        return 0

    mpi.run(program)


def _checked(options: argparse.Namespace) -> Config:
    """The configuration to measure. BadInput: it, or another argument, cannot be used."""
    if options.updates < 1:
        raise BadInput(f"--updates is {options.updates}: give at least 1")
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise BadInput(f"--json {options.json} lies in no folder: make the folder first")
    if not os.access(options.folder, os.W_OK | os.X_OK):
        raise BadInput(
            f"--folder {printable(options.folder)} is no folder that can be written: choose another"
        )
    config = load(options.config, options.overrides)
    create(config.domain, config.domain_section).versions()  # refuses where something is missing
    return config


def _show(figures: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
