"""The command ``fidelity``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from dials_mpi.cli import Parser, integer, real
from dials_mpi.config import Config, load
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.fidelity.city import CityComparison
from dials_mpi.fidelity.comparison import Comparison
from dials_mpi.fidelity.traffic import TrafficComparison

EXAMPLES = """examples:
  python -m dials_mpi.fidelity --config configs/traffic/4.yaml
  python -m dials_mpi.fidelity --config configs/traffic/25.yaml --policy greedy --summary
  python -m dials_mpi.fidelity --config configs/traffic/4.yaml --independent 0.5
  python -m dials_mpi.fidelity domain=city city.scenario=resco:cologne8 --no-exits"""

COMPARISONS: dict[str, Comparison] = {"traffic": TrafficComparison(), "city": CityComparison()}
"""By domain."""

WIDTH = 200
"""Columns of the widest table."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    options = _parser().parse_intermixed_args(argv)
    try:
        config = load(options.config, options.overrides)
        comparison = _comparison(config, options)
        comparison.check(config, options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    console = PlainConsole()
    if console.width < WIDTH:  # else columns would be cut off
        console.width = WIDTH
    for table in comparison.tables(config, options):
        console.print(table)
    sys.exit(0)


def _parser() -> Parser:
    parser = Parser(
        "fidelity", "Compare the local simulators with the global one: traffic and cities.", EXAMPLES
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--config", metavar="FILE", help="the configuration of a traffic network or a city")
    parser.add_argument("--policy", help="random or hand-coded (default: traffic fixed, city random)")
    parser.add_argument("--episodes", type=integer, help="how many (default: traffic 16, city 1)")
    parser.add_argument("--summary", action="store_true", help="leave out the table by edge or signal")
    parser.add_argument(
        "--independent",
        type=real,
        metavar="P",
        help="traffic: use independent entries, with probability P",
    )
    parser.add_argument(
        "--no-exits", action="store_true", help="city: vehicles leave a region without waiting for its exits"
    )
    parser.add_argument(
        "--no-turns", action="store_true", help="city: exchange the ways of vehicles that enter on a lane"
    )
    parser.add_argument(
        "--drawn",
        action="store_true",
        help="city: draw places, speeds and types from the recording, as training does",
    )
    return parser


def _comparison(config: Config, options: argparse.Namespace) -> Comparison:
    """The comparison of the domain; it fills in the defaults. BadInput: options that it has not."""
    if config.domain not in COMPARISONS:
        raise BadInput(
            f"domain is {config.domain}, but this command measures traffic and cities only: give the "
            "--config of a traffic network, for instance configs/traffic/4.yaml, or of a city"
        )
    comparison = COMPARISONS[config.domain]
    for domain, other in COMPARISONS.items():
        for name in other.own:
            if other is not comparison and getattr(options, name) not in (None, False):
                option = f"--{name.replace('_', '-')}"
                raise BadInput(f"{option} is given, which is for domain {domain} only: leave it out")
    options.policy = comparison.policy if options.policy is None else options.policy
    options.episodes = comparison.episodes if options.episodes is None else options.episodes
    if options.episodes < 1:
        raise BadInput(f"--episodes is {options.episodes}: give at least 1")
    return comparison


if __name__ == "__main__":
    main()
