"""Checkpoints: when to write one, when to stop, and how to go on from one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi import states
from dials_mpi.config import Segment
from dials_mpi.joint import widths
from dials_mpi.learners import Learners
from dials_mpi.learning.network import Table
from dials_mpi.logs import LOG
from dials_mpi.position import Position
from dials_mpi.provenance import versions
from dials_mpi.ranks import Ranks
from dials_mpi.signals import Wishes
from dials_mpi.start import Start
from dials_mpi.walltime import Deadline, Pace, work

if TYPE_CHECKING:
    from dials_mpi.progress import Reporter
    from dials_mpi.record import Record

GO_ON, SAVE, STOP = range(3)

Tables = Mapping[str, Sequence[Table]]
"""Names and shapes, of each kind of network one per region (``joint.tables``)."""


class Upkeep:
    """One rank's part of keeping a run; record and reporter are root's."""

    def __init__(
        self,
        start: Start,
        ranks: Ranks,
        learners: Learners,
        tables: Tables,
        deadline: Deadline,
        wishes: Wishes,
        record: Record | None,
        reporter: Reporter | None,
    ) -> None:
        self.start, self.ranks, self.learners = start, ranks, learners
        self.deadline, self.wishes, self.record, self.reporter = deadline, wishes, record, reporter
        self.tables = tables
        position = start.position
        self.pace = Pace(position.seconds if position.ranks == ranks.size else None)
        self.saved_segments, self.saved_at = position.segments, time.monotonic()
        self.segments = {segment.index: segment for segment in start.segments()}

    def restore(self) -> None:
        """Give every region the state that it has in the checkpoint, where there is one."""
        if self.start.checkpoint:
            load(self.ranks, self.learners, self.tables, self.start.checkpoint)

    def commit(self) -> None:
        """What root has noted comes into the run file."""
        if self.ranks.is_root:
            self.record.run.commit()

    def must_stop_after(self, segment: Segment, mean_return: float) -> bool:
        """Keep what the segment brought; whether to stop here. mean_return: NaN if it was not evaluated."""
        self.commit()
        verdict = self.ranks.most(self._verdict(segment))
        if verdict != GO_ON:
            with self.pace("checkpoint"):
                self._save(segment, mean_return)
        if verdict == STOP and self.ranks.is_root:
            self.reporter.stopped(segment.env_steps)
        return verdict == STOP

    def _verdict(self, segment: Segment) -> int:
        """What this rank wants: what signals ask for; on root also what clock and configuration do."""
        if self.wishes.stop_soon:
            return STOP
        if not self.ranks.is_root:
            return GO_ON
        following = self.segments.get(segment.index + 1)
        next_work = work(following) if following else self._final_work()
        if not self.deadline.allows(self.pace.takes(next_work)):
            return STOP
        config = self.start.config
        since, minutes = segment.index + 1 - self.saved_segments, (time.monotonic() - self.saved_at) / 60
        due = (
            following is None
            or (config.checkpoint_every and since >= config.checkpoint_every)
            or (config.checkpoint_minutes and minutes >= config.checkpoint_minutes)
        )
        return SAVE if due else GO_ON

    def _final_work(self) -> list[str]:
        """The policies that need no training are played once the others are trained."""
        return ["evaluate"] * (1 + len(self.learners.domain.hand_coded))

    def _save(self, segment: Segment, mean_return: float) -> None:
        """Write a checkpoint, and remove those that are not to be kept."""
        self.saved_segments, self.saved_at = segment.index + 1, time.monotonic()
        config, directory, position = self.start.config, Path(self.start.directory), None
        if self.ranks.is_root:
            position = Position(
                segments=segment.index + 1,
                env_steps=segment.env_steps,
                wall_time=self.reporter.elapsed(),
                mean_return=mean_return,
                lengths=self.record.run.lengths(),
                ranks=self.ranks.size,
                seconds=self.pace.known(),
            )
        save(self.ranks, self.learners, self.tables, directory, position)
        if self.ranks.is_root:
            from dials_mpi.storage.checkpoint import prune

            prune(directory, config.checkpoint_keep)
            LOG.info("checkpoint at %d steps", segment.env_steps)


def save(
    ranks: Ranks, learners: Learners, tables: Tables, directory: Path, position: Position | None
) -> None:
    """Write a checkpoint, on all ranks: the regions' states come to root one after the other.

    position: root's. Unwritable: the disk takes no more.
    """
    layout = states.layout(widths(tables))
    width = sum(layout.values())

    def row(i: int) -> np.ndarray:
        return states.pack(layout, learners.state(i))

    if not ranks.is_root:
        ranks.bring(learners.regions, row, width)
        return
    from dials_mpi.storage.checkpoint import writing

    config = learners.config
    identity = {**versions(), "domain": config.domain, "mode": config.mode, "seed": config.seed}
    text = config.to_yaml(), config.digest()
    with writing(directory, position, text, identity, layout, tables) as put:
        ranks.bring(learners.regions, row, width, put)


def load(ranks: Ranks, learners: Learners, tables: Tables, checkpoint: Path) -> None:
    """Give every region the state that it has in a checkpoint, which root has checked; on all ranks."""
    layout, rows = states.layout(widths(tables)), None
    if ranks.is_root:
        from dials_mpi.storage.checkpoint import Checkpoint

        rows = Checkpoint(checkpoint, trusted=True).rows(layout, len(learners.domain.regions))
    ranks.hand_out(rows, sum(layout.values()), lambda i, row: states.unpack(layout, row, learners.state(i)))
