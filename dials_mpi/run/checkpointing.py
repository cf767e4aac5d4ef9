"""When to write a checkpoint, when to stop, and how to restore the state of all ranks from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, collects_ahead
from dials_mpi.core import signals
from dials_mpi.core.logging import LOG
from dials_mpi.core.provenance import versions
from dials_mpi.domains.base import Domain
from dials_mpi.learning.tables import tables
from dials_mpi.parallel.layout import writing_groups
from dials_mpi.run import state, warm_start
from dials_mpi.run.session import SessionStart
from dials_mpi.run.sinks.base import Sinks
from dials_mpi.run.state import Entry
from dials_mpi.run.state_exchange import StateExchange
from dials_mpi.run.walltime import Deadline, Pace, Work, work
from dials_mpi.storage.progress import Progress

if TYPE_CHECKING:
    from dials_mpi.storage.checkpoint import Part

CONTINUE, SAVE, OUT_OF_TIME, REQUESTED = range(4)
REASONS = {
    OUT_OF_TIME: "the time limit leaves no room for another segment",
    REQUESTED: "a stop was requested, by a signal or a callback",
}


class CheckpointManager:
    """One rank's part in writing checkpoints and in stopping. deadline, sinks: root's."""

    def __init__(
        self,
        start: SessionStart,
        domain: Domain,
        exchange: StateExchange,
        deadline: Deadline,
        sinks: Sinks,
    ) -> None:
        self.start, self.domain, self.exchange, self.sinks = start, domain, exchange, sinks
        self.comm, self.deadline = exchange.comm, deadline
        self.entries = state.entries(start.config, domain)
        progress = start.progress
        self.pace = Pace(progress.seconds if progress.ranks == self.comm.size else None)
        self.saved_segments, self.saved_at = progress.segments, time.monotonic()
        self.segments = {segment.index: segment for segment in start.segments()}

    def restore(self) -> None:
        """Give every owner the rows that it has in the checkpoint, if there is one, else the weights of
        another run, if the configuration names one."""
        start = self.start
        if start.checkpoint:
            self.exchange.restore(self.entries, start.checkpoint, start.progress.segments)
            return
        names = warm_start.names(start.config)
        if names:
            kept = [entry for entry in self.entries if entry.name in names]
            row = (lambda entry, owner: start.weights[entry.name][owner]) if self.comm.is_root else None
            self.exchange.scatter(kept, row)

    def next_refit_is_overdue(self) -> bool:
        """Whether the session starts with a refit on data of the policies a segment earlier, which have not
        been collected."""
        done = self.start.progress.segments
        return bool(self.start.checkpoint) and done in self.segments and self.collects_ahead(done)

    def collects_ahead(self, segments: int) -> bool:
        """Whether the refit after so many segments needs the policies of a segment earlier."""
        return collects_ahead(self.start.config, segments)

    def commit(self) -> None:
        """Let root's sinks write their records."""
        self.sinks.flush()

    def must_stop_after(self, segment: Segment) -> bool:
        """Commit, and write a checkpoint if one is due; whether to stop here, the same on all ranks."""
        self.commit()
        verdict = self.comm.allreduce_max(self._verdict(segment))
        if verdict != CONTINUE:
            with self.pace("checkpoint"):
                self._save(segment)
        if verdict in REASONS:
            self.sinks.message(REASONS[verdict])
            self.sinks.stopped(segment.env_steps, self.sinks.elapsed())
        return verdict in REASONS

    def _verdict(self, segment: Segment) -> int:
        """What this rank asks for: to stop after a signal; on root also by clock and configuration."""
        if signals.stop_requested():
            return REQUESTED
        if not self.comm.is_root:
            return CONTINUE
        following = self.segments.get(segment.index + 1)
        if not self.deadline.allows(self.pace.takes(self._work(following))):
            return OUT_OF_TIME
        config = self.start.config
        since, minutes = segment.index + 1 - self.saved_segments, (time.monotonic() - self.saved_at) / 60
        due = (
            following is None
            or (config.checkpoint_every and since >= config.checkpoint_every)
            or (config.checkpoint_minutes and minutes >= config.checkpoint_minutes)
        )
        return SAVE if due else CONTINUE

    def _work(self, segment: Segment | None) -> Work:
        """The work of the next segment; after the last one, the evaluations of ``System.finish``."""
        config = self.start.config
        if segment is None:
            return ["evaluate"] * (config.overlapped + 1 + len(self.domain.hand_coded))
        return work(config, segment, self.segments.get(segment.index + 1), self.comm.size, first=False)

    def _save(self, segment: Segment) -> None:
        """Write a checkpoint, and remove old ones."""
        self.saved_segments, self.saved_at = segment.index + 1, time.monotonic()
        config, directory = self.start.config, Path(self.start.directory)
        kept = [entry for entry in self.entries if entry.kept(segment.index + 1)]
        progress = self._progress(segment) if self.comm.is_root else None
        save(self.exchange, kept, config, self.domain, directory, segment.env_steps, progress)
        if self.comm.is_root:
            from dials_mpi.storage.checkpoint import prune

            prune(directory, config.checkpoint_keep, self.sinks.run_file.run.mean_return)
            LOG.info("checkpoint at %d steps", segment.env_steps)

    def _progress(self, segment: Segment) -> Progress:
        return Progress(
            segments=segment.index + 1,
            env_steps=segment.env_steps,
            wall_time=self.sinks.elapsed(),
            lengths=self.sinks.run_file.run.lengths(),
            ranks=self.comm.size,
            seconds=self.pace.usual(),
        )


def save(
    exchange: StateExchange,
    kept: Sequence[Entry],
    config: Config,
    domain: Domain,
    directory: Path,
    env_steps: int,
    progress: Progress | None,
) -> None:
    """Write a checkpoint with the entries ``kept``; called by all ranks. progress: root's, None elsewhere.

    Unwritable: the disk is full or fails.
    """
    groups = writing_groups(exchange.layout, config.checkpoint_writers)
    if len(groups) > 1:
        path = directory / f"checkpoint-{env_steps}.h5"
        _save_parts(exchange, kept, domain, path, groups)
    elif progress is None:
        exchange.gather(kept, None)
    if progress is None:
        return
    from dials_mpi.storage.checkpoint import writing

    identity = {**versions(), "domain": config.domain, "mode": config.mode, "seed": config.seed}
    text = config.to_yaml(), config.digest()
    datasets = state.datasets(kept, domain, exchange.comm.size)
    parts = _parts(exchange, kept, path, groups) if len(groups) > 1 else ()
    with writing(directory, progress, text, identity, datasets, tables(config, domain), parts) as put:
        if not parts:
            exchange.gather(kept, put)


def _save_parts(
    exchange: StateExchange, kept: Sequence[Entry], domain: Domain, path: Path, groups: Sequence[list[int]]
) -> None:
    """Each group writes a part; returns when all are complete."""
    comm = exchange.comm
    number = next(k for k, group in enumerate(groups) if comm.rank in group)
    if comm.rank == groups[number][0]:
        from dials_mpi.storage.checkpoint import writing_part

        part = _parts(exchange, kept, path, groups)[number]
        with writing_part(part, state.datasets(kept, domain, comm.size)) as put:
            exchange.gather(kept, put, comm.rank, groups[number])
    else:
        exchange.gather(kept, None, groups[number][0])
    comm.barrier()


def _parts(
    exchange: StateExchange, kept: Sequence[Entry], path: Path, groups: Sequence[list[int]]
) -> list[Part]:
    """The part of each group of ranks, with the owners whose rows they hold."""
    from dials_mpi.storage.checkpoint import Part, part_of

    owned = exchange.layout.owned

    def held(owner: str, group: Sequence[int]) -> list[int]:
        return [number for rank in group for number in owned[owner][rank]]

    numbers = [{one.name: held(one.owner, group) for one in kept} for group in groups]
    return [Part(part_of(path, k), own) for k, own in enumerate(numbers)]
