"""CSV files as a sink: DIR/csv/{evaluation,training,influence,timing}.csv, for spreadsheets and pandas.

A row has env_steps, wall_time and one agent, region or rank. Each segment appends whole lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.run.sinks.base import Session, Sink
from dials_mpi.storage.files import replacing

FILES = ("evaluation", "training", "influence", "timing")
KEYS = ("env_steps", "wall_time")


class CsvSink(Sink):
    """Writes one table for each kind of record."""

    name = "csv"

    def session(self, session: Session) -> None:
        """Open the files, without rows that come again."""
        folder = session.directory / "csv"
        folder.mkdir(exist_ok=True)
        self.region_of = session.region_of
        self.tables = {name: _Table(folder / f"{name}.csv", session.last_kept) for name in FILES}

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """Rows by region."""
        names = ["region", *(f"cross_entropy_{name}" for name in columns)]
        self.tables["influence"].add(names, env_steps, wall_time, _numbered(losses))

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """Rows by agent."""
        self.tables["training"].add(["agent", *columns], env_steps, wall_time, _numbered(metrics))

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Rows by agent, with the cross-entropy of its region; the statistics are those of the system."""
        returns, losses = evaluation.returns, evaluation.cross_entropy
        columns = ["agent", "region", "return", "return_standard_error", "cross_entropy"]
        errors = _standard_errors(returns)
        statistics = {name: evaluation.statistic(name) for name in evaluation.statistics}
        rows = (
            [i, k, mean, error, None if losses is None else float(losses[k]), *statistics.values()]
            for i, (k, mean, error) in enumerate(
                zip(self.region_of, returns.mean(axis=0).tolist(), errors.tolist(), strict=True)
            )
        )
        self.tables["evaluation"].add([*columns, *statistics], env_steps, wall_time, rows)

    def costs(
        self,
        env_steps: int,
        wall_time: float,
        phases: Sequence[str],
        seconds: np.ndarray,
        memory: np.ndarray,
        failures: np.ndarray,
    ) -> None:
        """Rows by rank."""
        times = [f"{phase}_{clock}_seconds" for phase in phases for clock in ("wall", "cpu")]
        columns = ["rank", *times, "peak_rss_bytes", "pss_bytes", "simulator_failures"]
        rows = zip(seconds.tolist(), memory.tolist(), failures.tolist(), strict=True)
        values = (
            [rank, *(value for pair in times for value in pair), *(f"{n:.0f}" for n in (*sizes, failed))]
            for rank, (times, sizes, failed) in enumerate(rows)
        )
        self.tables["timing"].add(columns, env_steps, wall_time, values)

    def flush(self) -> None:
        """Append the new rows to the files."""
        for table in self.tables.values():
            table.flush()


class _Table:
    """One file; new rows are kept in memory until ``flush``."""

    def __init__(self, path: Path, last_kept: int) -> None:
        """Rows with more steps than ``last_kept`` are removed from the file, and an incomplete last line."""
        self.path, self.last_kept = path, last_kept
        rows = _keep(path, last_kept)
        self.header = "".join(rows[:1])
        self.has_last = any(_steps(row) == last_kept for row in rows[1:])
        self.text = io.StringIO()

    def add(
        self, columns: Sequence[str], env_steps: int, wall_time: float, rows: Iterable[Sequence[Any]]
    ) -> None:
        """Add rows of ``columns``. ValueError: the file has other columns.

        Rows at the checkpoint's own steps that were recorded after the checkpoint come again: the file may
        hold them, or some of them if the process was killed.
        """
        self._require_header(_line([*KEYS, *columns]))
        if env_steps == self.last_kept and self.has_last:
            _keep(self.path, self.last_kept - 1)
            self.has_last = False
        self.text.writelines(_line([env_steps, round(wall_time, 3), *row]) for row in rows)

    def flush(self) -> None:
        """Append what was added."""
        text, self.text = self.text.getvalue(), io.StringIO()
        if text:
            with open(self.path, "ab") as file:
                file.write(text.encode())

    def _require_header(self, header: str) -> None:
        if not self.header:
            self.header = header
            self.text.write(header)
        if header != self.header:
            raise ValueError(f"{self.path} has other columns: move it to another folder")


def _keep(path: Path, last: int) -> list[str]:
    """Remove rows with more steps than ``last`` from a file; its lines, the header first."""
    if not path.exists():
        return []
    complete = [f"{line}\n" for line in path.read_text().split("\n")[:-1]]
    lines = complete[:1] + [line for line in complete[1:] if _steps(line) <= last]
    with replacing(path) as file:
        file.write(memoryview("".join(lines).encode()))
    return lines


def _steps(line: str) -> int:
    return int(line.partition(",")[0])


def _line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _numbered(values: np.ndarray) -> Iterable[list[Any]]:
    """The rows of [n, C], each with its number before it."""
    return ([i, *row] for i, row in enumerate(values.tolist()))


def _standard_errors(returns: np.ndarray) -> np.ndarray:
    """Of the mean returns [N] over the episodes of [E, N]; NaN for one episode."""
    if len(returns) < 2:
        return np.full(returns.shape[1], np.nan)
    return returns.std(axis=0, ddof=1) / np.sqrt(len(returns))
