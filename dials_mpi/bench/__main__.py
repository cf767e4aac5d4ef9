"""The command ``bench``."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from dials_mpi.bench import floors, projection, tables
from dials_mpi.bench.costs import Recorded, measured_costs, read_run, require_same_costs, require_spread
from dials_mpi.bench.torch_twins import with_twins
from dials_mpi.cli import Parser, add_unchecked, agreed, integer, runs_and_settings, word
from dials_mpi.config import Config, load
from dials_mpi.core.console import BestEffortConsole
from dials_mpi.core.errors import BadInput
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable, shown
from dials_mpi.domains import create, require_local
from dials_mpi.parallel import launch
from dials_mpi.parallel.communicator import Communicator

EXAMPLES = """examples:
  mpirun -n 3 python -m dials_mpi.bench --config configs/warehouse/4.yaml --json bench.json
  python -m dials_mpi.bench --config configs/traffic/4.yaml --tiles
  python -m dials_mpi.bench --config configs/warehouse/fast.yaml --torch
  python -m dials_mpi.bench --plan configs/traffic/100.yaml traffic.grid=[20,20]
  python -m dials_mpi.bench --plan configs/warehouse/100.yaml --ranks 32 --nodes 2
  mpirun -n 3 python -m dials_mpi.bench --project --config configs/warehouse/100.yaml
  mpirun -n 3 python -m dials_mpi.bench --project runs/short --config configs/warehouse/100.yaml
  mpirun -n 3 python -m dials_mpi.bench --project runs/4 runs/25 --compare runs/100

--plan measures for about a minute, and prints what a run of FILE needs: hours, memory and disk, which of
these grow with what, and the schedule and number of global ranks that suit it.

--project prints the wall-clock time with one core per rank for several numbers of regions. It uses the CPU
seconds that the runs DIR have recorded; without DIR it measures them first. Two runs of different size
separate root's fixed costs from its costs per region. The projected run has the configuration given by
--config and key=value; without them, that of the first DIR."""

MOST_REGIONS = 10**7

GROUPS = ("shares", "projection", "exposed", "comparison", "plan")
"""Groups of figures that are groups in the JSON file, too."""


class Task(NamedTuple):
    """The configuration to measure or project; runs: those to project from; comparison: with this run."""

    config: Config
    runs: list[Recorded]
    comparison: Recorded | None
    regions: list[int]


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = Parser(
        "bench", "Measure training speed, and compare it with the machine's limits.", EXAMPLES, alone=False
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="DIR | key=value", help="runs to project, or settings"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file; default: the paper's 100-agent warehouse"
    )
    parser.add_argument("--updates", type=integer, default=40, help="updates per region (default 40)")
    parser.add_argument(
        "--folder",
        default=".",
        metavar="DIR",
        help="folder where a checkpoint is written as a test; default: here",
    )
    parser.add_argument(
        "--matmul",
        choices=floors.LIBRARIES,
        help="library of the matrix products that are the limit; default: torch if it is installed",
    )
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="traffic: also measure by number of local regions in a SUMO process",
    )
    parser.add_argument(
        "--torch",
        action="store_true",
        help="also train with the networks in PyTorch (torch:gru, torch:fnn)",
    )
    parser.add_argument("--plan", metavar="FILE", type=word, help="print what a run of this YAML file needs")
    parser.add_argument(
        "--ranks", metavar="N", type=integer, help="with --plan: ranks (default: one per region, and more)"
    )
    parser.add_argument("--nodes", metavar="K", type=integer, help="with --plan: nodes (default: 1)")
    parser.add_argument(
        "--project", action="store_true", help="print the wall-clock time with one core per rank"
    )
    parser.add_argument(
        "--regions",
        metavar="N,N,...",
        type=word,
        help=f"numbers of regions to project; default: {','.join(map(str, projection.REGIONS))}",
    )
    parser.add_argument(
        "--compare",
        metavar="DIR",
        type=word,
        help="compare the projection of this run with its recorded times",
    )
    parser.add_argument("--json", metavar="FILE", type=word, help="also write the figures to FILE")
    add_unchecked(parser)
    options = parser.parse_intermixed_args(argv)
    launch.run(lambda ranks: _program(ranks, options))


def _program(comm: Communicator, options: argparse.Namespace) -> int:
    task = agreed(comm, lambda: _plan(options))
    if isinstance(task, int):
        return task
    found: dict[str, Any] = {}
    if options.plan:
        found = _show_plan(comm, task, options)
    elif not task.runs:
        found = _measure(comm, task.config, options)
    if options.project:
        found |= _project(comm, task, options.folder, found)
    if comm.is_root and options.json:
        flat: dict[str, Any] = {}
        for group, own in found.items():
            flat |= {group: own} if group in GROUPS else own
        Path(options.json).write_text(json.dumps(flat, indent=2) + "\n")
    comm.barrier()
    return 0


def _measure(comm: Communicator, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print; the figures on root, an empty dictionary elsewhere."""
    from dials_mpi.bench.measure import measure, tiles

    figures = measure(config, comm, options.updates, options.folder, options.matmul, options.torch)
    if figures is None:
        return {}
    if options.tiles:
        figures["tiles"] = tiles(create(config.domain, config.domain_section))
    tables.show_figures(figures)
    return figures


def _project(comm: Communicator, task: Task, folder: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Project and print, on root; figures: measured ones, used if there are no runs."""
    from dials_mpi.bench.checkpoints import write_seconds_per_region
    from dials_mpi.bench.link import measure_link
    from dials_mpi.bench.playing import measure_playing

    link = measure_link(comm)
    if not comm.is_root:
        return {}
    config = task.config
    costs = [run.costs for run in task.runs] or [measured_costs(config, figures)]
    checkpoint, playing = write_seconds_per_region(config, folder), measure_playing(config)
    model = projection.Model.of(config, costs, checkpoint, link, playing)
    rows = {count: projection.project(config, model, count) for count in task.regions}
    exposed = {count: projection.exposed(config, costs, link, playing, count) for count in task.regions}
    tables.show_projection(config, model, costs, rows, playing)
    tables.show_exposed(config, exposed)
    found = {
        "projection": {str(count): terms for count, terms in rows.items()},
        "exposed": {
            str(count): {str(k): share for k, share in own.items()} for count, own in exposed.items()
        },
    }
    if task.comparison:
        compared = projection.compare(task.comparison, costs, checkpoint, link, playing)
        tables.show_comparison(task.comparison, compared)
        found["comparison"] = {
            term: {"projected": projected, "measured": measured}
            for term, (projected, measured) in compared.items()
        }
    return found


def _show_plan(comm: Communicator, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print a plan, on root."""
    from dials_mpi.bench import plan, plan_tables
    from dials_mpi.bench.checkpoints import write_seconds_per_region
    from dials_mpi.bench.link import measure_link
    from dials_mpi.bench.playing import measure_playing
    from dials_mpi.bench.sample import take

    link = measure_link(comm)
    if not comm.is_root:
        return {}
    config = task.config
    BestEffortConsole(stderr=True, soft_wrap=True).print(
        "Measuring on this machine, for one to three minutes ..."
    )
    sample = take(config)
    checkpoint = write_seconds_per_region(config, options.folder)
    ranks, playing = plan.usual_ranks(config, options.ranks), measure_playing(config)
    own = plan.Plan(config, sample, checkpoint, link, ranks, options.nodes, playing=playing)
    compared = plan.choices(own, fixed=options.ranks is not None)
    plan_tables.show_plan(own, compared, [options.plan, *options.arguments])
    return {"plan": plan_tables.figures(own, compared)}


def _plan(options: argparse.Namespace) -> Task:
    """The task of the command line. BadInput: the options, a run or the configuration cannot be used."""
    if options.updates < 1:
        raise BadInput(f"--updates is {options.updates}: give at least 1")
    _require_places(options)
    _require_plan_alone(options)
    directories, overrides = runs_and_settings(options.arguments)
    if not options.project:
        for name, given in (("a directory", directories), ("--regions", options.regions)):
            if given:
                raise BadInput(f"{name} is given without --project, which needs it: give --project as well")
    if options.compare and not options.project:
        raise BadInput("--compare is given without --project: give --project as well")
    runs = [read_run(directory, options.unchecked) for directory in directories]
    config = runs[0].config if runs and not (options.config or overrides) else None
    config = config or load(options.plan or options.config, overrides)
    if options.plan:
        return Task(config, [], None, _planned(config, options))
    comparison = read_run(options.compare, options.unchecked) if options.compare else None
    if options.project:
        _require_one_kind(config, [*zip(directories, runs, strict=True)], options.compare or "", comparison)
    if config.own_learner:
        raise BadInput(
            f"learner is {shown(config.learner)}, and the bench measures learner=ppo only: leave it out"
        )
    domain = create(config.domain, config.domain_section)
    if not runs:
        require_local(domain)
        if getattr(config.domain_section, "sumo", "") == "traci":
            raise BadInput(
                f"{config.domain}.sumo is traci, which runs SUMO in a process whose CPU seconds are not "
                "counted: measure with libsumo"
            )
    if options.torch:
        with_twins(config)  # raises BadInput where there are none
    if options.tiles and config.domain != "traffic":
        raise BadInput(f"--tiles is given, and the {config.domain} has none: leave it out")
    return Task(config, runs, comparison, _region_counts(options.regions))


def _require_plan_alone(options: argparse.Namespace) -> None:
    """BadInput: --plan is given with options of the other tasks, or its own options are given without it."""
    names = ("config", "tiles", "torch", "project", "regions", "compare", "matmul")
    others = [name for name in names if getattr(options, name)]
    if options.plan and others:
        raise BadInput(f"--{others[0]} is given beside --plan: give one of them")
    for name in () if options.plan else ("ranks", "nodes"):
        if getattr(options, name) is not None:
            raise BadInput(f"--{name} is given without --plan, which needs it: give --plan FILE as well")


def _planned(config: Config, options: argparse.Namespace) -> list[int]:
    """BadInput: the configuration cannot be run, or not on so many ranks and nodes."""
    from dials_mpi.algorithm.networks import require_networks
    from dials_mpi.bench.plan import usual_ranks
    from dials_mpi.learning import learner

    domain = create(config.domain, config.domain_section)
    require_local(domain)
    learner.require_usable(config, domain)
    require_networks(config, domain)
    options.nodes = 1 if options.nodes is None else options.nodes
    ranks = usual_ranks(config, options.ranks)
    if not 1 <= options.nodes <= ranks:
        raise BadInput(f"--nodes is {options.nodes}, and there are {ranks} ranks: give 1 to {ranks}")
    return []


def _require_places(options: argparse.Namespace) -> None:
    """BadInput: a file cannot be written where the options say."""
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise BadInput(f"--json {printable(options.json)} lies in no folder: make the folder first")
    if options.json and Path(options.json).is_dir():
        raise BadInput(f"--json {printable(options.json)} is a folder: name a file")
    if not os.access(options.folder, os.W_OK | os.X_OK):
        raise BadInput(
            f"--folder {printable(options.folder)} is no folder that can be written: choose another"
        )


def _require_one_kind(
    config: Config, runs: Sequence[tuple[str, Recorded]], compared: str, comparison: Recorded | None
) -> None:
    """BadInput: the costs of the runs do not apply to the configuration."""
    require_spread(config, "the configuration")
    for directory, run in (*runs, *([(compared, comparison)] if comparison else [])):
        require_same_costs(config, run.config, printable(directory))
    if comparison and not comparison.whole:
        raise BadInput(f"{printable(compared)} had several numbers of ranks: compare with a run that had one")


def _region_counts(text: str | None) -> list[int]:
    """The numbers in --regions. BadInput: they are no numbers, or too small or large."""
    if text is None:
        return list(projection.REGIONS)
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"0|[1-9][0-9]{0,7}", part) for part in parts):
        raise BadInput(f"--regions is {printable(text[:80])}: write numbers such as 4,100,1024")
    counts = sorted({int(part) for part in parts})
    if not 1 <= counts[0] <= counts[-1] <= MOST_REGIONS:
        raise BadInput(f"--regions is {printable(text[:80])}: give numbers from 1 to {MOST_REGIONS}")
    return counts


if __name__ == "__main__":
    main()
