"""Algorithm 1: multi-agent reinforcement learning with DIALS, the same program on every rank.

mpirun -n 101 python -m dials_mpi.train trains the paper's 100-agent warehouse, one region per rank.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from dials_mpi.cli import Parser, agreed, decided, word
from dials_mpi.config import Config
from dials_mpi.core import first_start, signals
from dials_mpi.core.errors import DONE, STOPPED, BadInput, print_error, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.logging import close_logs, open_logs
from dials_mpi.core.output import command_line
from dials_mpi.core.shell import command
from dials_mpi.core.text import printable
from dials_mpi.parallel import launch
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import default_ranks, meaning, require_usable, usable_ranks
from dials_mpi.run.session import SessionStart, require_time
from dials_mpi.run.sinks.base import Sink
from dials_mpi.run.walltime import Deadline, deadline_of
from dials_mpi.storage.files import unlock_directories

if TYPE_CHECKING:
    from dials_mpi.results.run import Run

EXAMPLES = """examples:
  mpirun -n 3 python -m dials_mpi.train --config configs/warehouse/fast.yaml
  mpirun -n 101 python -m dials_mpi.train --resume         the paper's 100-agent warehouse; continue it
  mpirun -n 3 python -m dials_mpi.train --resume --output runs/mine      continue a run as it was configured
  mpirun -n 5 python -m dials_mpi.train --config configs/traffic/4.yaml   four crossings; needs SUMO
  python -m dials_mpi.train --config configs/warehouse/4.yaml seed=1 ppo.learning_rate=1e-4
  python -m dials_mpi.train --config configs/warehouse/4.yaml --policies-from runs/four --output runs/more
  python -m dials_mpi.train warehouse.grid=[3,3] mode=untrained --print-config

Any number of ranks from 1 to the number of regions + 1 gives the same results, also after --resume;
with global_ranks=K it is one, or from K + 1 to the number of regions + K.
SIGUSR1 stops the run at the next segment's end, SIGTERM and SIGINT (Ctrl-C) at once.
Exit codes: 0 done, 75 stopped with work left (continue with --resume), 2 bad input, others a crash."""

UNHEEDED = "this is not the main thread: signals stop no run here, and do what they did before"


def train(
    start: SessionStart,
    comm: Communicator,
    deadline: Deadline,
    callbacks: Sequence[Sink] = (),
    quiet: bool = False,
) -> int:
    """Algorithm 1, on every rank: the global ranks have global simulators, the others hold the regions.

    In mode untrained no segment refits; in mode global the policies train on the global simulator. In
    the schedule overlapped the global ranks play while the others train. Returns the exit code: done, or
    stopped with work left. callbacks: sinks beside those of the configuration (docs/sinks.md). quiet: without
    the console.
    """
    from dials_mpi.run.system import System  # loads numba, which takes a moment

    with System(start, comm, deadline, callbacks, quiet) as system:
        system.begin()  # line 1
        for segment in start.segments():  # line 2
            if segment.refit:  # every F steps
                datasets = system.collect(segment)  # line 3
                system.fit_predictors(datasets, segment)  # lines 4 to 6
                del datasets  # free their memory
            system.play_ahead(segment)  # overlapped: what the next segment would wait for
            system.train_policies(segment)  # lines 7 to 12
            system.evaluate(segment)  # synchronous: at once
            if system.must_stop_after(segment):
                return STOPPED
        system.finish()
    return DONE


def train_from_python(
    config: Config | str | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    walltime: str | None = None,
    callbacks: Sequence[Sink] = (),
    quiet: bool = False,
) -> Run:
    """Train, on this process or on all ranks of an MPI program, each of which calls it; returns the run.

    This is ``dials_mpi.train(...)``. config: of ``dials_mpi.load_config``, or a file or preset such as
    "warehouse/fast"; None with resume: that of the run in output. output, resume, walltime: as the options
    of the command line. callbacks: sinks, called on rank 0. quiet: no output on the terminal. A run that
    stops at its walltime is returned unfinished.

    BadInput, on every rank: the run cannot start. An exception in training is raised if there is one rank;
    if there are more, its traceback is printed and all ranks end, as the others would wait for ever.
    """
    from dials_mpi.results.run import Run
    from dials_mpi.run.resume import wanted

    comm, begun = launch.connect(), time.monotonic()

    def plan() -> tuple[Deadline, SessionStart]:
        directory = os.fspath(output) if output else None
        given = config if isinstance(config, Config) else wanted(config, (), directory, resume)
        return _plan(comm, given, directory, resume, walltime, begun)

    try:
        deadline, start = _of_root(comm, decided(comm, plan))
        if not start.finished:
            open_logs(start.directory, comm.rank, comm.size, every_rank=False)
            with first_start.announced(not quiet):
                launch.together(comm, lambda: train(start, comm, deadline, callbacks, quiet))
    finally:
        close_logs()
        unlock_directories()
    comm.barrier()  # rank 0 has written the last results
    return Run.open(start.directory)


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    begun = time.monotonic()
    parser = Parser("train", "Train the agents of a networked system with DIALS.", EXAMPLES, alone=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as ppo.clip=0.2")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file; default: the paper's 100-agent warehouse, with --resume that of the run in --output",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=word, help="run directory; default: runs/ and a name of its own"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the directory; start it if there is none",
    )
    for kind in ("policies", "predictors"):
        parser.add_argument(
            f"--{kind}-from", metavar="DIR", type=word, help=f"start with the {kind} of another run"
        )
    parser.add_argument(
        "--walltime",
        metavar="H:MM:SS",
        help="stop in time before so much has passed, or before @ and seconds since 1970, with a checkpoint; "
        "default: the end of the SLURM job",
    )
    parser.add_argument(
        "--log-ranks", action="store_true", help="a log file for each rank beside root's DIR/log.txt"
    )
    parser.add_argument("--print-config", action="store_true", help="show the whole configuration and stop")
    parser.add_argument(
        "--print-ranks",
        action="store_true",
        help="print the number of ranks, for mpirun -n, that suits this machine's cores, and stop: one per "
        "core and one more, or fewer if the run cannot use them (stderr: what the number means)",
    )
    options = parser.parse_intermixed_args(argv)
    for key in ("policies_from", "predictors_from"):
        if getattr(options, key):
            options.overrides.append(f"{key}={json.dumps(getattr(options, key))}")  # quoted, as YAML has it
    if options.print_config or options.print_ranks:
        sys.exit(_print(options))
    signals.install_handlers()
    launch.run(lambda comm: _program(comm, options, begun))


def _program(comm: Communicator, options: argparse.Namespace, begun: float) -> int:
    def plan() -> tuple[Deadline, SessionStart]:
        config = _configuration(options)
        return _plan(comm, config, options.output, options.resume, options.walltime, begun)

    planned = agreed(comm, plan)
    if isinstance(planned, int):
        return planned
    deadline, start = _of_root(comm, planned)
    if start.finished:
        if comm.is_root:
            from dials_mpi.core.console import BestEffortConsole

            where = printable(start.directory)
            shown_again = command("evaluate", start.directory)
            BestEffortConsole(soft_wrap=True).print(f"The run in {where} is finished: {shown_again}")
        return DONE
    open_logs(start.directory, comm.rank, comm.size, options.log_ranks)
    return train(start, comm, deadline)


def _configuration(options: argparse.Namespace) -> Config:
    """That of the command line. BadInput: it cannot be read, or a setting is refused."""
    from dials_mpi.run.resume import wanted

    return wanted(options.config, options.overrides, options.output, options.resume)


def _of_root(comm: Communicator, planned: tuple[Deadline, SessionStart]) -> tuple[Deadline, SessionStart]:
    """The plan, without the deadline on other ranks, whose clocks differ: root decides for all."""
    return planned if comm.is_root else (Deadline(), planned[1])


def _plan(
    comm: Communicator,
    config: Config,
    output: str | None,
    resume: bool,
    walltime: str | None,
    begun: float,
) -> tuple[Deadline, SessionStart]:
    """When the run must stop and where it starts, written to the run file. BadInput: it cannot start."""
    from dials_mpi.algorithm.networks import require_networks
    from dials_mpi.core.provenance import versions
    from dials_mpi.domains import create, require_local
    from dials_mpi.learning import devices, learner
    from dials_mpi.run.datasets import require_fitting
    from dials_mpi.run.resume import begin, find
    from dials_mpi.run.sharing import require_simulators
    from dials_mpi.run.sinks import registry
    from dials_mpi.run.warm_start import with_weights

    domain = create(config.domain, config.domain_section)
    program = {**domain.versions(), **versions(), "mpi_library": comm.library}
    if config.mode != "global":
        require_local(domain)
    registry.find(config.sinks)
    learner.require_usable(config, domain)
    require_networks(config, domain)
    require_usable(comm.size, len(domain.regions), config.global_ranks)
    require_simulators(config, domain, comm.size)
    deadline, notes = deadline_of(walltime, begun)
    agents = len(domain.agents)
    directory = output or f"runs/{config.domain_key}-{agents}-{config.mode}-seed{config.seed}"
    start = find(config, domain, directory, resume)
    unheeded = () if signals.available() else (UNHEEDED,)
    start = start._replace(notes=(*start.notes, *notes, *unheeded))
    if not start.finished:
        devices.require(config.learning.device)
        if not start.progress.segments:
            require_fitting(config, domain)
            start = with_weights(start, domain)
        require_time(start, deadline, comm.size)
        begin(start, program, comm.size)
    return deadline, start


def _print(options: argparse.Namespace) -> int:
    if not launched_as_root():
        return DONE
    try:
        config = _configuration(options)
        if options.print_ranks:
            _print_ranks(config)
        else:
            print(config.to_yaml().rstrip("\n"))
    except BadInput as refusal:
        return refuse(refusal)
    return DONE


def _print_ranks(config: Config) -> None:
    """Scripts read the bare number on stdout; what it means is on stderr."""
    from dials_mpi.domains import create

    regions = len(create(config.domain, config.domain_section).regions)
    run = (regions, config.global_ranks, config.mode == "global")
    ranks = usable_ranks(default_ranks(), *run)
    print(ranks, flush=True)
    print_error(meaning(ranks, *run))


class _Callable(ModuleType):
    """``dials_mpi.train`` names this module; a call of it is one of ``train_from_python``."""

    def __call__(self, *arguments: Any, **options: Any) -> Run:
        return train_from_python(*arguments, **options)


if __name__ == "__main__":
    main()
sys.modules[__name__].__class__ = _Callable
