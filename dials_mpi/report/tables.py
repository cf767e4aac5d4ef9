"""The tables: one line for each run, one for each evaluation, as CSV and for a terminal."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from dials_mpi.report.groups import short
from dials_mpi.report.runs import Run


def summary_row(run: Run) -> dict[str, Any]:
    """One run in a line; F is empty without refreshes, the best return is that of the best evaluation."""
    config, seconds = run.config, float(run.wall_time[-1])
    return {
        "run": run.name,
        "finished": "yes" if run.finished else "no",
        "domain": config.domain,
        "agents": run.agents,
        "mode": config.mode,
        "retrain_every": config.retrain_every if config.mode == "dials" else "",
        "seed": config.seed,
        "env_steps": int(run.env_steps[-1]),
        "final_return": float(run.mean[-1]),
        "standard_error": float(run.standard_error[-1]),
        "best_return": float(run.mean.max()),
        "wall_hours": seconds / 3600,
        "agent_steps_per_s": run.agents * int(run.env_steps[-1]) / seconds,
        "peak_memory_gib": run.peak_memory / 2**30,
    }


def curve_rows(run: Run) -> list[dict[str, Any]]:
    """One evaluation in a line: wall_time in seconds, cross_entropy in nats per source, statistics."""
    losses = np.full(len(run.env_steps), np.nan) if run.cross_entropy is None else run.cross_entropy
    return [
        {
            "run": run.name,
            "env_steps": int(steps),
            "wall_time": float(seconds),
            "mean_return": float(mean),
            "standard_error": float(error),
            "cross_entropy": float(loss),
            **{name: float(values[t]) for name, values in run.statistics.items()},
        }
        for t, (steps, seconds, mean, error, loss) in enumerate(
            zip(run.env_steps, run.wall_time, run.mean, run.standard_error, losses, strict=True)
        )
    ]


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows with the same keys, which become the header; NaN is an empty cell."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return file


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if np.isfinite(value) else ""


def summary_table(runs: Sequence[Run]) -> Table:
    """The summary for a terminal."""
    rows = [summary_row(run) for run in runs]
    domain, agents = rows[0]["domain"], rows[0]["agents"]
    table = Table(title=f"Mean return per agent and episode, {domain}, {agents} agents")
    for heading in ("run", "mode"):
        table.add_column(heading)
    for heading in ("F", "seed", "steps", "return", "best", "hours", "agent-steps/s", "GiB"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            escape(row["run"]),
            row["mode"],
            short(row["retrain_every"]) if row["retrain_every"] else "-",
            str(row["seed"]),
            f"{row['env_steps']:,}",
            f"{row['final_return']:.2f} ± {row['standard_error']:.2f}",
            f"{row['best_return']:.2f}",
            f"{row['wall_hours']:.2f}",
            f"{row['agent_steps_per_s']:,.0f}",
            f"{row['peak_memory_gib']:.2f}",
            "" if row["finished"] == "yes" else "unfinished",
        )
    return table
