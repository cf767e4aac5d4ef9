"""The command line of export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dials_mpi.cli import Parser, add_unchecked, integer, word
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.export import arrays, program
from dials_mpi.export.describe import describe_all, describe_policy, describe_run
from dials_mpi.results.run import Run
from dials_mpi.storage.files import output_file

EXAMPLES = """examples:
  python -m dials_mpi.export runs/warehouse-4-dials-seed0 --region 2 --out robot.pt
  python -m dials_mpi.export runs/warehouse-4-dials-seed0 --all --out robots.npz --checkpoint best
  python -m dials_mpi.export runs/city-cologne8-dials-seed0 --traci lights.py

A .pt file is a TorchScript program, which needs only PyTorch: torch.jit.load(FILE)(observation, state)
returns logits, value and the next state. A .pt2 file is the same for torch.export.load(FILE).module(), and an
.onnx file for ONNX runtimes. An .npz file holds the parameters of all policies, for numpy.load. All hold a
description of the inputs and outputs, in JSON. --traci writes a program that controls the traffic lights of a
city in SUMO, which needs traci or libsumo and numpy, and an .npz file beside it: python lights.py --help."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("export", "Write a run's trained policies for use without this package.", EXAMPLES)
    parser.add_argument("directory", metavar="DIR", type=word, help="a run")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--region", type=integer, metavar="K", help="the policy of region K, for PyTorch")
    which.add_argument(
        "--agent", type=integer, metavar="I", help="the policy of agent I, if regions hold several"
    )
    which.add_argument("--all", action="store_true", help="all policies, as arrays")
    which.add_argument(
        "--traci", metavar="FILE.py", type=word, help="a city: a program that controls it in SUMO"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=word,
        help="ends with .pt, .pt2 or .onnx; with --all, .npz; not for --traci",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        type=word,
        help="best, newest or its steps: a run's checkpoint in place of its end",
    )
    add_unchecked(parser)
    options = parser.parse_args(argv)
    try:
        written = _export(options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    print(f"{written} in {printable(options.traci or options.out)}")
    sys.exit(0)


def _export(options: argparse.Namespace) -> str:
    """Write the file; what it holds, in words. BadInput: the options or the run do not allow it."""
    if options.traci:
        return _export_program(options)
    endings, write = ((".npz",), _write_all) if options.all else ((".pt", ".pt2", ".onnx"), _write_one)
    better = f"choose a name that ends with {' or '.join(endings)}"
    if options.out is None:
        raise BadInput(f"--out is not given: {better}")
    if not options.out.endswith(endings):
        hint = "; .npz needs --all" if options.out.endswith(".npz") else ""
        raise BadInput(f"--out is {printable(options.out)}: {better}{hint}")
    run = Run.open(options.directory, options.checkpoint, options.unchecked)
    return f"{write(run, options)} after {run.env_steps:,} steps per agent"


def _export_program(options: argparse.Namespace) -> str:
    if options.out is not None:
        raise BadInput("--out is given beside --traci, which names the file: leave it out")
    if not options.traci.endswith(".py"):
        raise BadInput(f"--traci is {printable(options.traci)}: choose a name that ends with .py")
    if Path(options.traci).stem in sys.stdlib_module_names | {"traci", "libsumo", "numpy"}:
        # The program would import itself.
        raise BadInput(f"--traci is {printable(options.traci)}, the name of a Python module: choose another")
    run = Run.open(options.directory, options.checkpoint, options.unchecked)
    program.write(run, Path(options.traci))
    number = len(run.actors)
    return f"a program with {number} policies after {run.env_steps:,} steps per agent"


def _write_one(run: Run, options: argparse.Namespace) -> str:
    # Not at the top: only this needs PyTorch.
    from dials_mpi.learning import torchscript

    agent = _agent(options, run)
    policy = run.networks[agent]
    description = {**describe_run(run), "agent": agent, **describe_policy(policy)}
    with output_file(Path(options.out)) as file:
        torchscript.write(policy, description, file)
    return f"the policy of agent {agent}"


def _agent(options: argparse.Namespace, run: Run) -> int:
    """The number of the chosen agent. BadInput: there is no such agent or region, or several."""
    regions, agents = run.domain.regions, len(run.domain.agents)
    if options.region is None:
        if not 0 <= options.agent < agents:
            raise BadInput(f"--agent is {options.agent}: there are 0 to {agents - 1}")
        return options.agent
    if not 0 <= options.region < len(regions):
        raise BadInput(f"--region is {options.region}: there are 0 to {len(regions) - 1}")
    held = regions[options.region].agents
    if len(held) > 1:
        raise BadInput(
            f"region {options.region} holds the agents {', '.join(map(str, held))}: choose one with --agent"
        )
    return held[0]


def _write_all(run: Run, options: argparse.Namespace) -> str:
    with output_file(Path(options.out)) as file:
        arrays.write(run.layers, describe_all(run), file)
    return f"{len(run.layers)} policies"


if __name__ == "__main__":
    main()
