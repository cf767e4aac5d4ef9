"""Measure the accuracy of the traffic domain's local simulators, given the true influence sources.

Global episodes are recorded under a hand-coded policy. The local simulator of each region then receives the
recorded actions and the true influence sources, with both insertion rules (``traffic.entries``). No predictor
is used, so all differences come from the local simulator.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from rich.table import Table

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.decisions import held
from dials_mpi.cli import Parser, integer, real
from dials_mpi.config import Config, load
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.text import printable
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.domains.traffic import Traffic, TrafficGlobalSimulator
from dials_mpi.domains.traffic.fidelity import Measured, independent, record, replay
from dials_mpi.domains.traffic.network import SIDES

EXAMPLES = """examples:
  python -m dials_mpi.fidelity --config configs/traffic/4.yaml
  python -m dials_mpi.fidelity --config configs/traffic/25.yaml --policy greedy --summary
  python -m dials_mpi.fidelity --config configs/traffic/4.yaml --independent 0.5"""

RULES = ("hold", "drop")
WIDTH = 200
"""Columns of the widest table."""

GREENS = {"at random": 0, "after 10 s": 10, "after 30 s": 30, "after 45 s": 45, "never": np.inf}
"""When the signal of a junction with independent entries switches: steps of green."""


def measure(config: Config, policy: str, episodes: int) -> tuple[Measured, dict[str, Measured]]:
    """The figures of the global simulator, and of the local ones under each of RULES."""
    domain = Traffic(config.domain_section)
    chances = streams(config.seed, Purpose.EVALUATION_ACTIONS, episodes)

    def play(simulator: TrafficGlobalSimulator) -> joint.JointPolicy:
        return held(joint.scripted(policy, domain, simulator, chances), decision_steps(domain))

    recording = record(
        domain,
        streams(config.seed, Purpose.EVALUATION, episodes),
        play,
    )
    locally = {}
    for rule in RULES:
        locally[rule] = replay(_with_rule(config, rule), recording)
    return recording.measured, locally


def _with_rule(config: Config, rule: str) -> Traffic:
    return Traffic(dataclasses.replace(config.domain_section, entries=rule))


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("fidelity", "Compare the local simulators with the global one, traffic only.", EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--config", metavar="FILE", help="the configuration of a traffic network")
    parser.add_argument("--policy", default="fixed", help="random or hand-coded (default fixed)")
    parser.add_argument("--episodes", type=integer, default=16, help="how many (default 16)")
    parser.add_argument(
        "--independent",
        type=real,
        metavar="P",
        help="use independent entries, with probability P",
    )
    parser.add_argument("--summary", action="store_true", help="leave out the table by edge")
    options = parser.parse_intermixed_args(argv)
    try:
        config = _checked(options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    console = PlainConsole()
    if console.width < WIDTH:  # else columns would be cut off
        console.width = WIDTH
    if options.independent is not None:
        console.print(_independent(config, options.independent, options.episodes))
        sys.exit(0)
    truth, locally = measure(config, options.policy, options.episodes)
    if not options.summary:
        console.print(_by_edge(truth, locally))
    console.print(_summary(truth, locally))
    sys.exit(0)


def _checked(options: argparse.Namespace) -> Config:
    config = load(options.config, options.overrides)
    if config.domain != "traffic":
        raise BadInput(
            f"domain is {config.domain}, but this command measures traffic only: give the --config of a "
            "traffic network, for instance configs/traffic/4.yaml"
        )
    domain = Traffic(config.domain_section)
    # Under the actuated program SUMO switches the signals: there are no actions to replay.
    known = ["random", *(name for name in domain.hand_coded if name != "actuated")]
    if options.policy not in known:
        raise BadInput(f"--policy is {printable(options.policy)}: choose {', '.join(known)}")
    if options.episodes < 1:
        raise BadInput(f"--episodes is {options.episodes}: give at least 1")
    if options.independent is not None and not 0 <= options.independent <= 1:
        raise BadInput(f"--independent is {options.independent:g}: give a probability, 0 to 1")
    domain.versions()  # BadInput if SUMO is missing
    return config


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


if __name__ == "__main__":
    main()
