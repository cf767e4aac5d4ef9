"""A city's policies with a program that controls its signals through SUMO's traci and numpy alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Controllable
from dials_mpi.export import arrays
from dials_mpi.export.describe import describe_all
from dials_mpi.learning.tables import TABLES
from dials_mpi.results.run import Run
from dials_mpi.storage.files import output_file

PROGRAM = Path(__file__).with_name("traci_program.py")
OPTION = "--traci"


def write(run: Run, file: Path) -> None:
    """Write the program, and the policies and the scenario as .npz beside it.

    BadInput: the domain is not one of SUMO's cities, the networks are not built in, or a file cannot
    be written.
    """
    if not isinstance(run.domain, Controllable):
        raise BadInput(
            f"{OPTION} is given, and there is no such program for the domain {run.domain.name}: use --all"
        )
    _ = run.networks  # BadInput, if they are of another learner
    architecture = run.config.policy.architecture
    if architecture.removeprefix("torch:") not in TABLES:
        raise BadInput(
            f"{OPTION} is given, and its program has the built-in networks alone, not "
            f"{printable(architecture)}: use --all"
        )
    description = {**describe_all(run), "control": run.domain.control(), "streams": _streams(run.config)}
    with output_file(file, OPTION) as program, output_file(file.with_suffix(".npz"), OPTION) as parameters:
        program.write_bytes(PROGRAM.read_bytes())
        arrays.write(run.layers, description, parameters)


def _streams(config: Config) -> dict[str, Any]:
    """The keys of the random streams of ``evaluate``: see core/seeding.py."""
    return {
        "seed": config.episodes_seed,
        "simulator": int(Purpose.EVALUATION),
        "actions": int(Purpose.EVALUATION_ACTIONS),
        "segment": OTHER_EPISODES,
    }
