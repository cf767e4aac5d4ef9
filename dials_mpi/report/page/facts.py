"""The parts of the page about the runs themselves: progress, time, memory, settings, sessions, failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dials_mpi import settings
from dials_mpi.report.contents import Titled
from dials_mpi.report.details import PHASES
from dials_mpi.report.groups import Group, by_system, labels_of, short
from dials_mpi.report.page import charts
from dials_mpi.report.page.markup import Markup, Sorted, details, element, joined, table
from dials_mpi.report.runs import RETURN, RunData, named
from dials_mpi.report.runtimes import HOUR, Clock, duration, time_unit
from dials_mpi.report.tables import summary_row

ROOT, OTHERS = "rank 0", "other ranks, mean"
CLOCK_NAMES: Mapping[Clock, str] = {"wall": "wall-clock", "cpu": "CPU"}


def tables_of(titled: Sequence[Titled]) -> Markup:
    """All tables that have rows."""
    return joined([table(one.rows, one.title) for one in titled if one.rows])


# The runs ------------------------------------------------------------------------------------------------


def figures(runs: Sequence[RunData]) -> Markup:
    """The main figures at the top of the page."""
    found = _of_one(runs[0]) if len(runs) == 1 else _of_several(runs)
    parts = [joined([element("dt", name), element("dd", value)]) for name, value in found.items()]
    return element("dl", *(element("div", part) for part in parts), class_="figures")


def _of_one(run: RunData) -> dict[str, str]:
    name = "return" if run.measure is RETURN else named(run.measure)
    of = "" if run.finished else f" of {run.config.total_steps:,}"
    levels = {f"{policy}, {name}": f"{level:.4g}" for policy, level in run.reference_levels.items()}
    return {
        f"{'final' if run.finished else 'last'} {name}": _with_error(run.level, run.level_error).text,
        **dict([*levels.items()][:3]),
        "steps per agent": f"{int(run.env_steps[-1]):,}{of}",
        "wall-clock time": duration(float(run.wall_time[-1])),
    }


def _of_several(runs: Sequence[RunData]) -> dict[str, str]:
    finished = sum(run.finished for run in runs)
    agents = sorted({run.agents for run in runs})
    return {
        "runs": str(len(runs)),
        "finished": str(finished),
        "seeds": _listed(sorted({run.config.seed for run in runs})),
        "agents": _listed(agents),
        "wall-clock time in all": duration(float(sum(run.wall_time[-1] for run in runs))),
    }


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as text; many of them as a range."""
    return ", ".join(map(str, numbers)) if len(numbers) < 5 else f"{numbers[0]} to {numbers[-1]}"


def runs_table(runs: Sequence[RunData], groups: Sequence[Group]) -> Markup:
    """One row for each run."""
    labels = labels_of(groups)
    return table([_run_row(run, labels[run.name]) for run in runs], "Runs", titled=True)


def _run_row(run: RunData, label: str) -> dict[str, Any]:
    row = summary_row(run, label)
    measured = {} if run.measure is RETURN else {named(run.measure): _with_error(run.level, run.level_error)}
    return {
        "run": run.name,
        "state": _state(run),
        "method": label,
        **run.system.columns,
        "F": short(row["retrain_every"]) if row["retrain_every"] else "",
        "seed": run.config.seed,
        "steps per agent": row["env_steps"],
        "return": _with_error(run.mean, run.standard_error),
        "best return": row["best_return"],
        **measured,
        "time": Sorted(duration(float(run.wall_time[-1])), float(run.wall_time[-1])),
        "agent-steps per second": row["agent_steps_per_s"],
        "memory, GiB": row["peak_memory_gib"],
    }


def _with_error(level: np.ndarray, error: np.ndarray) -> Sorted:
    """The last value with its standard error."""
    digits = f"{error[-1]:.2g}" if error[-1] < 99.5 else f"{error[-1]:.0f}"
    beside = f" ± {digits}" if np.isfinite(error[-1]) else ""
    return Sorted(f"{level[-1]:.4g}{beside}", float(level[-1]))


def _state(run: RunData) -> str:
    """Whether the run is finished; if not, a bar with the share of the steps that are done."""
    if run.finished:
        return "finished"
    share = min(100 * int(run.env_steps[-1]) // run.config.total_steps, 100)
    text = f"{share} % done"
    return joined([element("progress", value=share, max=100, aria_label="steps done"), f" {text}"])


# Time and memory -----------------------------------------------------------------------------------------


def times(groups: Sequence[Group], clock: Clock) -> Markup:
    """Bars of each system's mean time by phase, and the times of each run, as far as they are known."""
    keys = [element("li", element("span", class_=f"key fill-{phase}"), phase) for phase in PHASES]
    timed = [group for group in groups if any(run.details.phases for run in group.runs)]
    if not timed:
        return Markup("")
    bars = [_time_chart(same, clock) for same in by_system(timed)]
    rows = [row for group in timed for run in group.runs for row in _phase_rows(run)]
    return joined(
        [
            element("ul", *keys, class_="legend"),
            element("div", *bars, class_="grid"),
            details("Seconds of each run", table(rows, "Seconds by phase", titled=True)),
        ]
    )


def _time_chart(same: Sequence[Group], clock: Clock) -> Markup:
    bars = {label: seconds for group in same for label, seconds in _bars(group, clock)}
    unit = time_unit(max(sum(parts.values()) for parts in bars.values()) / HOUR)
    scaled = {
        label: {phase: value / HOUR * unit.factor for phase, value in parts.items()}
        for label, parts in bars.items()
    }
    return charts.stacked_bars(
        same[0].system.title, f"{unit.name}, {CLOCK_NAMES[clock]}, mean over runs", scaled
    )


def _bars(group: Group, clock: Clock) -> Iterator[tuple[str, dict[str, float]]]:
    """A label and the seconds by phase, for root and for the mean of the others."""
    column = list(CLOCK_NAMES).index(clock)
    known_runs = [run for run in group.runs if run.details.phases]
    runs = [_by_part(run) for run in [r for r in known_runs if r.finished] or known_runs]
    several = any(OTHERS in parts for parts in runs)
    for part in (ROOT, OTHERS):
        known = [parts[part] for parts in runs if part in parts]
        if known:
            means = {
                phase: float(np.mean([one[phase][column] for one in known if phase in one] or [0.0]))
                for phase in PHASES
            }
            yield f"{group.label}{f': {part}' if several else ''}", means


def _by_part(run: RunData) -> dict[str, dict[str, np.ndarray]]:
    """Seconds (wall-clock, CPU) of root and of the mean of the other ranks, by phase."""
    phases = run.details.phases
    found = {ROOT: {phase: rows[0] for phase, rows in phases.items()}}
    if any(len(rows) > 1 for rows in phases.values()):
        found[OTHERS] = {phase: rows[1:].mean(axis=0) for phase, rows in phases.items()}
    return found


def _phase_rows(run: RunData) -> Iterator[dict[str, Any]]:
    for part, phases in _by_part(run).items():
        for column, clock in enumerate(CLOCK_NAMES.values()):
            known = {p: float(phases[p][column]) if p in phases else np.nan for p in PHASES}
            total = float(np.nansum([*known.values()]))
            yield {"run": run.name, "rank": part, "clock": clock, **known, "sum": total}


# Settings, sessions, failures ----------------------------------------------------------------------------


def settings_of(runs: Sequence[RunData]) -> Markup:
    """The settings in which the runs differ, and folded all others."""
    values = [{key: _text(value) for key, value in settings.flat(run.config).items()} for run in runs]
    keys = list(dict.fromkeys(key for one in values for key in one))
    differ = [key for key in keys if len({one.get(key, "") for one in values}) > 1]
    parts = []
    if differ:
        rows = [
            {"run": run.name, **{key: one.get(key, "") for key in differ}}
            for run, one in zip(runs, values, strict=True)
        ]
        parts.append(table(rows, "Settings in which the runs differ"))
    common = [{"setting": key, "value": values[0][key]} for key in keys if key not in differ]
    title = "All settings" if len(runs) == 1 else "Settings that all runs have in common"
    parts.append(details(title, table(common, title, titled=True)))
    return joined(parts)


def _text(value: Any) -> str:
    """A setting's value as in a configuration file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


def sessions_of(runs: Sequence[RunData]) -> Markup:
    """Where and with which versions the runs were started and resumed, and what happened."""
    rows = [row for run in runs for row in _session_rows(run)]
    versions = list(_version_rows(runs))
    parts = [table(rows, "Sessions", titled=True)]
    if versions:
        parts.append(details("Versions", table(versions, "Versions", titled=True)))
    return joined(parts)


def _session_rows(run: RunData) -> Iterator[dict[str, Any]]:
    sessions = run.details.sessions
    for k, session in enumerate(sessions):
        last = k == len(sessions) - 1
        failures = int(run.details.failures.sum()) if last and run.details.failures.size else None
        yield {
            "run": run.name,
            "session": f"{k + 1} of {len(sessions)}",
            "began": "started" if k == 0 else f"resumed at {session.env_steps:,} steps",
            "ended": _ending(run) if last else "stopped",
            "ranks": session.ranks or "",
            "machines": ", ".join(session.hosts),
            "git commit": session.versions.get("git_commit", "")[:12],
            "simulator failures of the run": "" if failures is None else failures,
            "remarks": _remarks(run, session.rebuilt_from, last),
        }


def _ending(run: RunData) -> str:
    return "finished" if run.finished else "unfinished"


def _remarks(run: RunData, rebuilt_from: str, last: bool) -> str:
    rebuilt = [f"run file rebuilt from {rebuilt_from}"] if rebuilt_from else []
    return "; ".join([*rebuilt, *(["archived copy"] if last and run.details.archived else [])])


def _version_rows(runs: Sequence[RunData]) -> Iterator[dict[str, str]]:
    """Each program's versions in all sessions, with the number of runs that have each."""
    found: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        for session in run.details.sessions:
            for name, version in session.versions.items():
                found.setdefault(name, {}).setdefault(version, set()).add(run.name)
    for name, versions in found.items():
        for version, who in versions.items():
            yield {"program": name, "version": version, "runs": str(len(who))}
