"""Measure the accuracy of the traffic domain's local simulators, given the true influence sources.

Global episodes are recorded under a hand-coded policy. The local simulator of each region then receives the
recorded actions and the true influence sources, with both insertion rules (``traffic.entries``). No predictor
is used, so all differences come from the local simulator.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.text import printable
from dials_mpi.domains import require_local
from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.fidelity import Measured, independent, record, replay
from dials_mpi.domains.traffic.network import SIDES
from dials_mpi.fidelity.comparison import player

RULES = ("hold", "drop")
GREENS = {"at random": 0, "after 10 s": 10, "after 30 s": 30, "after 45 s": 45, "never": np.inf}
"""When the signal of a junction with independent entries switches: steps of green."""


class TrafficComparison:
    """As Comparison."""

    policy, episodes = "fixed", 16
    own = ("independent",)

    def check(self, config: Config, options: argparse.Namespace) -> None:
        """As Comparison."""
        domain = Traffic(config.domain_section)
        # Under the actuated program SUMO switches the signals: there are no actions to replay.
        known = ["random", *(name for name in domain.hand_coded if name != "actuated")]
        if options.policy not in known:
            raise BadInput(f"--policy is {printable(options.policy)}: choose {', '.join(known)}")
        if options.independent is not None and not 0 <= options.independent <= 1:
            raise BadInput(f"--independent is {options.independent:g}: give a probability, 0 to 1")
        require_local(domain)

    def tables(self, config: Config, options: argparse.Namespace) -> Iterator[Table]:
        """As Comparison."""
        if options.independent is not None:
            yield _independent(config, options.independent, options.episodes)
            return
        truth, locally = measure(config, options.policy, options.episodes)
        if not options.summary:
            yield _by_edge(truth, locally)
        yield _summary(truth, locally)


def measure(config: Config, policy: str, episodes: int) -> tuple[Measured, dict[str, Measured]]:
    """The figures of the global simulator, and of the local ones under each of RULES."""
    domain = Traffic(config.domain_section)
    chances = streams(config.seed, Purpose.EVALUATION_ACTIONS, episodes)
    recording = record(
        domain,
        streams(config.seed, Purpose.EVALUATION, episodes),
        player(policy, domain, chances),
    )
    return recording.measured, {rule: replay(_with_rule(config, rule), recording) for rule in RULES}


def _with_rule(config: Config, rule: str) -> Traffic:
    return Traffic(dataclasses.replace(config.domain_section, entries=rule))


def _independent(config: Config, probability: float, episodes: int) -> Table:
    table = Table(title=f"One junction, entries with probability {probability:g} per edge and step")
    table.add_column("switches")
    for rule in RULES:
        table.add_column(f"return {rule}", justify="right")
        table.add_column(f"vehicles {rule}", justify="right")
    section = dataclasses.replace(config.domain_section, block=(1, 1))
    config = dataclasses.replace(config, domain_section=section)
    for name, green in GREENS.items():
        figures = [independent(_with_rule(config, rule), probability, episodes, green) for rule in RULES]
        table.add_row(name, *(f"{figure:.1f}" for pair in figures for figure in pair))
    return table


def _by_edge(truth: Measured, locally: dict[str, Measured]) -> Table:
    table = Table(title="By junction and edge: global, then local by insertion rule")
    sides = ("global", *locally)
    table.add_column("junction")
    table.add_column("edge")
    for what in ("return", "vehicles", "speed, m/s"):
        for side in sides:
            table.add_column(f"{what} {side}", justify="right")
    for rule in locally:
        table.add_column(f"largest difference in a cell's occupancy {rule}", justify="right")
    everyone = [truth, *locally.values()]
    for i in range(len(truth.flow)):
        for m, edge in enumerate(SIDES):
            returns = [f"{measured.returns[i].mean():.1f}" if m == 0 else "" for measured in everyone]
            flows = [f"{measured.flow[i, m]:.2f}" for measured in everyone]
            speeds = [f"{measured.speed[i, m]:.2f}" for measured in everyone]
            gaps = [
                f"{np.abs(measured.occupancy[i, m] - truth.occupancy[i, m]).max():.3f}"
                for measured in locally.values()
            ]
            table.add_row(str(i) if m == 0 else "", edge, *returns, *flows, *speeds, *gaps)
    return table


def _summary(truth: Measured, locally: dict[str, Measured]) -> Table:
    table = Table("figure", "global", *locally, title="All junctions")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in Measured._fields:
        true = getattr(truth, name).mean()
        ours = [getattr(measured, name).mean() for measured in locally.values()]
        row = [f"{value:.3f} ({100 * (value / true - 1):+.2f} %)" for value in ours]
        table.add_row(f"mean {name}", f"{true:.3f}", *row)
    by_junction = [
        f"{100 * np.abs(measured.returns.mean(1) / truth.returns.mean(1) - 1).max():.2f} %"
        for measured in locally.values()
    ]
    table.add_row("largest difference in a junction's return", "", *by_junction)
    gaps = [f"{np.abs(measured.occupancy - truth.occupancy).max():.3f}" for measured in locally.values()]
    table.add_row("largest difference in a cell's occupancy", "", *gaps)
    return table
