"""Checkpoints: when to write one, when to stop, and how to go on from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dials_mpi.algorithm.learners import Learners
from dials_mpi.config.schedule import Segment, collects_ahead
from dials_mpi.core.logging import LOG
from dials_mpi.core.provenance import versions
from dials_mpi.core.signals import StopRequests
from dials_mpi.learning.tables import Table, widths
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.run import states
from dials_mpi.run.costs import UnrecordedCosts
from dials_mpi.run.session import Start
from dials_mpi.run.sinks.base import Sinks
from dials_mpi.run.walltime import Deadline, Pace, Work, work
from dials_mpi.storage.position import Position

GO_ON, SAVE, STOP = range(3)

Tables = Mapping[str, Sequence[Table]]
"""Names and shapes, of each kind of network one per owner (``learning.tables``)."""


class CheckpointManager:
    """One rank's part of keeping a run."""

    def __init__(
        self,
        start: Start,
        comm: Communicator,
        learners: Learners,
        tables: Tables,
        deadline: Deadline,
        stop_requests: StopRequests,
        unrecorded: UnrecordedCosts,
        sinks: Sinks,
    ) -> None:
        self.start, self.comm, self.learners = start, comm, learners
        self.deadline, self.stop_requests, self.sinks = deadline, stop_requests, sinks
        self.tables, self.unrecorded = tables, unrecorded
        position = start.position
        self.pace = Pace(position.seconds if position.ranks == comm.size else None)
        self.saved_segments, self.saved_at = position.segments, time.monotonic()
        self.segments = {segment.index: segment for segment in start.segments()}

    def restore(self) -> None:
        """Give every region the state that it has in the checkpoint, where there is one."""
        if self.start.checkpoint:
            load(self.comm, self.learners, self.tables, self.start.checkpoint)
            self.unrecorded.restore(self.start.position.unrecorded, self.comm.rank, self.comm.size)

    def earlier_policies(self) -> dict[int, np.ndarray] | None:
        """This rank's agents' policies as they were a segment before the checkpoint: where the run goes on
        with a refit, they play for its data. None where the next refit needs none of the past."""
        start = self.start
        following = self.segments.get(start.position.segments)
        if not (start.checkpoint and following and collects_ahead(start.config, following.index)):
            return None
        return load_earlier(self.comm, self.learners, self.tables, start.checkpoint)

    def commit(self) -> None:
        """Let root's sinks write their records."""
        self.sinks.flush()

    def must_stop_after(self, segment: Segment, earlier: np.ndarray | None) -> bool:
        """Keep what the segment brought; whether to stop here.

        earlier: on root, parameters [N, P] of the policies of the segment's start.
        """
        self.commit()
        verdict = self.comm.allreduce_max(self._verdict(segment))
        if verdict != GO_ON:
            with self.pace("checkpoint"):
                self._save(segment, earlier)
        if verdict == STOP:
            self.sinks.stopped(segment.env_steps, self.sinks.elapsed())
        return verdict == STOP

    def _verdict(self, segment: Segment) -> int:
        """What this rank wants: what signals ask for; on root also what clock and configuration do."""
        if self.stop_requests.stop_soon:
            return STOP
        if not self.comm.is_root:
            return GO_ON
        following = self.segments.get(segment.index + 1)
        if not self.deadline.allows(self.pace.takes(self._work(following))):
            return STOP
        config = self.start.config
        since, minutes = segment.index + 1 - self.saved_segments, (time.monotonic() - self.saved_at) / 60
        due = (
            following is None
            or (config.checkpoint_every and since >= config.checkpoint_every)
            or (config.checkpoint_minutes and minutes >= config.checkpoint_minutes)
        )
        return SAVE if due else GO_ON

    def _work(self, segment: Segment | None) -> Work:
        """Of the next segment; where none is left, the policies that need no training are played."""
        config = self.start.config
        if segment is None:
            return ["evaluate"] * (config.overlapped + 1 + len(self.learners.domain.hand_coded))
        return work(config, segment, self.segments.get(segment.index + 1), self.comm.size, first=False)

    def _save(self, segment: Segment, earlier: np.ndarray | None) -> None:
        """Write a checkpoint, and remove those that are not to be kept."""
        self.saved_segments, self.saved_at = segment.index + 1, time.monotonic()
        config, directory, position = self.start.config, Path(self.start.directory), None
        unrecorded = self.comm.gather_by_rank(self.unrecorded.row())
        if self.comm.is_root:
            position = Position(
                segments=segment.index + 1,
                env_steps=segment.env_steps,
                wall_time=self.sinks.elapsed(),
                lengths=self.sinks.run_file.run.lengths(),
                ranks=self.comm.size,
                seconds=self.pace.usual(),
                unrecorded=unrecorded.tolist(),
            )
        if not collects_ahead(config, segment.index + 1):
            earlier = None
        save(self.comm, self.learners, self.tables, directory, position, earlier)
        if self.comm.is_root:
            from dials_mpi.storage.checkpoint import prune

            prune(directory, config.checkpoint_keep, self.sinks.run_file.run.mean_return)
            LOG.info("checkpoint at %d steps", segment.env_steps)


def save(
    comm: Communicator,
    learners: Learners,
    tables: Tables,
    directory: Path,
    position: Position | None,
    earlier: np.ndarray | None = None,
) -> None:
    """Write a checkpoint, on all ranks: the regions' rows (``Members.pieces``) come to root one after the
    other.

    position: root's. earlier: root's, policies [N, P] that are still needed beside the newest. Unwritable:
    the disk takes no more.
    """
    layouts, members = states.layouts(widths(tables)), learners.members
    width = members.width(layouts)

    def row(k: int) -> np.ndarray:
        parts = members.pieces(layouts, k)
        return np.concatenate([states.pack(layouts[kind], learners.state(kind, i)) for kind, i, _ in parts])

    if not comm.is_root:
        comm.gather_one_by_one(learners.regions, row, width)
        return
    from dials_mpi.storage.checkpoint import writing

    config = learners.config
    identity = {**versions(), "domain": config.domain, "mode": config.mode, "seed": config.seed}
    text = config.to_yaml(), config.digest()
    beside = {} if earlier is None else states.earlier(earlier.shape[1])
    kinds = layouts | beside
    with writing(directory, position, text, identity, kinds, members.numbers(kinds), tables) as put:

        def take(k: int, row: np.ndarray) -> None:
            for kind, i, part in members.pieces(layouts, k):
                put(kind, i, row[part])

        comm.gather_one_by_one(learners.regions, row, width, take)
        for i, vector in enumerate(() if earlier is None else earlier):
            put(states.EARLIER, i, vector)


def load(comm: Communicator, learners: Learners, tables: Tables, checkpoint: Path) -> None:
    """Give every region the state that it has in a checkpoint, which root has checked; on all ranks."""
    layouts = states.layouts(widths(tables))

    def take(kind: str, i: int, row: np.ndarray) -> None:
        states.unpack(layouts[kind], row, learners.state(kind, i))

    _load(comm, learners, layouts, checkpoint, take)


def load_earlier(
    comm: Communicator, learners: Learners, tables: Tables, checkpoint: Path
) -> dict[int, np.ndarray]:
    """The policies [P] that ``save`` was given beside the newest ones, of this rank's agents."""
    found: dict[int, np.ndarray] = {}

    def take(kind: str, i: int, row: np.ndarray) -> None:
        found[i] = row.copy()

    _load(comm, learners, states.earlier(widths(tables)["policy"]), checkpoint, take)
    return found


def _load(
    comm: Communicator,
    learners: Learners,
    layouts: Mapping[str, states.Layout],
    checkpoint: Path,
    take: Callable[[str, int, np.ndarray], None],
) -> None:
    rows, members = None, learners.members
    if comm.is_root:
        from dials_mpi.storage.checkpoint import Checkpoint

        groups = ([piece[:2] for piece in members.pieces(layouts, k)] for k in range(len(members.agents)))
        rows = Checkpoint(checkpoint, trusted=True).rows(layouts, groups)

    def cut(k: int, row: np.ndarray) -> None:
        for kind, i, part in members.pieces(layouts, k):
            take(kind, i, row[part])

    comm.scatter_one_by_one(rows, members.width(layouts), cut)
