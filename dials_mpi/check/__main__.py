"""The command ``check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from dials_mpi.algorithm.joint import JointPolicy, TrainedPolicies
from dials_mpi.check.contract import check_contract
from dials_mpi.check.findings import Finding, Verdict
from dials_mpi.check.influence import Actors, check_influence, random_actors
from dials_mpi.check.learner import check_learner
from dials_mpi.check.network import ROLES, check_network, require_class
from dials_mpi.check.play import play_globally
from dials_mpi.check.replay import check_replay
from dials_mpi.check.speed import check_speed
from dials_mpi.cli import (
    Parser,
    add_checkpoint,
    add_unchecked,
    integer,
    is_run,
    require_no_settings,
    runs_and_settings,
    word,
)
from dials_mpi.config import Config, load
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.domains import create, require_local
from dials_mpi.domains.base import Domain, Mapped, Surveyed
from dials_mpi.learning.learner import require_usable
from dials_mpi.results.run import Run
from dials_mpi.results.style import STILLS, style
from dials_mpi.settings.yaml_text import scalar
from dials_mpi.storage.files import output_file

EXAMPLES = """examples:
  python -m dials_mpi.check my_package.my_module:MyDomain
  python -m dials_mpi.check my_package.my_module:MyDomain my_domain.nodes=9 --episodes 200
  python -m dials_mpi.check warehouse warehouse.grid=[2,2]
  python -m dials_mpi.check traffic --config configs/traffic/4.yaml
  python -m dials_mpi.check --config configs/city/cologne8.yaml --survey --picture cologne8.png
  python -m dials_mpi.check --network my_package:MyPolicy policy.arguments={heads: 4}
  python -m dials_mpi.check --learner my_package:MyTrainer learner_arguments={rate: 0.1}
  python -m dials_mpi.check runs/mine                       with the trained policies and predictors of a run

A domain that reads files, as city does, first reports on them: a row for each of its parts, and what stands
in the way of a good result. The command checks shapes, types and ranges; the time limit and resets; that the
seed decides all results, and other episodes none; that arrays are not shared with the caller; and that the
local simulators repeat recorded episodes under the true influence sources (Definition 3). It measures how far
other sources change the return of random policies, or of those of a run; of a run, it judges the return that
the predictors promise; and it measures the speed of both simulators (docs/domain.md has the rules).
With --network it checks a torch.nn.Module with the sizes of a domain instead (docs/networks.md): shapes, that
equal inputs give equal outputs, that sequences agree with steps and the state with episodes, gradients,
loading, and its speed beside the built-in network.
With --learner it checks a trainer (docs/trainers.md): its actions, that equal seeds give equal training, and
that a restored one trains on as before.
Exit codes: 0 nothing is wrong, 1 something is, 2 bad input."""
SMALL = ("warehouse.grid=[2,2]",)

EPISODES, MOST_EPISODES = 32, 100_000
SIGNS = {Verdict.GOOD: "[green]good [/]", Verdict.NOTE: "     ", Verdict.WRONG: "[bold red]wrong[/]"}


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("check", "Check that a domain keeps its contract, and measure its simulators.", EXAMPLES)
    parser.add_argument(
        "domain",
        nargs="?",
        metavar="DOMAIN | DIR",
        help="its name, or module:Class (default: that of --config); or a run",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--config", metavar="FILE", help="a configuration to begin with")
    add_checkpoint(parser)
    parser.add_argument(
        "--episodes",
        type=integer,
        default=EPISODES,
        help=f"of the replay (default {EPISODES}); more give a smaller error",
    )
    parser.add_argument(
        "--picture", metavar="FILE", type=word, help="first draw a map of the regions (png, svg or pdf)"
    )
    parser.add_argument(
        "--survey",
        action="store_true",
        help="only report on the domain's files, and draw --picture",
    )
    parser.add_argument(
        "--network", metavar="NAME", type=word, help="check this network, such as my_package:MyPolicy"
    )
    parser.add_argument(
        "--role", choices=ROLES, default="policy", help="what --network is used as (default: policy)"
    )
    parser.add_argument(
        "--learner", metavar="NAME", type=word, help="check this trainer, such as my_package:MyTrainer"
    )
    add_unchecked(parser)
    options = parser.parse_intermixed_args(argv)
    try:
        if options.network or options.learner:
            sys.exit(_check_class(options))
        if not 2 <= options.episodes <= MOST_EPISODES:
            raise BadInput(f"--episodes is {options.episodes}: give a number from 2 to {MOST_EPISODES}")
        config, domain, actors = _subject(options)
        console = PlainConsole(soft_wrap=True)
        _survey(console, domain, options.survey)
        if options.picture:
            _draw(domain, options.picture)
        findings = () if options.survey else check(config, domain, actors, options.episodes)
        verdicts = [_show(console, finding) for finding in findings]
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(int(Verdict.WRONG in verdicts))


def _check_class(options: argparse.Namespace) -> int:
    """Check a network or learner; 1: it breaks the contract. BadInput: the command line names none."""
    given = [*filter(None, [options.domain]), *options.overrides]
    option = "--network" if options.network else "--learner"
    if options.network and options.learner:
        raise BadInput("--network and --learner are given: check one after the other")
    if options.checkpoint or options.survey or options.picture:
        raise BadInput(f"{option} is given beside an option that is for domains or runs: leave that out")
    names, words = runs_and_settings(given)
    words = [*(f"domain={name}" for name in names[:1]), *names[1:], *words]
    small = () if options.config or any(word.startswith("domain=") for word in words) else SMALL
    key = f"{options.role}.architecture" if options.network else "learner"
    config = load(options.config, [*small, *words, f"{key}={scalar(options.network or options.learner)}"])
    domain = create(config.domain, config.domain_section)
    console = PlainConsole(soft_wrap=True)
    verdicts = [_show(console, finding) for finding in _of_class(config, domain, options)]
    return int(Verdict.WRONG in verdicts)


def _of_class(config: Config, domain: Domain, options: argparse.Namespace) -> Iterator[Finding]:
    """The findings on a network or learner. BadInput: it is none, or not for this domain."""
    if options.network:
        require_class(config.policy if options.role == "policy" else config.influence)
        return check_network(config, domain, options.role)
    if not config.own_learner:
        raise BadInput("--learner is ppo, the built-in trainer: name a class of your own as module:Class")
    require_usable(config, domain)
    return check_learner(config, domain)


def check(config: Config, domain: Domain, actors: Actors, episodes: int) -> Iterator[Finding]:
    """All findings on the domain of a configuration; the contract's first violation is the last finding."""
    for finding in check_contract(domain, config.seed):
        yield finding
        if finding.verdict is Verdict.WRONG:
            return
    recorded = play_globally(domain, config.seed, episodes, policy=actors.policy)
    replayed = check_replay(domain, config.seed, recorded, actors.random)
    yield replayed
    if replayed.verdict is Verdict.WRONG:
        return
    yield from check_influence(domain, config.seed, recorded, actors)
    yield from check_speed(config, domain)


def _subject(options: argparse.Namespace) -> tuple[Config, Domain, Actors]:
    """The domain that the command line names, and the policies to play. BadInput: there is none."""
    given = [options.domain] if options.domain else []
    names, settings = runs_and_settings([*given, *options.overrides])
    if not (names or options.config or any(word.startswith("domain=") for word in settings)):
        raise BadInput("no DOMAIN is given: give its name, module:Class, or the directory of a run")
    if names and is_run(names[0]):
        return _run(options)
    if options.checkpoint:
        raise BadInput("--checkpoint is given, and no run: leave it out")
    config = load(options.config, [*(f"domain={name}" for name in names[:1]), *names[1:], *settings])
    domain = create(config.domain, config.domain_section)
    require_local(domain)
    return config, domain, random_actors(domain)


def _run(options: argparse.Namespace) -> tuple[Config, Domain, Actors]:
    require_no_settings(options.domain, [*options.overrides, *filter(None, [options.config])])
    run = Run.open(options.domain, options.checkpoint, options.unchecked)
    require_local(run.domain)
    policies = run.actors

    def policy(agents: Sequence[int], chance: Sequence[np.random.Generator]) -> JointPolicy:
        return TrainedPolicies([policies[i] for i in agents], chance)

    return run.config, run.domain, Actors("the trained policies", policy, run.predictors)


def _survey(console: PlainConsole, domain: Domain, wanted: bool) -> None:
    """Print the domain's report on its input files, if it has one. BadInput: it is wanted, and has none."""
    if not isinstance(domain, Surveyed):
        if wanted:
            raise BadInput(f"--survey is given, and the domain {domain.name} reads no files: leave it out")
        return
    found = domain.survey()
    widths = [max(map(len, column)) for column in zip(found.columns, *found.rows, strict=True)]
    for row in (found.columns, *found.rows):
        cells = (text.rjust(width) for text, width in zip(row[:-1], widths, strict=False))
        console.print("  ".join([*cells, row[-1]]))
    for warning in found.warnings:
        console.print(f"      {warning}")


def _draw(domain: Domain, out: str) -> None:
    """Write a map of the domain's regions. BadInput: it has none, or the file cannot be written."""
    if not isinstance(domain, Mapped):
        raise BadInput(f"--picture is given, and the domain {domain.name} has no map: leave it out")
    if Path(out).suffix.lower() not in STILLS:
        raise BadInput(f"--picture is {printable(out)}: choose a name that ends with {', '.join(STILLS)}")
    with style(), output_file(Path(out), "--picture") as file:  # style first: matplotlib may be missing
        from dials_mpi.results.frame import caption, framed, save

        figure, _ = framed(len(domain.regions), domain.draw_map)
        caption(figure, f"{domain.name}: {len(domain.regions)} regions")
        save(figure, file)


def _show(console: PlainConsole, finding: Finding) -> Verdict:
    console.print(f"{SIGNS[finding.verdict]} {finding.what}", end="", markup=True)
    console.print(f": {finding.seen}" if finding.seen else "")
    return finding.verdict


if __name__ == "__main__":
    main()
