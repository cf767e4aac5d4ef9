"""The results of a sweep: the table of its trials, ``trials.csv`` and ``best.yaml``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from dials_mpi.core.console import BestEffortConsole
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.storage.files import output_file
from dials_mpi.study.board import BATCH_WIDTH, summary
from dials_mpi.study.plan import StudyRun
from dials_mpi.study.state import Phase
from dials_mpi.study.trials import Trial, Trials

TABLE, BEST = "trials.csv", "best.yaml"


def keep(trials: Trials) -> None:
    """Write both files into the folder of the sweep. BadInput: they cannot be written."""
    folder = trials.sweep.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(
            f"{printable(str(folder))} cannot be made ({reason}): choose another --output"
        ) from None
    _write(folder / TABLE, _csv(trials))
    if best := trials.best():
        value = f"{trials.sweep.statistic} {trials.value(best):.6g}"
        first = f"# The best of the sweep {printable(trials.sweep.name)}: {best.run.name}, {value}.\n\n"
        _write(folder / BEST, first + best.run.config.to_yaml())


def show(trials: Trials) -> None:
    """Print the table of the trials, the best first, then those that were not begun."""
    console = BestEffortConsole()
    if not console.is_terminal:
        console.width = BATCH_WIDTH
    sweep = trials.sweep
    table = Table(title=f"{sweep.name}: {len(trials.all)} trials in {printable(str(sweep.folder))}")
    for name in ("trial", "state", sweep.statistic, *sweep.ranges):
        table.add_column(name, justify="left" if name in ("trial", "state") else "right")
    for trial in [*trials.ranked(), *(one for one in trials if not one.asked)]:
        value = trials.value(trial)
        shown = "" if math.isnan(value) else f"{value:.2f}"
        table.add_row(trial.run.name, _state(trial), shown, *map(_short, _values(trials, trial)))
    console.print(table)
    for trial in trials:
        if trouble := trial.refused or trial.state.trouble:
            console.print(f"{trial.run.name}: {trouble}", soft_wrap=True)
    console.print(summary(trial.state for trial in trials))
    if best := trials.best():
        console.print(f"best: {best.run.name}, in {printable(str(sweep.folder / BEST))}", soft_wrap=True)


def begun(trials: Trials) -> list[StudyRun]:
    """The runs of all trials that have a directory, without those that repeat another one's settings."""
    runs = {one.run.config.digest(): one.run for one in reversed(trials.all) if one.state.evaluated}
    return sorted(runs.values(), key=lambda run: run.number)


def _csv(trials: Trials) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("trial", "state", "env_steps", trials.sweep.statistic, *trials.sweep.ranges))
    for trial in trials.ranked():
        value = trials.value(trial)
        known = "" if math.isnan(value) else value
        steps = trial.points[-1].env_steps if trial.points else 0
        row = trial.run.name, _phase(trial), steps, known
        writer.writerow((*row, *_values(trials, trial)))
    return text.getvalue()


def _write(file: Path, text: str) -> None:
    with output_file(file, "--output") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _values(trials: Trials, trial: Trial) -> Iterator[str]:
    """The texts of the settings that are swept; none for a trial that was not begun."""
    for key, value in trial.asked.drawn.items() if trial.asked else ():
        yield trials.sweep.ranges[key].word(value)


def _short(text: str) -> str:
    """A number with four digits, any other text as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _phase(trial: Trial) -> str:
    return "refused" if trial.refused else trial.state.phase


def _state(trial: Trial) -> str:
    partly = trial.state.phase in (Phase.PRUNED, Phase.RUNNING, Phase.INTERRUPTED)
    at = f" at {trial.state.env_steps:,} steps" if partly else ""
    return f"{_phase(trial)}{at}"
