"""The MPI layer, the only file that knows mpi4py: which rank holds which region, and what goes where.

Rank 0 is root: it writes every file and talks to the user. The first k ranks (``global_ranks``), root among
them, run global simulators; the W others are the workers, and region i of N lives on worker i*W//N. With a
single rank, root is the only worker as well.

Every wait polls a non-blocking call and sleeps in between: a blocking MPI call spins, and where there are
more ranks than cores it takes the core from a rank that has work to do (measured: 6 to 49 times slower).
While it waits, a rank gives and looks for signs of life (pulse.py).
"""

from __future__ import annotations

import pickle
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.core import launchers, signals
from dials_mpi.core.errors import CRASHED, REFUSED, STOPPED, BadInput, Unwritable, print_error, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.logging import LOG
from dials_mpi.parallel import shared_memory
from dials_mpi.parallel.heartbeat import Heartbeat

if TYPE_CHECKING:
    from mpi4py import MPI

POLL_SECONDS = 0.002
"""Seconds between two polls. Messages move only inside a poll, so a long nap would delay them."""

OUTPUT_SECONDS = 0.1
"""Seconds between a rank's last words and the end of all: on a busy machine the launcher, which passes them
on, was seen to end before it had read them."""

ABORT_DELAY = 1.0
"""Seconds by which the other ranks leave it to root to end the job when a signal came to all."""


class Communicator:
    """The processes of this run, seen from one of them. Made by ``connect``."""

    def __init__(self, comm: MPI.Comm, library: str) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size
        self.is_root = self.rank == 0
        self.global_ranks = 1
        self.library = library
        self.host = platform.node()
        self.heartbeat = Heartbeat(self.rank, [self.host], 0.0, lambda _: None, lambda: ())

    def exchange_hosts(self, silence: float) -> list[str]:
        """Learn the host of each rank, and begin to watch for those that are silent for so many seconds."""
        hosts = self.allgather_names(self.host)
        shared_memory.forget()
        post = _Post(self._comm.Dup())
        self.heartbeat = Heartbeat(self.rank, hosts, silence, post.give, post.got)
        return hosts

    def allgather_names(self, own: str) -> list[str]:
        """A short name that each rank gives, in the order of the ranks; 64 bytes of UTF-8 at most."""
        mine, rows = np.zeros(64, np.uint8), np.empty((self.size, 64), np.uint8)
        letters = np.frombuffer(own.encode()[:64], np.uint8)
        mine[: letters.size] = letters
        self._wait([self._comm.Iallgather(mine, rows)])
        return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]

    @property
    def is_global(self) -> bool:
        """Whether this rank runs a global simulator."""
        return self.rank < self.global_ranks

    def assign_regions(self, regions: int, on_root: bool = False, global_ranks: int = 1) -> list[int]:
        """Say how many regions there are, and learn which of them this rank holds.

        on_root: root holds them all (training on the global simulator). global_ranks: so many ranks run
        global simulators, and hold no region unless on_root; a single rank is one, whatever is asked for.
        """
        self._regions, self.owns_all = regions, on_root or self.size == 1
        self.global_ranks = 1 if self.size == 1 else global_ranks
        return [region for region in range(regions) if self.owner(region) == self.rank]

    def owner(self, region: int) -> int:
        """The rank that holds a region."""
        workers = self.size - self.global_ranks
        return 0 if self.owns_all else self.global_ranks + region * workers // self._regions

    def broadcast(self, thing: Any = None) -> Any:
        """Root's small Python object, to every rank; for the start of a run."""
        size = np.zeros(1, np.int64)
        data = np.frombuffer(pickle.dumps(thing), np.uint8) if self.is_root else np.empty(0, np.uint8)
        size[0] = data.size
        self._wait([self._comm.Ibcast(size, root=0)])
        if not self.is_root:
            data = np.empty(int(size[0]), np.uint8)
        self._wait([self._comm.Ibcast(data, root=0)])
        return thing if self.is_root else pickle.loads(data.tobytes())

    def scatter(
        self,
        blocks: Sequence[np.ndarray] | None,
        room: Mapping[int, np.ndarray],
        shares: Sequence[slice] = (slice(None),),
    ) -> None:
        """From the global ranks to the holders: one array per region, below 2^31 bytes each.

        shares: the rows of each array that each global rank has; root all, where not given. blocks: on
        these ranks, their rows of the N arrays; elsewhere None. room: this rank's regions with arrays of the
        right shape and type, which are filled.
        """
        requests = []
        for i, array in room.items():
            for source, share in enumerate(shares):
                if source == self.rank:
                    np.copyto(array[share], blocks[i])
                else:
                    requests.append(self._comm.Irecv(_bytes(array[share]), source=source, tag=i))
        if self.rank < len(shares):
            sent = (i for i in range(self._regions) if i not in room)
            requests += [self._comm.Isend(_bytes(blocks[i]), dest=self.owner(i), tag=i) for i in sent]
        self._wait(requests)

    def gather(
        self, mine: Mapping[int, np.ndarray], width: int, dtype: DTypeLike, to: int = 1
    ) -> np.ndarray | None:
        """From the holders to the first ``to`` ranks: one row per region, [N, width] there, None elsewhere.

        mine: this rank's regions with their rows; behind a shorter row it is zero.
        """
        return self._gather_rows(mine, (self._regions, width), dtype, self.owner, to)

    def gather_by_rank(self, row: np.ndarray) -> np.ndarray | None:
        """One row of equal length from every rank: [size, len(row)] on root and None elsewhere."""
        return self._gather_rows({self.rank: row}, (self.size, row.size), row.dtype, lambda rank: rank)

    def gather_shares(self, mine: np.ndarray, shares: Sequence[slice]) -> np.ndarray | None:
        """From the global ranks to root, which puts their rows [*, width] together: [rows, width] there.

        shares: the rows that each of them has.
        """
        if not self.is_root:
            self._wait([self._comm.Isend(_bytes(mine), dest=0)] if self.is_global else [])
            return None
        rows = np.empty((shares[-1].stop, mine.shape[1]), mine.dtype)
        rows[shares[0]] = mine
        parts = (_bytes(rows[share]) for share in shares[1:])
        self._wait([self._comm.Irecv(part, source=source) for source, part in enumerate(parts, 1)])
        return rows

    def _gather_rows(
        self,
        mine: Mapping[int, np.ndarray],
        shape: tuple[int, int],
        dtype: DTypeLike,
        source: Callable[[int], int],
        to: int = 1,
    ) -> np.ndarray | None:
        others = [rank for rank in range(to) if rank != self.rank]
        sent = [self._comm.Isend(_bytes(row), dest=rank, tag=i) for rank in others for i, row in mine.items()]
        if self.rank >= to:
            self._wait(sent)
            return None
        rows = np.zeros(shape, dtype)
        for i, row in mine.items():
            rows[i, : row.size] = row
        missing = [i for i in range(len(rows)) if i not in mine]
        self._wait([*sent, *(self._comm.Irecv(_bytes(rows[i]), source=source(i), tag=i) for i in missing)])
        return rows

    def gather_one_by_one(
        self,
        mine: Sequence[int],
        make: Callable[[int], np.ndarray],
        width: int,
        take: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        """Region by region to root, float32, ``width`` long at most: what ``make`` gives there, root's
        ``take`` gets, and more behind it.

        Root holds two rows at a time: the next one is on its way while it takes one.
        """
        if not self.is_root:
            for i in mine:
                self._wait([self._comm.Isend(_bytes(make(i)), dest=0, tag=i)])
            return
        rows = np.empty((2, width), np.float32)
        requests = [self._expect(0, rows[0], mine)]
        for i in range(self._regions):
            if i + 1 < self._regions:
                requests.append(self._expect(i + 1, rows[(i + 1) % 2], mine))
            self._wait(requests.pop(0))
            take(i, make(i) if i in mine else rows[i % 2])

    def scatter_one_by_one(
        self, rows: Iterable[np.ndarray] | None, width: int, take: Callable[[int, np.ndarray], None]
    ) -> None:
        """Region by region from root, float32, ``width`` long at most: its holder's ``take`` gets it, and
        more behind it."""
        if not self.is_root:
            row = np.empty(width, np.float32)
            for i in range(self._regions):
                if self.owner(i) == self.rank:
                    self._wait([self._comm.Irecv(_bytes(row), source=0, tag=i)])
                    take(i, row)
            return
        for i, row in enumerate(rows):
            if self.owner(i) == 0:
                take(i, row)
            else:
                self._wait([self._comm.Isend(_bytes(row), dest=self.owner(i), tag=i)])

    def allreduce_max(self, value: int) -> int:
        """The largest of all ranks' values, on every rank."""
        from mpi4py import MPI

        mine, largest = np.array([value]), np.zeros(1, np.int64)
        self._wait([self._comm.Iallreduce(mine, largest, op=MPI.MAX)])
        return int(largest[0])

    def barrier(self) -> None:
        """Return when every rank has come here."""
        self._wait([self._comm.Ibarrier()])

    def _expect(self, i: int, row: np.ndarray, mine: Sequence[int]) -> list[MPI.Request]:
        return [] if i in mine else [self._comm.Irecv(_bytes(row), source=self.owner(i), tag=i)]

    def _wait(self, requests: list[MPI.Request]) -> None:
        while requests and not type(requests[0]).Testall(requests):
            time.sleep(POLL_SECONDS)
            signals.raise_pending()
            self.heartbeat.beat()
            self.heartbeat.check()

    def abort(self, code: int) -> NoReturn:
        """End every rank of the job at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(OUTPUT_SECONDS)
        self._comm.Abort(code)
        raise SystemExit(code)


class _Post:
    """Signs of life as messages without content, at most one on its way from each rank."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm, self._sent = comm, None

    def give(self, rank: int) -> None:
        if self._sent is None or self._sent.Test():
            self._sent = self._comm.Isend(np.empty(0, np.uint8), dest=rank)

    def got(self) -> Iterator[int]:
        for rank in range(self._comm.size):
            while self._comm.Iprobe(source=rank):
                self._comm.Recv(np.empty(0, np.uint8), source=rank)
                yield rank


def connect() -> Communicator:
    """Join the other processes of the job.

    BadInput: there is no MPI library, the launcher belongs to another MPI than the library, which would
    give as many separate runs as ranks were asked for, or there is too little shared memory.
    """
    MPI = _library()
    version = MPI.Get_library_version()
    if not MPI.Is_initialized():
        launchers.require_numbers()
        launchers.require_same_kind(version)
        shared_memory.require_room(version)
        shared_memory.spare()
        _begin(MPI)
    world = MPI.COMM_WORLD
    launchers.require_all_ranks_seen(world.size, version)
    return Communicator(world, version.splitlines()[0].strip(" \0"))


def _library() -> ModuleType:
    """mpi4py's MPI, not begun: where the launcher is another MPI's the library would end the process."""
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


def _begin(MPI: ModuleType) -> None:
    with warnings.catch_warnings():
        # mpi4py warns of another MPI's launcher in three lines on every rank; it is refused in one.
        warnings.simplefilter("ignore", RuntimeWarning)
        MPI.Init_thread()


def run(program: Callable[[Communicator], int]) -> NoReturn:
    """Run ``program`` on every rank and exit with the code that it returns.

    Whatever ends one rank early ends them all, at once: an exception, with its traceback on stderr, or
    an exit, which counts as a failure whatever its code. BadInput from ``connect`` is one sentence from
    root and exit code 2; Unwritable is one sentence and 1, StopAtOnce one sentence and 75.
    """
    try:
        ranks = connect()
    except BadInput as refusal:
        if launched_as_root():
            refuse(refusal)
        sys.exit(REFUSED)
    except BaseException as error:
        if signals.stop_request_in(error):
            sys.exit(STOPPED)
        raise
    try:
        code = program(ranks)
        signals.ignore_all()
    except SystemExit as leaving:
        # A program returns its code: whoever exits instead, even with 0, leaves the other ranks waiting.
        code = (leaving.code if isinstance(leaving.code, int) else CRASHED) or CRASHED
        reason = f": {leaving.code}" if isinstance(leaving.code, str) else ""
        _end(ranks, code, f"rank {ranks.rank} of {ranks.size} exits with {code}{reason}")
    except Unwritable as fault:
        _end(ranks, CRASHED, str(fault))
    except BaseException as error:
        if stop := signals.stop_request_in(error):
            if not ranks.is_root:
                time.sleep(ABORT_DELAY)
            why = f"{stop}: the run ends with what its last checkpoint holds, go on with --resume"
            _end(ranks, STOPPED, why)
        where = f"rank {ranks.rank} of {ranks.size} on {ranks.host} failed; all ranks end"
        _end(ranks, CRASHED, f"{where}\n{traceback.format_exc()}")
    sys.exit(code)


def _end(comm: Communicator, code: int, why: str) -> NoReturn:
    print_error(why)
    LOG.error(why)
    comm.abort(code)


def _bytes(array: np.ndarray) -> np.ndarray:
    """The same memory as a flat byte array: what MPI sends, whatever the type."""
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays can be sent")
    return array.reshape(-1).view(np.uint8)
