"""The command ``study``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

from dials_mpi.cli import Parser, word
from dials_mpi.core.errors import DONE, REFUSED, STOPPED, BadInput, refuse
from dials_mpi.core.launchers import launched, launched_as_root
from dials_mpi.core.output import command_line
from dials_mpi.core.text import shown
from dials_mpi.parallel.layout import default_ranks
from dials_mpi.results.style import require_report_libraries
from dials_mpi.run.walltime import deadline_of
from dials_mpi.study.board import show_states
from dials_mpi.study.launch import plan_launch
from dials_mpi.study.plan import Study, StudyRun, load_study
from dials_mpi.study.ranking import begun as begun_runs
from dials_mpi.study.ranking import keep
from dials_mpi.study.ranking import show as show_trials
from dials_mpi.study.reporting import report
from dials_mpi.study.sampling import SAMPLERS
from dials_mpi.study.series import Series
from dials_mpi.study.state import Phase, State, state_of
from dials_mpi.study.sweep import TrialSeries
from dials_mpi.study.sweep_plan import load_sweep
from dials_mpi.study.trials import Trials

EXAMPLES = """examples:
  python -m dials_mpi.study configs/studies/figure-3-warehouse-small.yaml --report figures
  python -m dials_mpi.study configs/studies/figure-3-warehouse.yaml --list      the state of all runs
  python -m dials_mpi.study configs/studies/figure-3-warehouse.yaml --only 1-9 total_steps=1_000_000
  python -m dials_mpi.study configs/studies/table-3.yaml --launcher "srun -n {ranks}" --ranks 101
  python -m dials_mpi.study configs/studies/sweep-warehouse.yaml --sampler optuna    search for settings
  sbatch --array=1-$(python -m dials_mpi.study FILE --count) jobs/study.sbatch FILE    one job for each run

The same command line again continues a study that was stopped for any reason. Several machines that share a
disk may work on one study at the same time; each waits for the runs of the others. Signals are passed on to
the current run: SIGUSR1 stops the study at the run's next checkpoint, SIGTERM and SIGINT (Ctrl-C) at once.
Exit codes: 0 done, 75 stopped with work left, 2 bad input, 1 a run has failed (all others were done)."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it starts the ranks of each run itself."""
    begun = time.monotonic()
    options = _parser().parse_intermixed_args(argv)
    try:
        sys.exit(_program(options, begun))
    except BadInput as refusal:
        sys.exit(refuse(refusal) if launched_as_root() else REFUSED)


def _parser() -> Parser:
    parser = Parser(
        "study", "Train a grid of systems, methods and seeds, one run after another.", EXAMPLES, alone=False
    )
    parser.add_argument("study", metavar="FILE", help="YAML file; those of the paper are in configs/studies")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all runs")
    parser.add_argument(
        "--output", metavar="DIR", type=word, help="folder for the runs; default: runs/ and the name of FILE"
    )
    parser.add_argument(
        "--ranks",
        metavar="R",
        type=_ranks,
        help="the most ranks for a run; default: that of FILE, or the number of cores + 1",
    )
    parser.add_argument(
        "--launcher",
        metavar="COMMAND",
        help="command that starts the ranks, with {ranks} for their number; default: mpirun -n {ranks}",
    )
    parser.add_argument(
        "--walltime",
        metavar="H:MM:SS",
        help="stop, with a checkpoint, before this time has passed; default: the end of the SLURM job",
    )
    parser.add_argument("--only", metavar="N", type=word, help="only these runs, such as 7 or 1-4,9")
    parser.add_argument(
        "--report", metavar="FOLDER", type=word, help="at the end, write a report of these runs to FOLDER"
    )
    parser.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="for a FILE with a sweep: how the values in its ranges are chosen (extra: sweep)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="print the state of all runs, start none")
    instead.add_argument("--count", action="store_true", help="print the number of runs, start none")
    return parser


def _program(options: argparse.Namespace, begun: float) -> int:
    if launched():
        raise BadInput(
            "a study starts the ranks of each run itself: start it without mpirun, and with --ranks R"
        )
    if options.sampler:
        return _sweep(options, begun)
    study = load_study(options.study, options.output, options.overrides)
    if options.count:
        print(len(_chosen(study.runs, options.only)))
        return DONE
    runs = _chosen(study.runs, options.only)
    if options.report:
        require_report_libraries()  # now, not after the runs
    code = _list(study, runs) if options.list else _work(study, runs, options, begun)
    if options.report and code != STOPPED:
        return report(runs, options.report) or code
    return code


def _sweep(options: argparse.Namespace, begun: float) -> int:
    if options.only or options.count:
        option = "--only" if options.only else "--count"
        raise BadInput(f"{option} is given with --sampler, and a trial depends on those before it: remove it")
    if options.report:
        require_report_libraries()
    sweep = load_sweep(options.study, options.output, options.overrides)
    trials = Trials(sweep, options.sampler)
    if options.list:
        trials.replay()
        show_trials(trials)
        code = DONE
    else:
        code = _search(trials, options, begun)
    if options.report and code != STOPPED:
        return report(begun_runs(trials), options.report) or code
    return code


def _search(trials: Trials, options: argparse.Namespace, begun: float) -> int:
    """Run all trials, write the results and print their table."""
    _require_same_settings(trial.state for trial in trials)
    trials.replay(leading=True)
    most = options.ranks or trials.sweep.ranks or default_ranks()
    deadline, notes = deadline_of(options.walltime, begun)
    series = TrialSeries(
        trials,
        lambda run: plan_launch(most, options.launcher, [run]),
        *(deadline, options.walltime is not None),
        lambda: keep(trials),
    )
    keep(trials)
    code = _worked(series, notes)
    show_trials(trials)
    return STOPPED if series.processes.stopped and options.report else code


def _worked(series: Series, notes: Iterable[str]) -> int:
    for note in notes:
        series.board.print(note)
    return series.work()


def _list(study: Study, runs: Sequence[StudyRun]) -> int:
    show_states(study, {run: state_of(run) for run in runs})
    return DONE


def _work(study: Study, runs: Sequence[StudyRun], options: argparse.Namespace, begun: float) -> int:
    states = {run: state_of(run) for run in runs}
    _require_same_settings(states.values())
    launch = plan_launch(options.ranks or study.ranks or default_ranks(), options.launcher, runs)
    deadline, notes = deadline_of(options.walltime, begun)
    series = Series(states, launch, deadline, limited=options.walltime is not None)
    code = _worked(series, notes)
    # After a signal that came too late to stop a run, the next session writes the report.
    return STOPPED if series.processes.stopped and options.report else code


def _require_same_settings(states: Iterable[State]) -> None:
    """BadInput: existing runs have other settings than the study, which cannot continue them."""
    others = [state.trouble for state in states if state.phase is Phase.OTHER]
    if others:
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        raise BadInput(f"{others[0]}{more}: give the same ones, or another folder with --output")


def _ranks(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"is {shown(text)}, give a whole number from 1 on")
    return int(text)


def _chosen(runs: Sequence[StudyRun], only: str | None) -> list[StudyRun]:
    """The runs with these numbers, in the order of the study. BadInput: there are no such runs."""
    if only is None:
        return list(runs)
    numbers: set[int] = set()
    for part in only.split(","):
        match = re.fullmatch(r"(0|[1-9]\d{0,5})(?:-(0|[1-9]\d{0,5}))?", part.strip(), re.ASCII)
        if not match:
            raise BadInput(f"--only is {shown(only)}: write numbers of runs, such as 7 or 1-4,9")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= len(runs):
            raise BadInput(f"--only is {shown(only)}, but the runs have the numbers 1 to {len(runs)}")
        numbers.update(range(first, last + 1))
    return [run for run in runs if run.number in numbers]


if __name__ == "__main__":
    main()
