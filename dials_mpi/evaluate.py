"""The command ``evaluate``: the returns of joint policies on the global simulator.

``python -m dials_mpi.evaluate DIR [--policy NAME]`` for a run, ``--config FILE`` for policies that need no
training. Returns are averaged in ``algorithm/evaluation.py``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from rich.table import Table

from dials_mpi.algorithm.evaluation import (
    Difference,
    Evaluation,
    baseline,
    evaluate,
    evaluate_scripted,
    paired,
)
from dials_mpi.algorithm.joint import GreedyActor
from dials_mpi.cli import Parser, add_run_arguments, integer, policies_of, run_of, word
from dials_mpi.core.console import PlainConsole, progress_bar
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.first_start import compiling
from dials_mpi.core.output import command_line
from dials_mpi.core.seeding import OTHER_EPISODES
from dials_mpi.core.text import heading, printable
from dials_mpi.domains.base import Detailed, Details, Domain, GlobalSimulator, KeepsFiles, Statistic
from dials_mpi.results.run import TRAINED, Run
from dials_mpi.storage.files import write_json

EXAMPLES = """examples:
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --policy oldest --episodes 500
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --policy all
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --checkpoint best --greedy
  python -m dials_mpi.evaluate --config configs/warehouse/25.yaml --policy random warehouse.ring=false
  python -m dials_mpi.evaluate --config configs/traffic/25.yaml --policy max-pressure"""


MOST_EPISODES = 1_000_000
COLUMN = 30
"""Room for a column of a table, characters."""


class Played(NamedTuple):
    """The episodes of one joint policy; details: where the domain has them."""

    policy: str
    result: Evaluation
    details: Details | None


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("evaluate", "Play joint policies on the global simulator.", EXAMPLES)
    add_run_arguments(parser, several=True)
    parser.add_argument("--episodes", type=integer, default=100, help="number of episodes (default 100)")
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="trained policies take their most probable action (default: they draw one, as in training)",
    )
    parser.add_argument("--json", metavar="FILE", type=word, help="also write the results to FILE")
    parser.add_argument(
        "--tripinfo",
        metavar="FOLDER",
        type=word,
        help="a city: keep SUMO's files of each episode in FOLDER/POLICY/episode-K",
    )
    options = parser.parse_intermixed_args(argv)
    try:
        domain, played = _evaluate(options)
        if options.json:
            write_json(options.json, _all_figures(played) if options.policy == "all" else _figures(played[0]))
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    if options.policy == "all":
        _print_comparison(domain, played)
    else:
        _print_one(domain, played[0])
    sys.exit(0)


def _evaluate(options: argparse.Namespace) -> tuple[Domain, list[Played]]:
    """The domain and the evaluations. BadInput: the options or the run do not allow it."""
    if not 1 <= options.episodes <= MOST_EPISODES:
        raise BadInput(f"--episodes is {options.episodes}: give a number from 1 to {MOST_EPISODES}")
    run = run_of(options)
    names = policies_of(options, run)
    if options.greedy and TRAINED not in names:
        raise BadInput(f"--greedy is given, and {names[0]} is not a trained policy: leave it out")
    folders = _folders(options.tripinfo, run.domain, names)
    if TRAINED in names:
        _ = run.actors, run.predictors  # BadInput, if there are none, comes before minutes of playing
        if options.greedy and not all(isinstance(policy, GreedyActor) for policy in run.actors):
            raise BadInput(
                f"--greedy is given, and {run.config.learner} has no method most_probable: leave it out"
            )
    episodes, greedy = options.episodes, options.greedy
    with progress_bar("playing", episodes * len(names)) as advance:
        return run.domain, [
            _play(run, name, episodes, greedy, _Episodes(run.domain, folders.get(name), advance))
            for name in names
        ]


def _play(run: Run, policy: str, episodes: int, greedy: bool, observer: _Episodes) -> Played:
    """All policies play the same episodes, which are none of those of the run's evaluations."""
    config, domain = run.config, run.domain
    if policy == TRAINED:
        result = evaluate(
            *(config, domain, run.actors, run.predictors, episodes), OTHER_EPISODES, observer, greedy
        )
    else:
        result = evaluate_scripted(config, domain, policy, episodes, OTHER_EPISODES, observer)
    return Played(policy, result, observer.details())


class _Episodes:
    """An ``Observer`` that keeps what the domain says about each episode, and its simulators' files.

    folder: of the files; None: they are not kept. advance: called with the number of episodes that ended.
    """

    def __init__(self, domain: Domain, folder: Path | None, advance: Callable[[int], None]) -> None:
        self._domain, self._folder, self._advance = domain, folder, advance
        self._found: list[Any] = []

    def begin(self, simulator: GlobalSimulator, numbers: range) -> None:
        """BadInput: the folder of the episode's files cannot be made."""
        if self._folder and isinstance(self._domain, KeepsFiles):
            self._domain.keep_files(simulator, _made(self._folder / f"episode-{numbers[0]}"))

    def end(self, simulator: GlobalSimulator, numbers: range) -> None:
        """Keep the details; a first start says now how long compiling took, not after all episodes."""
        compiling.end()
        self._advance(len(numbers))
        if isinstance(self._domain, Detailed):
            self._found.append(self._domain.details(simulator))

    def details(self) -> Details | None:
        """The details over all episodes, where the domain has them."""
        return self._domain.merged_details(self._found) if isinstance(self._domain, Detailed) else None


def _folders(given: str | None, domain: Domain, policies: Sequence[str]) -> dict[str, Path]:
    """The folder of each policy's files; none without ``--tripinfo``.

    BadInput: the domain has no such files, or there are files in a folder already.
    """
    if given is None:
        return {}
    if not isinstance(domain, KeepsFiles):
        raise BadInput(f"--tripinfo is given, and the domain {domain.name} has no such files: leave it out")
    folders = {policy: _made(Path(given, policy)) for policy in policies}
    for folder in folders.values():
        if any(folder.iterdir()):
            raise BadInput(f"{printable(str(folder))} has files already: choose another --tripinfo")
    return folders


def _made(folder: Path) -> Path:
    """The folder, made if it is missing. BadInput: it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"the folder {printable(str(folder))} cannot be made ({reason}): choose another --tripinfo"
        ) from error


def _print_one(domain: Domain, played: Played) -> None:
    result = played.result
    error, episodes = result.standard_error, len(result.returns)
    spread = f" +- {error:.3f}" if np.isfinite(error) else ""
    print(f"mean return {result.mean:.3f}{spread} ({episodes} episode{'s' * (episodes > 1)})")
    for statistic in domain.statistics:
        figure = _shown(result.statistic(statistic.name), result.statistic_error(statistic.name))
        unit = "" if figure == "-" else f" {statistic.unit}"
        print(f"{statistic.name.replace('_', ' ')}: {figure}{unit} ({statistic.about})")
    for k, mean in enumerate(result.returns.mean(axis=0)):
        name = domain.agents[k].name
        print(f"agent {k}{f' ({printable(name)})' * bool(name)}: {mean:.3f}")
    if played.details:
        _print_table(_details_table(played.details))


def _print_table(table: Table) -> None:
    console = PlainConsole()
    console.width = max(console.width, COLUMN * len(table.columns))  # else columns would be cut off
    console.print(table)


def _print_comparison(domain: Domain, played: Sequence[Played]) -> None:
    """One table; at a terminal that is narrower, several below each other, the returns in the first."""
    known = [s for s in domain.statistics if any(one.result.statistic(s.name) is not None for one in played)]
    console = PlainConsole()
    if not console.is_terminal:
        return _print_table(_comparison(played, known))
    any_width = console.options.update(max_width=COLUMN * (len(known) + 3))
    returns = True
    while known or returns:
        fitting = len(known)
        table = _comparison(played, known, returns)
        while fitting > (not returns) and console.measure(table, options=any_width).maximum > console.width:
            fitting -= 1
            table = _comparison(played, known[:fitting], returns)
        console.print(table)
        known, returns = known[fitting:], False
    return None


def _comparison(played: Sequence[Played], statistics: Sequence[Statistic], returns: bool = True) -> Table:
    """One row per policy: its return, the difference from that of the baseline in the same episodes, and the
    domain's statistics, with standard errors. returns: with the first two."""
    episodes, (name, first) = len(played[0].result.returns), _baseline(played)
    title = f"Means of {episodes} episode{'s' * (episodes > 1)} +- standard error"
    table = Table(title=title if returns else None)
    for k, text in enumerate(("policy", "return", f"return minus {name}")[: 3 if returns else 1]):
        table.add_column(text, justify="right" if k else "left")
    for statistic in statistics:
        table.add_column(heading(statistic.name, statistic.unit), justify="right")
    for policy, result, _ in played:
        names = [statistic.name for statistic in statistics]
        figures = [_shown(result.statistic(name), result.statistic_error(name)) for name in names]
        minus = "" if policy == name else _shown(*result.minus(first), digits=3)
        own = [_shown(result.mean, result.standard_error, 3), minus] if returns else []
        table.add_row(policy, *own, *figures)
    return table


def _baseline(played: Sequence[Played]) -> tuple[str, Evaluation]:
    """The name and the result of the policy that others are compared with."""
    results = {one.policy: one.result for one in played}
    name = baseline(results)
    return name, results[name]


def _details_table(details: Details) -> Table:
    table = Table()
    for k, (name, unit) in enumerate(details.columns):
        table.add_column(heading(name, unit), justify="left" if k == 0 else "right")
    for row in details.rows:
        cells = (_shown(cell) if cell is None or isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*(printable(cell) for cell in cells))
    return table


def _shown(mean: float | None, error: float = math.nan, digits: int = 1) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + (f" +- {error:.{digits}f}" if math.isfinite(error) else "")


def _all_figures(played: Sequence[Played]) -> dict[str, Any]:
    """With the differences from the baseline's returns in the same episodes."""
    name, first = _baseline(played)
    return {
        "episodes": len(played[0].result.returns),
        "policies": {one.policy: _figures(one) for one in played},
        "baseline": name,
        "differences": {one.policy: _difference(one.result, first) for one in played},
    }


def _difference(result: Evaluation, first: Evaluation) -> dict[str, Any]:
    """Of the returns, and in ``statistics`` of each statistic."""
    others = {name: paired(values, first.statistics[name]) for name, values in result.statistics.items()}
    statistics = {name: _as_json(difference) for name, difference in others.items()}
    return {**_as_json(result.minus(first)), "statistics": statistics}


def _as_json(difference: Difference) -> dict[str, float | None]:
    return {"mean": _finite(difference.mean), "standard_error": _finite(difference.standard_error)}


def _figures(played: Played) -> dict[str, Any]:
    _, result, details = played
    figures: dict[str, Any] = {
        "mean_return": result.mean,
        "standard_error": _finite(result.standard_error),
        "episodes": len(result.returns),
        "returns_by_agent": result.returns.mean(axis=0).tolist(),
        **{name: result.statistic(name) for name in result.statistics},
        "standard_errors": {name: _finite(result.statistic_error(name)) for name in result.statistics},
        "returns_by_episode": result.returns.mean(axis=1).tolist(),
        "statistics_by_episode": {
            name: [_finite(value) for value in values.tolist()] for name, values in result.statistics.items()
        },
    }
    if result.cross_entropy is not None:
        figures["cross_entropy_by_region"] = result.cross_entropy.tolist()
    if details:
        names = [name for name, _ in details.columns]
        figures[details.name] = [dict(zip(names, row, strict=True)) for row in details.rows]
    return figures


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    main()
