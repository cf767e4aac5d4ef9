"""What a person sees while it runs: a bar at a terminal, plain lines in a batch log, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.config import Config
from dials_mpi.core.console import LastingConsole
from dials_mpi.core.launchers import launched
from dials_mpi.core.logging import LOG
from dials_mpi.core.shell import command
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Statistic
from dials_mpi.run.walltime import clock


class Reporter:
    """Root's voice, to the user and to the log. Times are wall-clock seconds of all the run's sessions."""

    def __init__(self, config: Config, agents: int, spent: float = 0.0) -> None:
        """spent: seconds in the sessions before."""
        self.config, self.agents = config, agents
        # Open MPI gives its ranks a terminal even where all of it ends in a batch log.
        terminal = False if launched() else None
        self.console = LastingConsole(soft_wrap=True, force_terminal=terminal)
        self.start = time.perf_counter() - spent
        self.marks: list[tuple[int, float]] = []  # steps per agent and seconds at evaluations of this session
        self.bar = self._bar() if self.console.is_terminal else None

    def elapsed(self) -> float:
        """Seconds that the run has taken, those of earlier sessions included."""
        return time.perf_counter() - self.start

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text)
        LOG.info(text)

    def phase(self, text: str) -> None:
        """What goes on now: beside the bar, or a line with the time."""
        if self.bar:
            self.bar.update(self.task, phase=text)
            LOG.info(text)
        else:
            self.say(f"{clock(self.elapsed())}  {text}")

    def evaluated(self, env_steps: int, evaluation: Evaluation) -> None:
        """The state of affairs after an evaluation at this number of steps per agent."""
        parts = [f"{env_steps:,} of {self.config.total_steps:,} steps", f"return {evaluation.mean:.2f}"]
        if evaluation.cross_entropy is not None:
            parts.append(f"cross-entropy {evaluation.cross_entropy.mean():.3f}")
        self.marks.append((env_steps, self.elapsed()))
        if env_steps:
            parts.append(f"{self.agents / self._pace():,.0f} agent-steps/s")
            parts.append(f"ETA {clock(self._remaining(env_steps))}")
        self.say(f"{clock(self.elapsed())}  {' | '.join(parts)}")
        if self.bar:
            self.bar.update(self.task, completed=env_steps, eta=clock(self._remaining(env_steps)))

    def finish(
        self, results: Mapping[str, Evaluation], statistics: Sequence[Statistic], directory: Path
    ) -> None:
        """The tables at the end, a row per policy: returns, the domain's statistics; where the files are."""
        self.close()
        table = Table(title=f"Mean return per agent and episode, {self.agents} agents, global simulator")
        for heading in ("policy", "return", "standard error", "episodes"):
            table.add_column(heading, justify="left" if heading == "policy" else "right")
        for name, result in results.items():
            episodes = str(len(result.returns))
            table.add_row(name, f"{result.mean:.2f}", f"{result.standard_error:.2f}", episodes)
        self.console.print(table)
        if statistics:
            self.console.print(_statistics(results, statistics))
        self.say(f"Results: {printable(str(directory / 'run.h5'))}")
        self.say(f"Evaluate again: {command('evaluate', directory)}")

    def stopped(self, env_steps: int) -> None:
        """The run ends here for now."""
        self.close()
        self.say(
            f"{clock(self.elapsed())}  stopped at {env_steps:,} of {self.config.total_steps:,} steps, with "
            "a checkpoint: go on with the same command line and --resume"
        )

    def close(self) -> None:
        """Give the terminal back."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _pace(self) -> float:
        """Seconds per step since the second evaluation: before it are the start and, mostly, a first fit."""
        steps, seconds = self.marks[1 if len(self.marks) > 2 else 0]
        now, elapsed = self.marks[-1]
        return (elapsed - seconds) / (now - steps) if now > steps else elapsed / now

    def _remaining(self, env_steps: int) -> float:
        return self._pace() * max(0, self.config.total_steps - env_steps) if env_steps else float("nan")

    def _bar(self) -> Progress:
        bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            TextColumn("{task.fields[phase]}"),
            console=self.console,
        )
        self.task = bar.add_task("", total=self.config.total_steps, phase="starting", eta="-:--:--")
        bar.start()
        return bar


def _statistics(results: Mapping[str, Evaluation], statistics: Sequence[Statistic]) -> Table:
    """The domain's own figures of each policy."""
    table = Table(title="Means over the same episodes")
    table.add_column("policy", no_wrap=True)
    for statistic in statistics:
        table.add_column(f"{statistic.name.replace('_', ' ')}, {statistic.unit}", justify="right")
    for name, result in results.items():
        means = [result.statistic(statistic.name) for statistic in statistics]
        table.add_row(name, *("-" if mean is None else f"{mean:.1f}" for mean in means))
    return table
