"""Evaluations of runs in the JSON format of marl-eval, which BenchMARL's plotting reads, too.

``{domain: {system: {method: {seed: {"step_0": {...}, ..., "absolute_metrics": {...}}}}}}``. A step has
``step_count`` (steps per agent), ``elapsed_time`` (wall-clock seconds) and, for each metric, a list with one
value per episode. marl-eval requires the same methods for each system and the same numbers of seeds and
evaluations everywhere; ``inequalities`` says where this is not so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.report.groups import Group
from dials_mpi.report.runs import RunData
from dials_mpi.storage.files import output_file

RETURN_NAME = "return"
Json = dict[str, Any]


def write_marl_eval(file: Path, groups: Sequence[Group]) -> None:
    """Write the file in one step. BadInput: it cannot be written."""
    with output_file(file, "--marl-eval") as temporary:
        temporary.write_text(json.dumps(marl_eval(groups), indent=1, allow_nan=False) + "\n")


def marl_eval(groups: Sequence[Group]) -> Json:
    """The content of the file; numbers are finite."""
    metrics = _metrics(groups)
    content: Json = {}
    for group in groups:
        tasks = content.setdefault(group.runs[0].config.domain.lower(), {})
        seeds = tasks.setdefault(group.system.title.lower(), {}).setdefault(_algorithm(group), {})
        seeds |= {f"seed_{run.config.seed}": _run(run, metrics) for run in group.runs}
    return content


def _algorithm(group: Group) -> str:
    return group.label.replace(",", ";")  # marl-eval refuses names with commas


def inequalities(groups: Sequence[Group]) -> list[str]:
    """One sentence for each requirement of marl-eval that these runs do not meet."""
    systems: dict[Any, set[str]] = {}
    for group in groups:
        systems.setdefault(group.system, set()).add(group.label)
    counts: dict[str, set[Any]] = {
        "methods of each system": {frozenset(labels) for labels in systems.values()},
        "numbers of seeds of each method": {len(group.runs) for group in groups},
        "numbers of evaluations of each run": {len(run.env_steps) for group in groups for run in group.runs},
    }
    return [
        f"marl-eval needs equal {what}, and these differ: leave runs out"
        for what, values in counts.items()
        if len(values) > 1
    ]


def _metrics(groups: Sequence[Group]) -> list[str]:
    """The return, and the statistics that are known in at least one episode of every evaluation."""
    runs = [run for group in groups for run in group.runs]
    return [
        RETURN_NAME,
        *(
            name
            for name in runs[0].statistics
            if all(np.isfinite(run.statistics[name]).any(axis=1).all() for run in runs)
        ),
    ]


def _run(run: RunData, metrics: Sequence[str]) -> Json:
    values = {name: _episodes(run, name) for name in metrics}
    steps = {
        f"step_{t}": {
            "step_count": int(run.env_steps[t]),
            "elapsed_time": float(run.wall_time[t]),
            **{name: _known(rows[t]) for name, rows in values.items()},
        }
        for t in range(len(run.env_steps))
    }
    return {**steps, "absolute_metrics": _absolute(run, values)}


def _absolute(run: RunData, values: Mapping[str, np.ndarray]) -> Json:
    """The mean of each metric at the evaluation with the best mean of the report's measure."""
    level = -run.level if run.measure.better == "lower" else run.level
    best = int(np.nanargmax(level)) if np.isfinite(level).any() else -1
    return {name: [float(np.mean(_known(rows[best])))] for name, rows in values.items()}


def _episodes(run: RunData, metric: str) -> np.ndarray:
    """The metric of each evaluation and episode [T, E]; the return is the mean over agents."""
    return run.returns.mean(axis=2) if metric == RETURN_NAME else run.statistics[metric]


def _known(row: np.ndarray) -> list[float]:
    found: list[float] = row[np.isfinite(row)].tolist()
    return found
