"""Whether a checkpoint is one of a given run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dials_mpi.config import Config, from_yaml
from dials_mpi.config.comparison import differences
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable

if TYPE_CHECKING:
    from dials_mpi.storage.checkpoint import Checkpoint


def require_same_run(checkpoint: Checkpoint, config: Config) -> None:
    """BadInput: the checkpoint's attributes contradict each other, or it is of a run with other settings."""
    where = printable(str(checkpoint.path))
    own = from_yaml(checkpoint.configuration, f"the configuration in {where}")
    if own.digest() != checkpoint.digest:
        raise BadInput(f"{where} is damaged: its configuration has another digest")
    progress = checkpoint.progress
    done = segments(own)[: progress.segments]
    steps = done[-1].env_steps if len(done) == progress.segments > 0 else -1
    if not steps == progress.env_steps == int(checkpoint.path.stem.rpartition("-")[2]):
        raise BadInput(f"{where} is damaged: its segments, its steps and its name do not agree")
    changed = differences(own, config)
    if changed:
        raise BadInput(f"{where} is of another run: {changed}")
