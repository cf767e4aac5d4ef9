"""The console as a sink: a progress bar at a terminal, lines of text elsewhere, tables at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dials_mpi.algorithm.evaluation import Evaluation, baseline
from dials_mpi.config.schedule import segments
from dials_mpi.core.console import BestEffortConsole
from dials_mpi.core.launchers import launched
from dials_mpi.core.logging import LOG
from dials_mpi.core.shell import command, option
from dials_mpi.core.text import heading, printable
from dials_mpi.domains.base import Statistic
from dials_mpi.run.sinks.base import Session, Sink
from dials_mpi.run.walltime import clock

USELESS = 1.1
"""Predictors with more than so many times the cross-entropy of class frequencies mislead policies."""


class ConsoleSink(Sink):
    """Shows progress and results to the user, and logs the same lines. Times are seconds of all sessions."""

    name = "console"
    task: TaskID

    def __init__(self) -> None:
        # Open MPI gives its ranks a terminal even if their output goes to a file.
        terminal = False if launched() else None
        self.console = BestEffortConsole(soft_wrap=True, force_terminal=terminal)
        # Of the evaluations of this session: steps per agent, and seconds without refits.
        self.marks: list[tuple[int, float]] = []
        self.refits: list[float] = []  # seconds of each refit of this session, with its collection
        self.last = 0.0  # seconds at the last record
        self.bar: Progress | None = None

    def session(self, session: Session) -> None:
        """Show the bar, at a terminal."""
        self.about, self.total_steps = session, session.config.total_steps
        self.last = session.wall_time
        if self.console.is_terminal:
            self._show_bar()

    def message(self, text: str) -> None:
        """Print and log a line."""
        self.console.print(text)
        LOG.info(text)

    def phase(self, wall_time: float, text: str) -> None:
        """Show what the run does now: beside the bar, or as a line with the time."""
        if self.bar:
            self.bar.update(self.task, phase=text)
            LOG.info(text)
        else:
            self.message(f"{clock(wall_time)}  {text}")

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """Show the mean cross-entropies over the regions, and whether the predictors are of any use."""
        means = dict(zip(columns, losses.mean(axis=0), strict=True))
        text = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        if means["after"] > USELESS * means["constant"]:
            text += " (worse than class frequencies: raise influence.epochs or influence.learning_rate)"
        self.refits.append(wall_time - self.last)
        self.last = wall_time
        self.phase(wall_time, f"cross-entropy of the predictors on held-out episodes: {text}")

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Show the means, the speed and the time that remains."""
        parts = [f"{env_steps:,} of {self.total_steps:,} steps", f"return {evaluation.mean:.2f}"]
        if evaluation.cross_entropy is not None:
            parts.append(f"cross-entropy {evaluation.cross_entropy.mean():.3f}")
        self.marks.append((env_steps, wall_time - sum(self.refits)))
        self.last = wall_time
        if env_steps:
            parts.append(f"{self.about.agents / self._seconds_per_step():,.0f} agent-steps/s")
            parts.append(f"ETA {clock(self._remaining(env_steps))}")
        self.message(f"{clock(wall_time)}  {' | '.join(parts)}")
        if self.bar:
            self.bar.update(self.task, completed=env_steps, eta=clock(self._remaining(env_steps)))

    def references(self, trained: Evaluation, references: Mapping[str, Evaluation]) -> None:
        """Show a table with a row per policy: returns, the domain's statistics; and where the files are."""
        self.close()
        rest = {name: result for name, result in references.items() if name != "random"}
        results = {"random": references["random"], "trained": trained, **rest}
        self.console.print(_returns(results, self.about.agents))
        statistics = self.about.statistics
        for first in range(0, len(statistics), COLUMNS):
            self.console.print(_statistics(results, statistics[first : first + COLUMNS]))
        directory = self.about.directory
        self.message(f"Results: {printable(str(directory / 'run.h5'))}")
        self.message(f"Evaluate again: {command('evaluate', directory)}")

    def stopped(self, env_steps: int, wall_time: float) -> None:
        """Say how to continue."""
        self.close()
        self.message(
            f"{clock(wall_time)}  stopped at {env_steps:,} of {self.total_steps:,} steps, with a checkpoint: "
            f"start it again with {option('resume')}"
        )

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _seconds_per_step(self) -> float:
        """Since the second evaluation of the session: the time before it has the start. Without refits."""
        steps, seconds = self.marks[1 if len(self.marks) > 2 else 0]
        now, elapsed = self.marks[-1]
        return (elapsed - seconds) / (now - steps) if now > steps else elapsed / now

    def _remaining(self, env_steps: int) -> float:
        """Seconds to the end of training; NaN if not known yet."""
        if not env_steps:
            return float("nan")
        to_come = sum(one.refit for one in segments(self.about.config) if one.env_steps > env_steps)
        refits = to_come * float(np.mean(self.refits)) if self.refits else 0.0
        return self._seconds_per_step() * max(0, self.total_steps - env_steps) + refits

    def _show_bar(self) -> None:
        self.bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            TextColumn("{task.fields[phase]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=self.total_steps, phase="starting", eta="-:--:--")
        self.bar.start()


COLUMNS = 5
"""Statistics in one table, which then fits into 80 columns."""


def _returns(results: Mapping[str, Evaluation], agents: int) -> Table:
    """The mean return of each policy, and its difference from that of the baseline in the same episodes."""
    first = baseline(results)
    table = Table(title=f"Mean return per agent and episode, {agents} agents, global simulator")
    for column in ("policy", "return", "standard error", "episodes", f"minus {first}", "standard error"):
        named = column == "policy"
        table.add_column(column, justify="left" if named else "right", no_wrap=named)
    for name, result in results.items():
        episodes = str(len(result.returns))
        minus = ["" if name == first else f"{number:.2f}" for number in result.minus(results[first])]
        table.add_row(name, f"{result.mean:.2f}", f"{result.standard_error:.2f}", episodes, *minus)
    return table


def _statistics(results: Mapping[str, Evaluation], statistics: Sequence[Statistic]) -> Table:
    """The mean of the domain's statistics for each policy."""
    table = Table(title="Means over the same episodes")
    table.add_column("policy", no_wrap=True)
    for statistic in statistics:
        table.add_column(heading(statistic.name, statistic.unit), justify="right")
    for name, result in results.items():
        means = [result.statistic(statistic.name) for statistic in statistics]
        table.add_row(name, *("-" if mean is None else f"{mean:.1f}" for mean in means))
    return table
