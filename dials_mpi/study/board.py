"""The output of a study: lines, a progress bar on a terminal, and the table of all runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dials_mpi.core.console import BestEffortConsole, PlainConsole
from dials_mpi.core.text import printable
from dials_mpi.run.walltime import clock
from dials_mpi.study.plan import Study, StudyRun
from dials_mpi.study.state import Phase, State, remaining

BATCH_WIDTH = 160


class Board:
    """Prints the progress of a study; states: the known states of its runs, by name, which give the ETA."""

    def __init__(self, runs: Sequence[StudyRun], states: Mapping[str, State]) -> None:
        self.runs, self.states = runs, states
        self.console = BestEffortConsole(soft_wrap=True)
        self.start = time.monotonic()
        self.bar = self._bar() if self.console.is_terminal else None

    def print(self, text: str) -> None:
        """Print a line with the time since the start of the study."""
        self.console.print(f"{clock(time.monotonic() - self.start)}  {text}")

    def show_start(self, run: StudyRun, ranks: int) -> None:
        """Show that a run is started or continued."""
        if self.bar:
            total = run.config.total_steps
            self.bar.update(self.task, total=total, completed=0, name=_name(run), result="", visible=True)
        else:
            before = self.states[run.name].env_steps
            what = f"continues from {before:,} steps" if before else "starts"
            self.print(f"{_name(run)} {what} on {ranks} rank{'s' * (ranks > 1)}")

    def show_progress(self, state: State) -> None:
        """Show the state of the current run."""
        if self.bar:
            shown = "" if math.isnan(state.mean_return) else f"return {state.mean_return:.2f}"
            self.bar.update(self.task, completed=state.env_steps, result=shown, eta=self._eta())

    def show_end(self, run: StudyRun, outcome: str) -> None:
        """Print the outcome of a run."""
        if self.bar:
            self.bar.update(self.task, visible=False)
        self.print(f"{_name(run)} {outcome} | ETA {self._eta()}")

    def close(self) -> None:
        """Remove the progress bar."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _eta(self) -> str:
        return clock(remaining(self.runs, self.states))

    def _bar(self) -> Progress:
        bar = Progress(
            TextColumn("{task.fields[name]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[result]}"),
            TextColumn("study ETA {task.fields[eta]}"),
            console=self.console,
        )
        self.task = bar.add_task("", total=1, name="", result="", eta=clock(math.nan), visible=False)
        bar.start()
        return bar


def show_states(study: Study, states: Mapping[StudyRun, State]) -> None:
    """Print the table of runs and their states, and the number of runs in each state."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = BATCH_WIDTH
    table = Table(title=f"{study.name}: {len(study.runs)} runs in {printable(str(_folder(study)))}")
    for heading in ("", "run", "state", "return", "time"):
        table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
    for run, state in states.items():
        table.add_row(*_row(run, state))
    console.print(table)
    for state in states.values():
        if state.trouble:
            console.print(state.trouble, soft_wrap=True)
    console.print(summary(states.values()))


def summary(states: Iterable[State]) -> str:
    """The number of runs in each state: ``3 finished, 1 interrupted``."""
    phases = [state.phase for state in states]
    return ", ".join(f"{phases.count(phase)} {phase}" for phase in Phase if phase in phases)


def _name(run: StudyRun) -> str:
    return f"run {run.number} of {run.of}: {run.name}"


def _row(run: StudyRun, state: State) -> tuple[str, ...]:
    where = f" at {state.env_steps:,} of {run.config.total_steps:,} steps"
    started = state.phase not in (Phase.NOT_STARTED, Phase.FINISHED, Phase.UNREADABLE)
    by = f" ({printable(state.holder)})" if state.holder else ""
    return (
        str(run.number),
        run.name,
        f"{state.phase}{where * started}{by}",
        "" if math.isnan(state.mean_return) else f"{state.mean_return:.2f}",
        "" if math.isnan(state.seconds) else clock(state.seconds),
    )


def _folder(study: Study) -> object:
    return study.runs[0].directory.parent
