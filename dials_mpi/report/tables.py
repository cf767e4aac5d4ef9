"""The tables of the report, as CSV, Markdown and text: runs, evaluations, Tables 1 to 3, statistics."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dials_mpi.report.groups import Group, short
from dials_mpi.report.runs import RunData
from dials_mpi.report.runtimes import CLOCKS, mean_memory, mean_runtime
from dials_mpi.report.statistics import Interval, interquartile_mean, mean, probability_of_improvement

Row = Mapping[str, Any]
ALL = "all"
"""In place of a number of agents: all sizes of the system together."""


def summary_row(run: RunData) -> dict[str, Any]:
    """One run; F is empty without refits, the best return is that of the best evaluation."""
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


def curve_rows(run: RunData) -> list[dict[str, Any]]:
    """One row per evaluation: wall_time in seconds, cross_entropy in nats per source, statistics."""
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


def runtime_rows(groups: Sequence[Group], steps: int | None) -> list[Row]:
    """Tables 1 and 2: hours by both clocks, means over finished runs; steps: scaled to these."""
    rows: list[Row] = []
    for group in groups:
        row: dict[str, Any] = {**_who(group), "ranks": _ranks(group), "env_steps": steps or _steps(group)}
        for clock, name in CLOCKS.items():
            hours = mean_runtime(group, clock, steps)
            row |= {
                f"training, h, {name}": hours.training,
                f"data and predictors, h, {name}": hours.influence,
                f"total, h, {name}": hours.total,
            }
        rows.append(row)
    return rows


def memory_rows(groups: Sequence[Group]) -> list[Row]:
    """Table 3: megabytes, means over runs."""
    known = [(group, mean_memory(group)) for group in groups]
    return [
        {
            **_who(group),
            "ranks": _ranks(group),
            "root's peak, MB": memory.root,
            "largest other rank's peak, MB": memory.worker,
            "all peaks, MB": memory.total,
            "all together, shared pages once, MB": memory.proportional,
        }
        for group, memory in known
        if memory is not None
    ]


def return_rows(groups: Sequence[Group]) -> list[Row]:
    """Final returns of finished runs: means and interquartile means, by size and over all sizes."""
    rows: list[Row] = []
    for label, by_size in _scores(groups).items():
        for agents, samples in _sizes_and_all(by_size):
            whole = np.concatenate(samples)
            # Scores of different sizes are not samples of one distribution.
            average = mean(whole) if len(samples) == 1 else Interval(float(whole.mean()), np.nan, np.nan)
            rows.append(
                {
                    "method": label,
                    "agents": agents,
                    "seeds": len(whole),
                    **_columns("mean", average),
                    **_columns("interquartile mean", interquartile_mean(samples)),
                }
            )
    return rows


def improvement_rows(groups: Sequence[Group]) -> list[Row]:
    """The probability that a run of one method scores higher than one of another, by size and over all."""
    rows: list[Row] = []
    for (label, these), (other, those) in combinations(_scores(groups).items(), 2):
        common = [agents for agents in these if agents in those]
        pairs = zip(
            _sizes_and_all({agents: these[agents] for agents in common}),
            _sizes_and_all({agents: those[agents] for agents in common}),
            strict=True,
        )
        for (agents, one), (_, two) in pairs:
            probability = probability_of_improvement(one, two)
            rows.append(
                {"method": label, "over": other, "agents": agents, **_columns("probability", probability)}
            )
    return rows


def write_csv(file: Path, rows: Sequence[Row]) -> Path:
    """Write rows with the same keys, which become the header; NaN is an empty cell."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value, 6) for key, value in row.items()} for row in rows)
    return file


def write_markdown(file: Path, tables: Mapping[str, Sequence[Row]], notes: Sequence[str]) -> Path:
    """Write tables, each below its title, then notes; all rows have the same keys; NaN is an empty cell."""
    parts = []
    for title, rows in tables.items():
        lines = [f"## {title}", "", _line(rows[0]), _line(["---"] * len(rows[0]))]
        lines += [_line(_cell(value, 4) for value in row.values()) for row in rows]
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {note}" for note in notes))
    file.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return file


def summary_table(runs: Sequence[RunData]) -> Table:
    """The summary of all runs, for a terminal."""
    rows = [summary_row(run) for run in runs]
    table = Table(title=f"Mean return per agent and episode, {rows[0]['domain']}")
    for heading in ("run", "mode"):
        table.add_column(heading)
    for heading in ("agents", "F", "seed", "steps", "return", "best", "hours", "agent-steps/s", "GiB"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            row["run"],
            row["mode"],
            str(row["agents"]),
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


def _who(group: Group) -> dict[str, Any]:
    return {"method": group.label, "agents": group.agents, "finished runs": len(group.finished)}


def _ranks(group: Group) -> str:
    return _either({len(run.peak_rss) for run in group.runs if run.peak_rss.size})


def _steps(group: Group) -> str:
    return _either({int(run.env_steps[-1]) for run in group.finished})


def _either(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


Scores = dict[int, np.ndarray]


def _scores(groups: Sequence[Group]) -> dict[str, Scores]:
    """Final returns by label and number of agents, of groups that have a finished run."""
    scores: dict[str, Scores] = {}
    for group in groups:
        if group.finished:
            scores.setdefault(group.label, {})[group.agents] = group.scores
    return scores


def _sizes_and_all(scores: Scores) -> list[tuple[int | str, list[np.ndarray]]]:
    sizes: list[tuple[int | str, list[np.ndarray]]] = [(n, [sample]) for n, sample in scores.items()]
    return [*sizes, (ALL, list(scores.values()))] if len(sizes) > 1 else sizes


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name} from": interval.low, f"{name} to": interval.high}


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _cell(value: Any, digits: int) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.{digits}g}" if np.isfinite(value) else ""
