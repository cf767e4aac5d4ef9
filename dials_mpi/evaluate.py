"""The command ``evaluate``: the returns of a joint policy on the global simulator.

``python -m dials_mpi.evaluate DIR [--policy NAME]`` for a run, ``--config FILE`` for policies that need no
training. Returns are averaged in ``algorithm/evaluation.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dials_mpi.algorithm.evaluation import Evaluation, evaluate, evaluate_scripted
from dials_mpi.cli import Parser, add_run_arguments, integer, policy_of, run_of, word
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.seeding import OTHER_EPISODES
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Domain

EXAMPLES = """examples:
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --policy oldest --episodes 500
  python -m dials_mpi.evaluate runs/warehouse-4-dials-seed0 --checkpoint best
  python -m dials_mpi.evaluate --config configs/warehouse/25.yaml --policy random warehouse.ring=false
  python -m dials_mpi.evaluate --config configs/traffic/25.yaml --policy max-pressure"""


MOST_EPISODES = 1_000_000


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("evaluate", "Play a joint policy on the global simulator.", EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--episodes", type=integer, default=100, help="number of episodes (default 100)")
    parser.add_argument("--json", metavar="FILE", type=word, help="also write the results to FILE")
    options = parser.parse_intermixed_args(argv)
    try:
        domain, result = _evaluate(options)
        if options.json:
            _write_json(options.json, result)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    error, episodes = result.standard_error, len(result.returns)
    spread = f" +- {error:.3f}" if np.isfinite(error) else ""
    print(f"mean return {result.mean:.3f}{spread} ({episodes} episode{'s' * (episodes > 1)})")
    for statistic in domain.statistics:
        mean = result.statistic(statistic.name)
        figure = "-" if mean is None else f"{mean:.1f} {statistic.unit}"
        print(f"{statistic.name.replace('_', ' ')}: {figure} ({statistic.about})")
    for agent, mean in enumerate(result.returns.mean(axis=0)):
        print(f"agent {agent}: {mean:.3f}")
    sys.exit(0)


def _evaluate(options: argparse.Namespace) -> tuple[Domain, Evaluation]:
    """The domain and the evaluation. BadInput: the options or the run do not allow it."""
    if not 1 <= options.episodes <= MOST_EPISODES:
        raise BadInput(f"--episodes is {options.episodes}: give a number from 1 to {MOST_EPISODES}")
    run = run_of(options)
    config, domain, policy = run.config, run.domain, policy_of(options, run)
    if policy != "trained":
        return domain, evaluate_scripted(config, domain, policy, options.episodes)
    result = evaluate(config, domain, run.policies, run.predictors, options.episodes, segment=OTHER_EPISODES)
    return domain, result


def _write_json(file: str, result: Evaluation) -> None:
    figures: dict[str, Any] = {
        "mean_return": result.mean,
        "standard_error": result.standard_error,
        "episodes": len(result.returns),
        "returns_by_agent": result.returns.mean(axis=0).tolist(),
        **{name: result.statistic(name) for name in result.statistics},
    }
    if result.cross_entropy is not None:
        figures["cross_entropy_by_region"] = result.cross_entropy.tolist()
    if not np.isfinite(result.standard_error):
        figures["standard_error"] = None
    try:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{printable(file)} cannot be written ({reason}): choose another --json") from error


if __name__ == "__main__":
    main()
