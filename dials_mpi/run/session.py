"""Where a session of a run starts: at the beginning, or at a checkpoint (resume.py finds it)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.shell import option
from dials_mpi.run.walltime import Deadline, Pace, work
from dials_mpi.storage.progress import Progress


class InitialWeights(dict[str, np.ndarray]):
    """Parameters of another run with which a run starts: rows float32 [N or R, P] by dataset's name.

    Root has read them. Sent to another rank, it is empty: a rank gets the rows of its own agents and regions
    when the run begins. described: attributes of the session in the run file, which say where they come from.
    """

    described: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.described = {}

    def __reduce__(self) -> tuple[type[InitialWeights], tuple[()]]:
        return InitialWeights, ()


class SessionStart(NamedTuple):
    """Where a session starts; the same on every rank.

    progress: what is done. checkpoint: the file to restore from, where there is one. continued: the run had a
    session before. finished: nothing is left to do. damaged: newer checkpoints that are damaged. changed: the
    run file was changed by another program. notes: for the user. weights: of another run, where there is no
    checkpoint.
    """

    config: Config
    directory: str
    progress: Progress = Progress()
    checkpoint: Path | None = None
    continued: bool = False
    finished: bool = False
    damaged: tuple[Path, ...] = ()
    changed: bool = False
    notes: tuple[str, ...] = ()
    weights: InitialWeights = InitialWeights()

    def segments(self) -> list[Segment]:
        """The segments that are left."""
        return segments(self.config)[self.progress.segments :]


def require_time(start: SessionStart, deadline: Deadline, ranks: int) -> None:
    """BadInput: the last session on as many ranks shows that not even the next segment ends in time.

    Without this check a job that is queued again and again would make no progress.
    """
    progress, left = start.progress, start.segments()
    if left and deadline.left() <= 0:
        raise BadInput(
            f"the time is over before the run has begun: give more with {option('walltime')} (without it the "
            "end of the SLURM job counts, which an old SLURM_JOB_END_TIME in the environment may give)"
        )
    if not left or progress.ranks != ranks:
        return
    following = left[1] if len(left) > 1 else None
    needed = Pace(progress.seconds).takes(work(start.config, left[0], following, ranks, first=True))
    if not deadline.allows(needed):
        raise BadInput(
            f"the next segment takes about {needed:.0f} s on {ranks} ranks, and there are "
            f"{deadline.left():.0f} s left: allow more time or start more ranks"
        )
