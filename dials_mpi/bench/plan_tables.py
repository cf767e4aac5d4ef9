"""Print a plan: times of the schedules, memory, disk, what grows, and what is assumed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dials_mpi.bench.plan import Plan, doubled, suggested
from dials_mpi.bench.tables import console, number

GIGA, MEGA = 1e-9, 1e-6
RESERVE, LEAST_MINUTES = 1.25, 30


def show_plan(plan: Plan, found: Sequence[Plan], words: Sequence[str]) -> None:
    """Print it; found: the schedules that are compared; words: the file and the settings that were given."""
    out = console()
    out.print(_headline(plan))
    out.print(_schedules(plan, found))
    for line in _suggestion(plan, suggested(found)):
        out.print(line)
    out.print(job(plan if plan.alone else suggested(found), plan, words))
    out.print(_memory(plan))
    out.print(_growth(doubled(plan)))
    for line in _assumptions(plan):
        out.print(line)


def figures(plan: Plan, found: Sequence[Plan]) -> dict[str, Any]:
    """The same for a JSON file."""
    best = suggested(found)
    return {
        **_row(plan),
        "terms_seconds": plan.terms,
        "disk_bytes": plan.disk._asdict(),
        "schedules": [_row(each) for each in found],
        "suggested": {"schedule": best.config.schedule, "global_ranks": best.config.global_ranks},
        "doubled": {name: _row(each) for name, each in doubled(plan).items()},
    }


def _row(plan: Plan) -> dict[str, Any]:
    return {
        "schedule": plan.config.schedule,
        "global_ranks": plan.config.global_ranks,
        "ranks": plan.ranks,
        "regions": plan.regions,
        "segment_seconds": plan.segment,
        "hours": plan.hours,
        "core_hours": plan.core_hours,
        "memory_bytes": plan.memory._asdict(),
        "disk_total_bytes": sum(plan.disk),
    }


def _headline(plan: Plan) -> str:
    share = "which does all the work" if plan.alone else f"up to {plan.held:,} regions on a worker"
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks:,} ranks"
    nodes = "1 node" if plan.nodes == 1 else f"{plan.nodes:,} nodes"
    return (
        f"{plan.regions:,} regions, {plan.config.total_steps:,} steps per agent, {ranks} on {nodes}, {share}"
    )


def _schedules(plan: Plan, found: Sequence[Plan]) -> Table:
    columns = ("schedule", "global ranks", "ranks", "a segment, s", "hours", "core-hours", "GB on a node")
    table, best = Table(*columns, ""), suggested(found)
    for column in table.columns[1:-1]:
        column.justify = "right"
    rows = found if _same(plan, found) else [plan, *found]
    for each in rows:
        marks = ["configured"] if _key(each) == _key(plan) else []
        marks += ["suggested"] if each is best and len(found) > 1 else []
        config = each.config
        numbers = (each.segment, each.hours, each.core_hours, GIGA * each.memory.node)
        counts = (f"{config.global_ranks}", f"{each.ranks:,}")
        table.add_row(config.schedule, *counts, *map(number, numbers), ", ".join(marks))
    return table


def _key(plan: Plan) -> tuple[str, int, int]:
    return plan.config.schedule, plan.config.global_ranks, plan.ranks


def _same(plan: Plan, found: Sequence[Plan]) -> bool:
    return any(_key(each) == _key(plan) for each in found)


def _suggestion(plan: Plan, best: Plan) -> list[str]:
    if plan.alone or _key(best) == _key(plan):
        return []
    config = best.config
    lines = [
        f"Suggested: schedule={config.schedule} global_ranks={config.global_ranks} on {best.ranks:,} ranks: "
        f"{number(best.segment)} s a segment in place of {number(plan.segment)} s."
    ]
    if config.overlapped and not plan.config.overlapped:
        lines.append("  (overlapped: predictors are fitted to data of the policies of one segment earlier.)")
    return lines


def job(best: Plan, asked: Plan, words: Sequence[str]) -> str:
    """A line that submits the run to SLURM, with a quarter more time and memory than planned."""
    per_node = -(-best.ranks // best.nodes)
    memory = 50 * math.ceil(RESERVE * MEGA * best.memory.node / per_node / 50)
    minutes = 10 * math.ceil(max(LEAST_MINUTES, RESERVE * 60 * best.hours) / 10)
    file, *settings = words
    changed = [
        f"{key}={getattr(best.config, key)}"
        for key in ("schedule", "global_ranks")
        if getattr(best.config, key) != getattr(asked.config, key)
    ]
    run = " ".join(map(shlex.quote, ["--config", file, *settings, *changed]))
    return (
        f"Submit: sbatch --nodes={best.nodes} --ntasks={best.ranks} --mem-per-cpu={memory}M "
        f"--time={minutes // 60}:{minutes % 60:02}:00 jobs/train.sbatch {run}"
    )


def _memory(plan: Plan) -> Table:
    table, memory, disk = Table("memory (peak) and disk", "", "MB"), plan.memory, plan.disk
    table.columns[2].justify = "right"
    if plan.alone:
        table.add_row("the only rank", "", number(MEGA * memory.root))
    else:
        others = plan.config.global_ranks - 1
        table.add_row("root", "", number(MEGA * memory.root))
        if others:
            table.add_row("another global rank", f"{others} of them", number(MEGA * memory.root))
        table.add_row("a worker", f"{plan.workers:,} of them", number(MEGA * memory.worker))
        table.add_row("a node", "libraries once", number(MEGA * memory.node))
    table.add_section()
    for name, size in disk._asdict().items():
        about = "at most, compressed" if name == "datasets" else ""
        table.add_row(name.replace("_", " "), about, number(MEGA * size))
    return table


def _growth(rows: Mapping[str, Plan]) -> Table:
    table = Table("twice as much", "hours", "core-hours", "MB of root", "MB of a worker", "MB on disk")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, each in rows.items():
        sizes = (each.memory.root, each.memory.worker, sum(each.disk))
        table.add_row(name, *map(number, (each.hours, each.core_hours, *(MEGA * size for size in sizes))))
    return table


def _assumptions(plan: Plan) -> list[str]:
    link = plan.link
    how = "measured between these ranks" if link.measured else "assumed, since one rank cannot measure it"
    lines = [
        f"Measured here, with episodes of {plan.sample.played}; a core for each rank, as fast as this one.",
        *([] if plan.alone else ["Twice the regions: with twice the workers, on as many nodes."]),
        f"Exchanges: {link.bytes_per_second / 1e9:.2f} GB/s, {how}.",
        "Not included: the start of the program, and what the MPI library allocates for its ranks.",
    ]
    if getattr(plan.config.domain_section, "sumo", "") == "traci":
        lines.append("Not included either: the memory of SUMO, which is in processes of its own (traci).")
    if plan.config.shared:
        lines.append("Not included either: adding up the gradients of shared policies at every step.")
    return lines
