"""The tables of the report, as CSV, Markdown and text: runs, evaluations, Tables 1 to 3, statistics."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dials_mpi.domains import find
from dials_mpi.domains.base import Statistic
from dials_mpi.report.groups import Group, by_system, labels_of, short
from dials_mpi.report.runs import RETURN, RunData, System, mean_of_known, named
from dials_mpi.report.runtimes import CLOCKS, HOURS, TimeUnit, duration, mean_memory, mean_runtime, time_unit
from dials_mpi.report.statistics import Interval, interquartile_mean, mean, probability_of_improvement

Row = Mapping[str, Any]
ALL = "all"
"""In place of a number of agents: all systems together."""


def summary_row(run: RunData, label: str) -> dict[str, Any]:
    """One run; F is empty without refits, the best return is that of the best evaluation.

    label: of its method.
    """
    config, seconds = run.config, float(run.wall_time[-1])
    measured = {} if run.measure is RETURN else {f"final_{run.measure.name}": float(run.level[-1])}
    return {
        "run": run.name,
        "method": label,
        "finished": "yes" if run.finished else "no",
        "domain": config.domain,
        **run.system.columns,
        "mode": config.mode,
        "retrain_every": config.retrain_every if config.mode == "dials" else "",
        "seed": config.seed,
        "env_steps": int(run.env_steps[-1]),
        "final_return": float(run.mean[-1]),
        "standard_error": float(run.standard_error[-1]),
        "best_return": float(run.mean.max()),
        **measured,
        "wall_hours": seconds / 3600,
        "agent_steps_per_s": run.agents * int(run.env_steps[-1]) / seconds,
        "peak_memory_gib": run.peak_memory / 2**30,
    }


def curve_rows(run: RunData, label: str, statistics: Sequence[str]) -> list[dict[str, Any]]:
    """One row per evaluation: wall_time in seconds, cross_entropy in nats per source, these statistics.

    label: of the run's method.
    """
    losses = np.full(len(run.env_steps), np.nan) if run.cross_entropy is None else run.cross_entropy
    return [
        {
            "run": run.name,
            "method": label,
            "env_steps": int(steps),
            "wall_time": float(seconds),
            "mean_return": float(mean),
            "standard_error": float(error),
            "cross_entropy": float(loss),
            **{name: float(mean_of_known(run.statistics[name][t])) for name in statistics},
        }
        for t, (steps, seconds, mean, error, loss) in enumerate(
            zip(run.env_steps, run.wall_time, run.mean, run.standard_error, losses, strict=True)
        )
    ]


def runtime_rows(groups: Sequence[Group], steps: int | None, unit: TimeUnit | None = HOURS) -> list[Row]:
    """Tables 1 and 2: times by both clocks, means over finished runs.

    steps: scaled to these. unit: None chooses one that fits the longest time.
    """
    rows: list[Row] = []
    totals = [mean_runtime(group, clock, steps).total for group in groups for clock in CLOCKS]
    unit = unit or time_unit(max((total for total in totals if np.isfinite(total)), default=0.0))
    for group in groups:
        row: dict[str, Any] = {**_who(group), "ranks": _ranks(group), "env_steps": steps or _steps(group)}
        for clock, name in CLOCKS.items():
            hours, known = mean_runtime(group, clock, steps), f"{unit.name}, {name}"
            row |= {
                f"training, {known}": hours.training * unit.factor,
                f"data and predictors, {known}": hours.influence * unit.factor,
                f"total, {known}": hours.total * unit.factor,
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


def final_rows(groups: Sequence[Group]) -> list[Row]:
    """Final values of finished runs: means and interquartile means, by system and over all systems.

    Systems with names have no common scale, and so no mean over all.
    """
    rows: list[Row] = []
    for label, scores in _scores(groups).items():
        for columns, samples in _systems_and_all(scores):
            if len(samples) > 1 and "system" in columns:
                continue
            whole = np.concatenate(samples)
            # Scores of different systems are not samples of one distribution.
            average = mean(whole) if len(samples) == 1 else Interval(float(whole.mean()), np.nan, np.nan)
            rows.append(
                {
                    "method": label,
                    **columns,
                    "seeds": len(whole),
                    **_columns("mean", average),
                    **_columns("interquartile mean", interquartile_mean(samples)),
                }
            )
    return rows


def improvement_rows(groups: Sequence[Group]) -> list[Row]:
    """The probability that a run of one method scores better than one of another, by system and over all.

    Higher values of a statistic count as better unless the domain says that lower ones are.
    """
    rows: list[Row] = []
    for (label, these), (other, those) in combinations(_scores(groups).items(), 2):
        common = [system for system in these if system in those]
        pairs = zip(
            _systems_and_all({system: these[system] for system in common}),
            _systems_and_all({system: those[system] for system in common}),
            strict=True,
        )
        for (columns, one), (_, two) in pairs:
            if groups[0].measure.better == "lower":
                one, two = two, one
            probability = probability_of_improvement(one, two)
            rows.append({"method": label, "over": other, **columns, **_columns("probability", probability)})
    return rows


def statistic_rows(groups: Sequence[Group]) -> list[Row]:
    """The domain's statistics at the end: means over finished runs of each method, then of each policy that
    needs no training; none where the domain has no statistics."""
    rows: list[Row] = []
    recorded = {name for group in groups for run in group.runs for name in run.recorded}
    known: Sequence[Statistic] = find(groups[0].runs[0].config.domain)[0].statistics
    statistics = [one for one in known if one.name in recorded]
    for same in by_system(groups) if statistics else ():
        for group in same:
            if group.finished:
                values = {
                    named(one): _mean(mean_of_known(run.statistics[one.name][-1]) for run in group.finished)
                    for one in statistics
                }
                rows.append({**_who(group), **values})
        rows += _policy_rows(same, statistics)
    return rows


def _policy_rows(same: Sequence[Group], statistics: Sequence[Statistic]) -> list[Row]:
    runs = [run for group in same for run in group.finished]
    policies = dict.fromkeys(name for run in runs for name in run.references)
    return [
        {
            "method": policy,
            **same[0].system.columns,
            "finished runs": "",
            **{
                named(one): _mean(run.reference_statistics[one.name].get(policy, np.nan) for run in runs)
                for one in statistics
            },
        }
        for policy in policies
    ]


def _mean(values: Iterable[Any]) -> float:
    """The mean of the known values; NaN if there is none."""
    return float(mean_of_known(np.array([*map(float, values)])))


def write_csv(file: Path, rows: Sequence[Row]) -> Path:
    """Write rows with the same keys, which become the header; NaN is an empty cell."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: cell(value, 6) for key, value in row.items()} for row in rows)
    return file


def to_read(rows: Sequence[Row]) -> list[Row]:
    """The rows without the columns in which all cells are empty."""
    known = [key for key in rows[0] if any(cell(row[key], 1) != "" for row in rows)]
    return [{key: row[key] for key in known} for row in rows]


def write_markdown(file: Path, tables: Mapping[str, Sequence[Row]], notes: Sequence[str]) -> Path:
    """Write tables, each below its title, then notes; all rows have the same keys; NaN is an empty cell."""
    parts = []
    for title, rows in tables.items():
        lines = [f"## {title}", "", _line(rows[0]), _line(["---"] * len(rows[0]))]
        lines += [_line(cell(value, 4) for value in row.values()) for row in rows]
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {note}" for note in notes))
    file.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return file


def summary_table(runs: Sequence[RunData], groups: Sequence[Group]) -> Table:
    """The summary of all runs, for a terminal."""
    labels = labels_of(groups)
    rows = [summary_row(run, labels[run.name]) for run in runs]
    measure = runs[0].measure
    measured = [] if measure is RETURN else [named(measure)]
    table = Table(title=f"Mean return per agent and episode, {rows[0]['domain']}")
    for heading in ("run", "method"):
        table.add_column(heading)
    headings = ("agents", "F", "seed", "steps", "return", "best", *measured, "time", "agent-steps/s", "GiB")
    for heading in headings:
        table.add_column(heading, justify="right")
    unfinished = any(row["finished"] != "yes" for row in rows)
    if unfinished:
        table.add_column("")
    for row in rows:
        table.add_row(
            row["run"],
            row["method"],
            f"{row['agents']:,}",
            short(row["retrain_every"]) if row["retrain_every"] else "-",
            str(row["seed"]),
            f"{row['env_steps']:,}",
            f"{row['final_return']:.2f} ± {row['standard_error']:.2f}",
            f"{row['best_return']:.2f}",
            *(f"{row[f'final_{measure.name}']:.2f}" for _ in measured),
            duration(3600 * row["wall_hours"]),
            f"{row['agent_steps_per_s']:,.0f}",
            f"{row['peak_memory_gib']:.2f}",
            *(["" if row["finished"] == "yes" else "unfinished"] if unfinished else []),
        )
    return table


def text_table(title: str, rows: Sequence[Row]) -> Table:
    """A table of groups for a terminal."""
    table = Table(title=title)
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(str(cell(value, 4)) for value in row.values()))
    return table


def _who(group: Group) -> dict[str, Any]:
    return {"method": group.label, **group.system.columns, "finished runs": len(group.finished)}


def _ranks(group: Group) -> str:
    return _either({len(run.peak_rss) for run in group.runs if run.peak_rss.size})


def _steps(group: Group) -> str:
    return _either({int(run.env_steps[-1]) for run in group.finished})


def _either(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


Scores = dict[System, np.ndarray]


def _scores(groups: Sequence[Group]) -> dict[str, Scores]:
    """Final values by label and system, of groups that have a finished run."""
    scores: dict[str, Scores] = {}
    for group in groups:
        if group.finished:
            scores.setdefault(group.label, {})[group.system] = group.scores
    return scores


def _systems_and_all(scores: Scores) -> list[tuple[dict[str, Any], list[np.ndarray]]]:
    """The columns and the samples of each system, and of all together if there are several."""
    systems = [(system.columns, [sample]) for system, sample in scores.items()]
    if len(systems) < 2:
        return systems
    return [*systems, (dict.fromkeys(systems[0][0], ALL), list(scores.values()))]


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name} from": interval.low, f"{name} to": interval.high}


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def cell(value: Any, digits: int) -> Any:
    """A value with so many digits; NaN is empty."""
    if not isinstance(value, float):
        return value
    return f"{value:.{digits}g}" if np.isfinite(value) else ""
