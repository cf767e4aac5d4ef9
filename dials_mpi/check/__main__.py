"""The command line of the check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from dials_mpi.algorithm.joint import JointPolicy, TrainedPolicies
from dials_mpi.check.contract import check_contract
from dials_mpi.check.findings import Finding, Verdict
from dials_mpi.check.influence import Actors, check_influence, random_actors
from dials_mpi.check.play import play_globally
from dials_mpi.check.replay import check_replay
from dials_mpi.check.speed import check_speed
from dials_mpi.cli import Parser, add_unchecked, integer, word
from dials_mpi.config import Config, load
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.text import printable
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain
from dials_mpi.results.choice import Choice, is_run

EXAMPLES = """examples:
  python -m dials_mpi.check my_package.my_module:MyDomain
  python -m dials_mpi.check my_package.my_module:MyDomain my_domain.nodes=9 --episodes 200
  python -m dials_mpi.check warehouse warehouse.grid=[2,2]
  python -m dials_mpi.check traffic --config configs/traffic/4.yaml
  python -m dials_mpi.check runs/mine                       with the trained policies and predictors of a run

What it looks at: shapes, types and ranges; the time limit and restarts; that a seed decides everything, and
nothing beside an episode does; true influence sources fed to the local simulators (Definition 3);
whether other sources make a difference, to random policies or to those of a run, and which
return its predictors promise; the speed of both simulators.
Exit codes: 0 the domain keeps the contract, 1 it does not, 2 bad input."""

EPISODES, MOST_EPISODES = 32, 100_000
SIGNS = {Verdict.GOOD: "[green]good [/]", Verdict.NOTE: "     ", Verdict.WRONG: "[bold red]wrong[/]"}


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("check", "Put a domain to the test.", EXAMPLES)
    parser.add_argument(
        "domain", nargs="?", metavar="DOMAIN | DIR", help="its name, or module:Class; or a run"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--config", metavar="FILE", help="a configuration to begin with")
    parser.add_argument(
        "--checkpoint", metavar="WHICH", type=word, help="best, newest or its steps: of a run, not its end"
    )
    parser.add_argument(
        "--episodes",
        type=integer,
        default=EPISODES,
        help=f"of the replay (default {EPISODES}): more see finer",
    )
    add_unchecked(parser)
    options = parser.parse_intermixed_args(argv)
    try:
        if not 2 <= options.episodes <= MOST_EPISODES:
            raise BadInput(f"--episodes is {options.episodes}: give a number from 2 to {MOST_EPISODES}")
        config, domain, actors = _subject(options)
        console = PlainConsole(soft_wrap=True)
        findings = check(config, domain, actors, options.episodes)
        verdicts = [_show(console, finding) for finding in findings]
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(int(Verdict.WRONG in verdicts))


def check(config: Config, domain: Domain, actors: Actors, episodes: int) -> Iterator[Finding]:
    """All findings on the domain of a configuration; none follow one that is wrong."""
    for finding in check_contract(domain, config.seed):
        yield finding
        if finding.verdict is Verdict.WRONG:
            return
    recorded = play_globally(domain, config.seed, episodes, policy=actors.policy())
    yield check_replay(domain, config.seed, recorded)
    yield from check_influence(domain, config.seed, recorded, actors)
    yield from check_speed(config, domain)


def _subject(options: argparse.Namespace) -> tuple[Config, Domain, Actors]:
    """The domain that the command line names, and who acts in it."""
    if options.domain is None:
        raise BadInput("there is nothing to check: give DOMAIN, its name or module:Class, or a run")
    if is_run(options.domain):
        return _run(options)
    if options.checkpoint:
        raise BadInput("--checkpoint is given, and no run: leave it out")
    config = load(options.config, [f"domain={options.domain}", *options.overrides])
    domain = create(config.domain, config.domain_section)
    domain.versions()  # refuses where something is missing
    return config, domain, random_actors(domain, config.seed, options.episodes)


def _run(options: argparse.Namespace) -> tuple[Config, Domain, Actors]:
    if extra := [*options.overrides, *filter(None, [options.config])]:
        raise BadInput(f"{printable(extra[0])} is one argument too many: a run has its own configuration")
    choice = Choice.of_run(options.domain, options.checkpoint, options.unchecked)
    policies = choice.policies

    def policy() -> JointPolicy:
        return TrainedPolicies(
            policies, streams(choice.config.seed, Purpose.EVALUATION_ACTIONS, options.episodes)
        )

    return choice.config, choice.domain, Actors("the trained policies", policy, choice.predictors)


def _show(console: PlainConsole, finding: Finding) -> Verdict:
    console.print(f"{SIGNS[finding.verdict]} {finding.what}", end="", markup=True)
    console.print(f": {finding.seen}" if finding.seen else "")
    return finding.verdict


if __name__ == "__main__":
    main()
