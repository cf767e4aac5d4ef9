"""Where a run starts, at the beginning or where a checkpoint left it (resume.py finds it), and on what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, segments
from dials_mpi.core.errors import BadInput
from dials_mpi.run.walltime import Deadline, Pace, work
from dials_mpi.storage.position import Position


class Start(NamedTuple):
    """How a run begins; the same on every rank.

    checkpoint: to go on from, where there is one. continued: there was a session before. finished: there is
    nothing left to do. damaged: newer checkpoints that are not whole. changed: the run file was changed by
    another program. notes: what root should say.
    """

    config: Config
    directory: str
    position: Position = Position()
    checkpoint: Path | None = None
    continued: bool = False
    finished: bool = False
    damaged: tuple[Path, ...] = ()
    changed: bool = False
    notes: tuple[str, ...] = ()

    def segments(self) -> list[Segment]:
        """What is left to do."""
        return segments(self.config)[self.position.segments :]


def default_ranks() -> int:
    """One for each core of this machine, and root, which sleeps while the others train."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def usable_ranks(most: int, regions: int, config: Config) -> int:
    """As many ranks as a run of so many regions can use, of ``most``; one where only root has work."""
    ranks = min(most, regions + config.global_ranks)
    return ranks if config.mode != "global" and ranks > config.global_ranks else 1


def require_time(start: Start, deadline: Deadline, ranks: int) -> None:
    """BadInput: as the last session on as many ranks shows, not even the next segment can be done in time.

    Without this a job that is queued again and again would never come any further.
    """
    position, left = start.position, start.segments()
    if left and deadline.left() <= 0:
        raise BadInput(
            "the time is over before anything is begun: give more with --walltime (without it the end of the "
            "SLURM job counts, be it an old SLURM_JOB_END_TIME in the environment)"
        )
    if not left or position.ranks != ranks:
        return
    following = left[1] if len(left) > 1 else None
    needed = Pace(position.seconds).takes(work(start.config, left[0], following, ranks, first=True))
    if not deadline.allows(needed):
        raise BadInput(
            f"the next segment takes about {needed:.0f} s on {ranks} ranks, and there are "
            f"{deadline.left():.0f} s left: allow more time or start more ranks"
        )
