"""The entries of a checkpoint on their way from all ranks to root, and back.

Rows travel in blocks of bounded size: a rank sends all its rows in one message, or in a few. Root has room
for two blocks, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import Layout
from dials_mpi.run.state import Entry, RankState

if TYPE_CHECKING:
    from dials_mpi.storage.checkpoint import Checkpoint

BLOCK_BYTES = 4 << 20
"""At most in a block, unless a single row is larger."""

ALIGNMENT = 8
"""Each row in a block is filled up to a multiple of so many bytes, so that any type can be read in place."""

Block = list[tuple[Entry, int]]
"""Rows that travel together: entries and numbers of owners."""


class StateExchange:
    """One rank's part in bringing the rows of entries to root and back. Methods are called by all ranks."""

    def __init__(self, comm: Communicator, layout: Layout, state: RankState) -> None:
        self.comm, self.layout, self.state = comm, layout, state

    def gather(
        self,
        kept: Sequence[Entry],
        put: Callable[[str, int, np.ndarray], None] | None,
        writer: int = 0,
        members: Sequence[int] | None = None,
    ) -> None:
        """Bring the rows of some ranks to one of them. put: there, takes an entry's name, an owner's number
        and the row; None elsewhere. members: these ranks, the writer among them; all by default."""
        own = _blocks(kept, self.layout, self.comm.rank)
        packed = (_pack(block, lambda entry, owner: entry.pack(self.state, owner)) for block in own)
        if put is None:
            self.comm.send_blocks(packed, writer)
            return
        every = range(self.comm.size) if members is None else members
        others = [
            (rank, block) for rank in every if rank != writer for block in _blocks(kept, self.layout, rank)
        ]
        received = self.comm.receive_blocks([(rank, _bytes(block)) for rank, block in others])
        blocks = [*own, *(block for _, block in others)]
        for block, data in zip(blocks, chain(packed, received), strict=True):
            for entry, owner, row in _unpack(block, data):
                put(entry.name, owner, row)

    def restore(self, entries: Sequence[Entry], path: Path, segments: int) -> None:
        """Give every owner its rows from a checkpoint after so many segments, which root has verified."""
        checkpoint = None
        if self.comm.is_root:
            from dials_mpi.storage.checkpoint import Checkpoint

            checkpoint = Checkpoint(path, trusted=True)
        kept = [entry for entry in entries if entry.kept(segments)]
        present = self.comm.broadcast(
            [entry.name for entry in kept if checkpoint and checkpoint.has(entry.name)]
        )
        kept = [entry for entry in kept if entry.name in present]
        with _rows_for(checkpoint, kept, self.comm.size) if checkpoint else nullcontext() as row:
            self.scatter(kept, row)

    def scatter(self, kept: Sequence[Entry], row: Callable[[Entry, int], np.ndarray] | None) -> None:
        """Give every owner its rows. row: on root, gives an entry's row of an owner; None elsewhere."""
        own = _blocks(kept, self.layout, self.comm.rank)
        if row is None:
            received = self.comm.receive_blocks([(0, _bytes(block)) for block in own])
            for block, data in zip(own, received, strict=True):
                self._restore(block, data)
            return
        for block in own:
            self._restore(block, _pack(block, row))
        for rank in range(1, self.comm.size):
            theirs = _blocks(kept, self.layout, rank)
            self.comm.send_blocks((_pack(block, row) for block in theirs), dest=rank)

    def _restore(self, block: Block, data: np.ndarray) -> None:
        for entry, owner, row in _unpack(block, data):
            entry.unpack(self.state, owner, row)


def _blocks(kept: Sequence[Entry], layout: Layout, rank: int) -> list[Block]:
    """All rows that a rank holds, in blocks."""
    blocks: list[Block] = []
    room = 0
    for entry in kept:
        for owner in layout.owned[entry.owner][rank]:
            if not blocks or _row_bytes(entry) > room:
                blocks.append([])
                room = BLOCK_BYTES
            blocks[-1].append((entry, owner))
            room -= _row_bytes(entry)
    return blocks


def _row_bytes(entry: Entry) -> int:
    size = entry.width * np.dtype(entry.dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def _bytes(block: Block) -> int:
    return sum(_row_bytes(entry) for entry, _ in block)


def _pack(block: Block, row: Callable[[Entry, int], np.ndarray]) -> np.ndarray:
    """The bytes of a block; ``row`` gives each entry's row of an owner."""
    data = np.zeros(_bytes(block), np.uint8)
    for entry, owner, room in _unpack(block, data):
        values = row(entry, owner)
        room[: values.size] = values
    return data


def _unpack(block: Block, data: np.ndarray) -> Iterator[tuple[Entry, int, np.ndarray]]:
    """The rows [width] in the bytes of a block, which are not copied."""
    start = 0
    for entry, owner in block:
        stop = start + entry.width * np.dtype(entry.dtype).itemsize
        yield entry, owner, data[start:stop].view(entry.dtype)
        start += _row_bytes(entry)


@contextmanager
def _rows_for(
    checkpoint: Checkpoint, kept: Sequence[Entry], ranks: int
) -> Iterator[Callable[[Entry, int], np.ndarray]]:
    """Gives the function that returns an entry's row of an owner in a session of so many ranks."""
    by_rank: Mapping[str, np.ndarray] = {
        entry.name: entry.redistribute(checkpoint.whole(entry.name), ranks)
        for entry in kept
        if entry.redistribute
    }
    with checkpoint.rows() as read:
        yield (
            lambda entry, owner: (
                by_rank[entry.name][owner] if entry.name in by_rank else read(entry.name, owner)
            )
        )
