"""Print the figures: tables of measurements and of projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dials_mpi.bench.costs import Costs, Recorded
from dials_mpi.bench.playing import Playing
from dials_mpi.bench.projection import TERMS, Line, Model, growing
from dials_mpi.config import Config
from dials_mpi.config.schedule import segments
from dials_mpi.core.console import BestEffortConsole

WIDTH = 120
"""Columns of a table if there is no terminal."""

UNITS = (
    ("gflops", "GFLOP/s", 1.0),
    ("gigabytes_per_second", "GB/s", 1.0),
    ("bytes", "MB", 1e-6),
    ("microseconds", "us", 1.0),
    ("seconds_per_agent_step", "us", 1e6),
    ("per_second", "1/s", 1.0),
    ("seconds", "s", 1.0),
    ("flop_per_agent_step", "MFLOP", 1e-6),
    ("flop_per_region", "GFLOP", 1e-9),
    ("utilisation", "%", 100.0),
    ("share", "%", 100.0),
)
"""Parts of figures' names, with the unit in the table and its factor; the first that fits is used."""


def console() -> BestEffortConsole:
    """The console for tables."""
    made = BestEffortConsole()
    if not made.is_terminal:
        made.width = WIDTH
    return made


def show_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table with one section per group."""
    table = Table("", "figure", "value", "unit")
    table.columns[2].justify = "right"
    for group, own in figures.items():
        for k, (name, value) in enumerate(own.items()):
            number, unit = _shown("share" if group == "shares" else name, value)
            table.add_row("" if k else group, name, number, unit)
        table.add_section()
    console().print(table)


def show_projection(
    config: Config,
    model: Model,
    costs: Sequence[Costs],
    rows: Mapping[int, Mapping[str, float]],
    playing: Playing,
) -> None:
    """Print seconds of a whole run, rows: TERMS by number of regions; then the growth and assumptions."""
    count = len(segments(config))
    out, table = console(), Table("regions", *TERMS, "a segment", "whole run")
    out.print(
        f"One core per rank: seconds of a segment, the mean over {count:,} of "
        f"{config.total_steps // count:,} steps; whole run: hours"
    )
    for column in table.columns:
        column.justify = "right"
    for regions, terms in rows.items():
        total = sum(terms.values())
        values = [*(terms[term] / count for term in TERMS), total / count, total / 3600]
        table.add_row(f"{regions:,}", *map(number, values))
    out.print(table)
    for line in (*_growth(rows), *_assumptions(config, model, costs, playing)):
        out.print(line)


def show_exposed(config: Config, rows: Mapping[int, Mapping[int, float]]) -> None:
    """Print the exposed time by number of regions and of global ranks."""
    out = console()
    numbers = list(next(iter(rows.values())))
    table = Table("regions", *(f"{number:,}" for number in numbers))
    out.print("Exposed time by number of global ranks, with schedule=overlapped, in % of training:")
    for column in table.columns:
        column.justify = "right"
    for regions, shares in rows.items():
        table.add_row(f"{regions:,}", *(number(100 * share) for share in shares.values()))
    out.print(table)
    out.print("Exposed: all but training and checkpoints, of the whole run.")


def show_comparison(run: Recorded, terms: Mapping[str, tuple[float, float]]) -> None:
    """Print the projected and recorded seconds of a run."""
    out, table = console(), Table("term", "projected, s", "measured, s", "projected / measured")
    out.print(
        f"A run of {run.costs.regions:,} regions, up to {run.held:,} on a rank, up to {run.steps:,} steps"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for term, (projected, measured) in terms.items():
        ratio = number(projected / measured) if measured else "-"
        table.add_row(term, number(projected), number(measured), ratio)
    out.print(table)
    out.print(
        "Terms: CPU seconds (communicate: wall-clock without waiting); wall: wall-clock of the recorded ranks"
    )


def _growth(rows: Mapping[int, Mapping[str, float]]) -> list[str]:
    """The term that grows most, in a sentence; nothing if there is one row."""
    if len(rows) < 2:
        return []
    term, (few, many) = growing(rows), (min(rows), max(rows))
    shares = [f"{rows[n][term] / sum(rows[n].values()):.0%} of it at {n:,} regions" for n in (few, many)]
    return [f"Grows most: {term}, {shares[0]} and {shares[1]}."]


def _assumptions(config: Config, model: Model, costs: Sequence[Costs], playing: Playing) -> list[str]:
    """The assumptions of a projection."""
    link, sizes = model.link, ", ".join(f"{n:,}" for n in sorted({one.regions for one in costs}))
    ranks = config.global_ranks
    root = "root" if ranks == 1 else f"{ranks} ranks, side by side"
    hides = "during training" if config.overlapped else "not during training (synchronous)"
    how = "measured between these ranks" if link.measured else "assumed, since one rank cannot measure it"
    return [
        f"Costs are CPU seconds at {sizes} regions; a core with one region is assumed to be as fast.",
        "train, fit: one region per worker, at the speed of the slowest measured rank.",
        f"{_line('collect', model.collect)}, {_line('evaluate', model.evaluate)}: {root}, {hides}.",
        "  Playing policies that need no training is assumed to take as long as evaluating networks.",
        *_sharing(playing),
        f"communicate: {link.bytes_per_second / 1e9:.2f} GB/s and {link.seconds_per_message * 1e6:.1f} us a "
        f"message at root, {how}; a 2 ms wait in each exchange.",
        f"checkpoint: {model.checkpoint * 1e3:.2f} ms a region, measured on this disk, and its way to root.",
        "Not included: the start of the program, and writing the run file.",
    ]


def _sharing(playing: Playing) -> list[str]:
    """What ranks that share the agents of the same episodes do not share."""
    if not playing.simulation:
        return []
    simulation = f"{playing.simulation * 1e3:.3f} ms a region and episode, measured with random actions"
    return [
        f"  Global ranks that share agents all simulate ({simulation}).",
        "  They exchange actions in log2(ranks) rounds of messages.",
        f"  A pass of the networks takes {playing.once:.1f} episodes longer than those in it, measured here.",
    ]


def _line(name: str, line: Line) -> str:
    """A cost of root: its fixed part and its part per region, as text."""
    fixed = f"{number(line.fixed)} s and " if line.fixed else ""
    return f"{name}: {fixed}{number(line.each)} s a region"


def number(value: float) -> str:
    """A number with at least three significant digits: 0.0123, 1.23, 123, 12,345."""
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = next((d for limit, d in ((0.1, 4), (1, 3), (10, 2), (100, 1)) if abs(value) < limit), 0)
    return f"{value:,.{digits}f}"


def _shown(name: str, value: Any) -> tuple[str, str]:
    """A figure and its unit, as text."""
    if isinstance(value, str):
        return value, ""
    unit, factor = next(((unit, factor) for part, unit, factor in UNITS if part in name), ("", 1))
    return number(value * factor), unit
