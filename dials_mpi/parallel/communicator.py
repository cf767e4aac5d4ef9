"""Messages between the ranks of a run: the only file that imports mpi4py.

Rank 0 is root: it writes all files and all output. An exchange sends one message per pair of ranks, or a
few where there are very many bytes.

Every wait polls a non-blocking call and sleeps in between. A blocking MPI call would poll without a pause,
and where there are more ranks than cores it would take the core from a rank that computes (measured: 6 to 49
times slower). While a rank waits, it sends and checks heartbeats (heartbeat.py).
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.core import launchers, signals
from dials_mpi.core.errors import BadInput
from dials_mpi.parallel import shared_memory
from dials_mpi.parallel.heartbeat import Heartbeat
from dials_mpi.parallel.layout import Owned

if TYPE_CHECKING:
    from mpi4py import MPI

POLL_SECONDS = 0.002
"""The longest time between two polls, seconds, of up to RANKS_PER_CORE ranks a core; with more it grows with
their number. Messages move only during a poll, so a longer one would delay them."""

RANKS_PER_CORE = 4
"""A poll takes 30 to 80 us (measured): so polls take at most about a sixth of a machine, whatever the number
of its ranks. (Of 101 ranks on two cores, 100 that wait took 95 % of both with a constant 2 ms.)"""

POLL_SHARE = 1 / 16
"""The time between two polls is this share of the time that the wait has lasted. (Ranks that share a policy
wait for each other at every minibatch: measured 14 ms for one with 4 ranks on two busy cores, against 40 ms
with a constant 2 ms, for the same CPU time.)"""

OUTPUT_SECONDS = 0.1
"""Seconds between a rank's last output and the end of the job. The launcher passes the output on; on a busy
machine it ended before it had read all of it."""

LARGEST_MESSAGE = 1 << 30
"""Bytes: MPI libraries count them in 32 bits, and Open MPI refuses more than 2^31."""

PACKED_BYTES = 16 << 20
"""At most so many bytes of several arrays are packed into one message. (MPI datatypes would need no packing,
but MPICH moves such a message a few kilobytes per poll: measured 5.5 s for 19 MB, against 25 ms packed.)"""

BYTES_UNDER_WAY = 64 << 20
"""At most so many bytes of packed messages exist at a time."""


class Communicator:
    """The processes of this run, seen from one of them. Made by ``launch.connect``.

    All methods but ``isend``, ``irecv``, ``wait``, ``send_blocks``, ``receive_blocks`` and ``abort`` are
    called by all ranks that take part, in the same order.
    """

    def __init__(self, comm: MPI.Comm, library: str) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size
        self.is_root = self.rank == 0
        self.library = library
        self.host = platform.node()
        self._longest_pause = longest_pause(launchers.local_ranks(), os.cpu_count() or 1)
        self.heartbeat = Heartbeat(self.rank, [self.host], 0.0, lambda _: None, lambda: ())

    def exchange_hosts(self, silence: float) -> list[str]:
        """The host of each rank. From now on ranks that are silent for so many seconds are reported."""
        hosts = self.allgather_names(self.host)
        shared_memory.forget()
        beats = _Beats(self._comm.Dup())
        self.heartbeat = Heartbeat(self.rank, hosts, silence, beats.send, beats.received)
        return hosts

    def allgather_names(self, own: str) -> list[str]:
        """A short name of each rank, by rank; 64 bytes of UTF-8 at most."""
        mine, rows = np.zeros(64, np.uint8), np.empty((self.size, 64), np.uint8)
        letters = np.frombuffer(own.encode()[:64], np.uint8)
        mine[: letters.size] = letters
        self.wait([self._comm.Iallgather(mine, rows)])
        return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]

    def broadcast(self, value: Any = None) -> Any:
        """Root's small Python object, on every rank."""
        size = np.zeros(1, np.int64)
        data = np.frombuffer(pickle.dumps(value), np.uint8) if self.is_root else np.empty(0, np.uint8)
        size[0] = data.size
        self.wait([self._comm.Ibcast(size, root=0)])
        if not self.is_root:
            data = np.empty(int(size[0]), np.uint8)
        self.wait([self._comm.Ibcast(data, root=0)])
        return value if self.is_root else pickle.loads(data.tobytes())

    def allreduce_max(self, value: int) -> int:
        """The largest of all ranks' values, on every rank."""
        from mpi4py import MPI

        mine, largest = np.array([value]), np.zeros(1, np.int64)
        self.wait([self._comm.Iallreduce(mine, largest, op=MPI.MAX)])
        return int(largest[0])

    def group(self, ranks: Sequence[int]) -> Group:
        """Some of the ranks, for exchanges among them. All ranks call this, and members use it.

        At the same call, ranks may give other groups that have no rank in common with this one.
        """
        from mpi4py import MPI

        self.barrier()  # Split blocks
        return Group(self, self._comm.Split(ranks[0] if self.rank in ranks else MPI.UNDEFINED, self.rank))

    def barrier(self) -> None:
        """Return when every rank has called this."""
        self.wait([self._comm.Ibarrier()])

    def gather(
        self,
        mine: Mapping[int, np.ndarray],
        owned: Owned,
        width: int,
        dtype: DTypeLike,
        wanted: Sequence[range] | None = None,
    ) -> np.ndarray | None:
        """Rows of owners, from the ranks that hold them to the first ranks, as one message each.

        mine: this rank's rows, by their numbers; a shorter row is followed by zeros. owned: the numbers of
        the rows of each rank; a rank that holds no rows and gets none need not call this. wanted: the numbers
        of the rows that each of the first ranks gets; where not given, root gets all. Returns
        [len(wanted), width] on the first ranks, None elsewhere.
        """
        wanted = wanted or [range(sum(map(len, owned)))]
        packed: dict[tuple[int, ...], np.ndarray] = {}  # ranks that want the same rows share them
        requests = []
        for dest, rows in enumerate(wanted):
            numbers = _common(owned[self.rank], rows)
            if dest != self.rank:
                if numbers not in packed:
                    packed[numbers] = np.empty((len(numbers), width), dtype)
                    _fill(packed[numbers], mine, numbers)
                requests += self.isend(packed[numbers], dest)
        if self.rank >= len(wanted):
            self.wait(requests)
            return None
        target = wanted[self.rank]
        table, apart = np.empty((len(target), width), dtype), []
        for source, held in enumerate(owned):
            numbers = _common(held, target)
            places = [i - target.start for i in numbers]
            room = _room(table, places)
            if source == self.rank:
                _fill(room, mine, numbers)
            else:
                requests += self.irecv(room, source)
            if numbers and room.base is not table:
                apart.append((places, room))
        self.wait(requests)
        for places, room in apart:
            table[places] = room
        return table

    def gather_few(
        self, mine: Mapping[int, np.ndarray], owned: Owned, width: int, dtype: DTypeLike
    ) -> np.ndarray | None:
        """As ``gather`` to root, for few bytes; all ranks call it. Messages are joined on the way."""
        numbers = owned[self.rank]
        own = np.zeros((max(map(len, owned)), width), dtype)
        _fill(own[: len(numbers)], mine, numbers)
        every = self.gather_by_rank(own.reshape(-1))
        if every is None:
            return None
        table = np.empty((sum(map(len, owned)), width), dtype)
        for rows, held in zip(every.reshape(self.size, -1, width), owned, strict=True):
            table[list(held)] = rows[: len(held)]
        return table

    def gather_by_rank(self, row: np.ndarray) -> np.ndarray | None:
        """One row of equal length from every rank: [size, len(row)] on root, None elsewhere.

        MPI passes such rows on in a tree: measured with 129 ranks, 15 us of root's CPU time for each rank, in
        place of 120 us for a message from each.
        """
        table = np.empty((self.size, row.size), row.dtype) if self.is_root else None
        sent, room = _bytes(row), None if table is None else _bytes(table)
        self.wait([self._comm.Igather(sent, room, root=0)])
        return table

    def scatter(
        self,
        given: Mapping[int, Sequence[np.ndarray]] | None,
        taken: Mapping[int, Sequence[np.ndarray]],
        owned: Owned,
        shares: Sequence[slice] = (slice(None),),
    ) -> None:
        """Arrays of each owner, from the first ranks to those that hold the owners, as one message each.

        given: on the first ranks, by the owner's number, their rows of its arrays, which are asked for one
        owner after another; None elsewhere. taken: by
        the numbers of this rank's owners, arrays of the right shape and type, which are filled. shares: the
        rows of each array that each of the first ranks has; root has all, where not given.
        """
        if given is not None:
            for i, arrays in taken.items():
                for array, rows in zip(arrays, given[i], strict=True):
                    np.copyto(array[shares[self.rank]], rows)
            self._send_all(
                (dest, message)
                for dest, numbers in enumerate(owned)
                if dest != self.rank
                for message in map(_joined, _cut(array for i in numbers for array in given[i]))
            )
        for source, share in enumerate(shares):
            if source != self.rank:
                for parts in _cut([array[share] for i in owned[self.rank] for array in taken[i]]):
                    self._receive_parts(parts, source)

    def send_blocks(self, blocks: Iterable[np.ndarray], dest: int) -> None:
        """Send blocks of bytes one after another; the next one is made when the last one has left."""
        for block in blocks:
            self.wait(self.isend(block, dest))

    def receive_blocks(self, expected: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Blocks of bytes one after another; each is valid until the next one is asked for.

        expected: rank and number of bytes of each. There is room for two: while one is used, the next one
        arrives.
        """
        largest = max((size for _, size in expected), default=0)
        room = [np.empty(largest, np.uint8) for _ in range(2)]

        def start(k: int) -> list[MPI.Request]:
            if k == len(expected):
                return []
            source, size = expected[k]
            return self.irecv(room[k % 2][:size], source)

        arriving = start(0)
        for k, (_, size) in enumerate(expected):
            current, arriving = arriving, start(k + 1)
            self.wait(current)
            yield room[k % 2][:size]

    def isend(self, array: np.ndarray, dest: int) -> list[MPI.Request]:
        """Begin to send a contiguous array; keep it unchanged until ``wait``.

        ValueError: the array is not contiguous.
        """
        return [self._comm.Isend(part, dest=dest) for part in _pieces(_bytes(array), LARGEST_MESSAGE)]

    def irecv(self, array: np.ndarray, source: int) -> list[MPI.Request]:
        """Begin to receive what ``isend`` sends into a contiguous array of as many bytes.

        ValueError: the array is not contiguous.
        """
        return [self._comm.Irecv(part, source=source) for part in _pieces(_bytes(array), LARGEST_MESSAGE)]

    def wait(self, requests: list[MPI.Request]) -> None:
        """Return when all are complete. Meanwhile this rank sends and checks heartbeats."""
        begun = time.perf_counter()
        while requests and not type(requests[0]).Testall(requests):
            time.sleep(min(self._longest_pause, POLL_SHARE * (time.perf_counter() - begun)))
            signals.raise_pending()
            self.heartbeat.beat()
            self.heartbeat.check()

    def _send_all(self, messages: Iterable[tuple[int, np.ndarray]]) -> None:
        """Send arrays to ranks, at most BYTES_UNDER_WAY at a time (or one array), which bounds the memory."""
        under_way: deque[tuple[list[MPI.Request], int]] = deque()
        for dest, message in messages:
            while under_way and sum(size for _, size in under_way) + message.nbytes > BYTES_UNDER_WAY:
                self.wait(under_way.popleft()[0])
            under_way.append((self.isend(message, dest), message.nbytes))
        for requests, _ in under_way:
            self.wait(requests)

    def _receive_parts(self, parts: Sequence[np.ndarray], source: int) -> None:
        """Receive a message into byte arrays, which it fills one after another."""
        room = parts[0] if len(parts) == 1 else np.empty(sum(part.size for part in parts), np.uint8)
        self.wait(self.irecv(room, source))
        start = 0
        for part in parts if len(parts) > 1 else ():
            part[:] = room[start : start + part.size]
            start += part.size

    def abort(self, code: int) -> NoReturn:
        """End every rank of the job at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(OUTPUT_SECONDS)
        self._comm.Abort(code)
        raise SystemExit(code)


def longest_pause(ranks: int, cores: int) -> float:
    """Seconds between two polls of a rank that has waited for long, with so many ranks on so many cores."""
    return POLL_SECONDS * max(1.0, ranks / (RANKS_PER_CORE * cores))


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of an array as a flat array of bytes, which is what is sent."""
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays can be sent")
    return array.reshape(-1).view(np.uint8)


def _common(held: Sequence[int], wanted: range) -> tuple[int, ...]:
    """The numbers that are in both."""
    return tuple(i for i in held if i in wanted)


def _fill(room: np.ndarray, mine: Mapping[int, np.ndarray], numbers: Sequence[int]) -> None:
    """Write the rows of these numbers, each followed by zeros."""
    for row, i in zip(room, numbers, strict=True):
        row[: mine[i].size] = mine[i]
        row[mine[i].size :] = 0


def _room(table: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Where to receive some rows of a table: in the table where they are consecutive, else in a new array."""
    if numbers and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return table[numbers[0] : numbers[-1] + 1]
    return np.empty((len(numbers), table.shape[1]), table.dtype)


def _pieces(data: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, data.size, size):
        yield data[start : start + size]


def _cut(arrays: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The bytes of some arrays, end to end, in groups of PACKED_BYTES (the last one smaller).

    Sender and receiver get the same groups where they have as many bytes, however these are divided.
    """
    group: list[np.ndarray] = []
    room = PACKED_BYTES
    for array in arrays:
        data = _bytes(array)
        while data.size:
            part, data = data[:room], data[room:]
            group.append(part)
            room -= part.size
            if not room:
                yield group
                group, room = [], PACKED_BYTES
    if group:
        yield group


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Group:
    """Exchanges among some ranks of a run; they call the same methods in the same order.

    rank: of this one among them.
    """

    def __init__(self, comm: Communicator, members: MPI.Comm) -> None:
        """members: their communicator, a null communicator on the other ranks."""
        self._comm, self._members = comm, members
        self.rank = members.rank if members else 0

    def allgather(self, own: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """The rows of all members, [sum(counts), width]; own: this one's, [counts[rank], width]."""
        from mpi4py import MPI

        every = np.empty((sum(counts), own.shape[1]), own.dtype)
        sizes = [count * own.shape[1] * own.itemsize for count in counts]
        room = [_bytes(every), (sizes, None), MPI.BYTE]
        self._comm.wait([self._members.Iallgatherv([_bytes(own), MPI.BYTE], room)])
        return every

    def maximum(self, numbers: np.ndarray) -> None:
        """Replace each number, float64 [n], by the largest of all members."""
        from mpi4py import MPI

        self._reduce(numbers, MPI.MAX)

    def total(self, numbers: np.ndarray) -> None:
        """Replace each number, int64 [n], by the sum over all members."""
        from mpi4py import MPI

        self._reduce(numbers, MPI.SUM)

    def _reduce(self, numbers: np.ndarray, operation: MPI.Op) -> None:
        from mpi4py import MPI

        if self._members.size > 1:
            self._comm.wait([self._members.Iallreduce(MPI.IN_PLACE, numbers, op=operation)])


class _Beats:
    """Heartbeats as empty messages; at most one of each rank is on its way."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._sent: MPI.Request | None = None

    def send(self, rank: int) -> None:
        if self._sent is None or self._sent.Test():
            self._sent = self._comm.Isend(np.empty(0, np.uint8), dest=rank)

    def received(self) -> Iterator[int]:
        for rank in range(self._comm.size):
            while self._comm.Iprobe(source=rank):
                self._comm.Recv(np.empty(0, np.uint8), source=rank)
                yield rank


def library() -> ModuleType:
    """The module MPI of mpi4py, not initialised. BadInput: there is no MPI library."""
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise BadInput(
            f"no MPI library can be loaded ({str(error).splitlines()[0]}): install one into this Python "
            "environment with pip install 'dials_mpi[mpich]', or load your cluster's MPI module"
        ) from error
    return MPI


def initialise(MPI: ModuleType) -> None:
    """Initialise MPI. Under the launcher of another MPI the library may end the process here."""
    with warnings.catch_warnings():
        # mpi4py warns of another MPI's launcher in three lines on every rank; it is refused in one.
        warnings.simplefilter("ignore", RuntimeWarning)
        MPI.Init_thread()
