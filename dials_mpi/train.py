"""Algorithm 1: multi-agent reinforcement learning with DIALS, the same program on every rank.

mpirun -n 101 python -m dials_mpi.train trains the paper's 100-agent warehouse, one region per rank.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from dials_mpi import ranks as mpi
from dials_mpi.cli import Parser, agreed
from dials_mpi.config import Config, load, segments
from dials_mpi.errors import BadInput, refuse
from dials_mpi.ranks import Ranks

EXAMPLES = """examples:
  mpirun -n 3 python -m dials_mpi.train --config configs/quickstart.yaml
  mpirun -n 101 python -m dials_mpi.train                  the paper's 100-agent warehouse
  mpirun -n 5 python -m dials_mpi.train --config configs/traffic/4.yaml   four crossings; needs SUMO
  python -m dials_mpi.train --config configs/warehouse/4.yaml seed=1 ppo.learning_rate=1e-4
  python -m dials_mpi.train warehouse.grid=[3,3] mode=untrained --print-config

Any number of ranks from 1 to the number of regions + 1 gives the same results.
Exit codes: 0 done, 2 bad input, others a crash."""


def train(config: Config, ranks: Ranks, directory: str) -> None:
    """Algorithm 1, on every rank: root has the global simulator, the others hold the regions.

    In mode untrained no segment refreshes; in mode global the policies train on the global simulator.
    """
    from dials_mpi.system import System  # loads torch, which takes a second

    with System(config, ranks, directory) as system:  # line 1
        system.evaluate(env_steps=0, segment=0)
        for segment in segments(config):  # line 2
            if segment.refresh:  # every F steps
                datasets = system.collect(segment)  # line 3
                system.fit_predictors(datasets, segment)  # lines 4 to 6
            system.train_policies(segment)  # lines 7 to 12
            system.evaluate(segment.env_steps, segment.index + 1)
        system.finish()


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = Parser("train", "Train the agents of a networked system with DIALS.", EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as ppo.clip=0.2")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file; default: the paper's 100-agent warehouse"
    )
    parser.add_argument("--output", metavar="DIR", help="run directory; default: runs/ and a name of its own")
    parser.add_argument("--print-config", action="store_true", help="show the whole configuration and stop")
    options = parser.parse_intermixed_args(argv)
    if options.print_config:
        sys.exit(_print_config(options.config, options.overrides))
    mpi.run(lambda ranks: _program(ranks, options.config, options.overrides, options.output))


def _program(ranks: Ranks, file: str | None, overrides: Sequence[str], output: str | None) -> int:
    plan = agreed(ranks, lambda: _plan(ranks, file, overrides, output))
    if isinstance(plan, int):
        return plan
    config, directory = plan
    train(config, ranks, directory)
    return 0


def _plan(ranks: Ranks, file: str | None, overrides: Sequence[str], output: str | None) -> tuple[Config, str]:
    """The checked configuration and the directory of the new run. BadInput: see Config and RunFile."""
    from dials_mpi.domains import create
    from dials_mpi.provenance import versions
    from dials_mpi.runfile import RunFile

    config = load(file, overrides)
    domain = create(config.domain, config.domain_section)
    own_versions = domain.versions()
    regions = len(domain.regions)
    if ranks.size > regions + 1:
        raise BadInput(
            f"{ranks.size} ranks are more than {regions} regions and one root can use: "
            f"start at most {regions + 1}"
        )
    directory = output or f"runs/{config.domain}-{regions}-{config.mode}-seed{config.seed}"
    identity = {"domain": config.domain, "mode": config.mode, "seed": config.seed}
    attributes = {
        **versions(),
        **own_versions,
        **identity,
        "config_digest": config.digest(),
        "finished": False,
    }
    RunFile.create(directory, config.to_yaml(), attributes)
    return config, directory


def _print_config(file: str | None, overrides: Sequence[str]) -> int:
    if not mpi.launched_as_root():
        return 0
    try:
        print(load(file, overrides).to_yaml(), end="")
    except BadInput as refusal:
        return refuse(refusal)
    return 0


if __name__ == "__main__":
    main()
