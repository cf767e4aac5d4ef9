"""The MPI layer, the only file that knows mpi4py: which rank holds which region, and what goes where.

Rank 0 is root: it runs the global simulator, writes every file and talks to the user. Ranks 1..W are the
workers; region i of N lives on worker i*W//N + 1. With a single rank, root is the only worker as well.

Every wait polls a non-blocking call and sleeps in between: a blocking MPI call spins, and where there are
more ranks than cores it takes the core from a rank that has work to do (measured: 6 to 49 times slower).
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.errors import BadInput, refuse

if TYPE_CHECKING:
    from mpi4py import MPI

NAP = 0.002
"""Seconds between two polls. Messages move only inside a poll, so a long nap would delay them."""

FAREWELL = 0.1
"""Seconds between a rank's last words and the end of all: on a busy machine the launcher, which passes them
on, was seen to end before it had read them."""

SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


def launched_as_root() -> bool:
    """Whether the launcher made this process rank 0 (or there is none): known before MPI is loaded."""
    return all(os.environ.get(name, "0") == "0" for name in RANK_VARIABLES)


def launched() -> bool:
    """Whether an MPI launcher started this process; its output may be a pseudo-terminal that none sees."""
    return any(name in os.environ for name in RANK_VARIABLES)


class Ranks:
    """The processes of this run, seen from one of them. Made by ``connect``."""

    def __init__(self, comm: MPI.Comm, library: str) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size
        self.is_root = self.rank == 0
        self.library = library
        self.host = platform.node()

    def place(self, regions: int, on_root: bool = False) -> list[int]:
        """Say how many regions there are, and learn which of them this rank holds.

        on_root: root holds them all (training on the global simulator).
        """
        self._regions, self._all_on_root = regions, on_root or self.size == 1
        return [region for region in range(regions) if self.holder(region) == self.rank]

    def holder(self, region: int) -> int:
        """The rank that holds a region."""
        return 0 if self._all_on_root else region * (self.size - 1) // self._regions + 1

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

    def scatter(self, blocks: Sequence[np.ndarray] | None, room: Mapping[int, np.ndarray]) -> None:
        """From root to the holders: one array per region, below 2^31 bytes each.

        blocks: on root, the N arrays; elsewhere None. room: this rank's regions with arrays of the right
        shape and type, which are filled.
        """
        if not self.is_root:
            self._wait([self._comm.Irecv(_bytes(array), source=0, tag=i) for i, array in room.items()])
            return
        for i, array in room.items():
            np.copyto(array, blocks[i])
        sent = [i for i in range(self._regions) if i not in room]
        self._wait([self._comm.Isend(_bytes(blocks[i]), dest=self.holder(i), tag=i) for i in sent])

    def gather(self, mine: Mapping[int, np.ndarray], width: int, dtype: DTypeLike) -> np.ndarray | None:
        """From the holders to root: one row per region, [N, width] on root and None elsewhere.

        mine: this rank's regions with their rows; behind a shorter row root's is zero.
        """
        return self._gather_rows(mine, (self._regions, width), dtype, self.holder)

    def gather_by_rank(self, row: np.ndarray) -> np.ndarray | None:
        """One row of equal length from every rank: [size, len(row)] on root and None elsewhere."""
        return self._gather_rows({self.rank: row}, (self.size, row.size), row.dtype, lambda rank: rank)

    def _gather_rows(
        self,
        mine: Mapping[int, np.ndarray],
        shape: tuple[int, int],
        dtype: DTypeLike,
        source: Callable[[int], int],
    ) -> np.ndarray | None:
        if not self.is_root:
            self._wait([self._comm.Isend(_bytes(row), dest=0, tag=i) for i, row in mine.items()])
            return None
        rows = np.zeros(shape, dtype)
        for i, row in mine.items():
            rows[i, : row.size] = row
        others = [i for i in range(len(rows)) if i not in mine]
        self._wait([self._comm.Irecv(_bytes(rows[i]), source=source(i), tag=i) for i in others])
        return rows

    def barrier(self) -> None:
        """Return when every rank has come here."""
        self._wait([self._comm.Ibarrier()])

    def _wait(self, requests: list[MPI.Request]) -> None:
        while requests and not type(requests[0]).Testall(requests):
            time.sleep(NAP)

    def abort(self, code: int) -> NoReturn:
        """End every rank of the job at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(FAREWELL)
        self._comm.Abort(code)
        raise SystemExit(code)


def connect() -> Ranks:
    """Join the other processes of the job.

    BadInput: there is no MPI library, or the launcher belongs to another MPI than the library, which
    would give as many separate runs as ranks were asked for.
    """
    try:
        with warnings.catch_warnings():
            # mpi4py warns of another MPI's launcher in three lines on every rank; it is refused below.
            warnings.simplefilter("ignore", RuntimeWarning)
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise BadInput(
            f"no MPI library can be loaded ({str(error).splitlines()[0]}): install one into this Python "
            "environment with pip install 'dials_mpi[mpich]', or load your cluster's MPI module"
        ) from error
    world = MPI.COMM_WORLD
    library = MPI.Get_library_version().splitlines()[0].strip(" \0")
    wanted = max(int(os.environ.get(name, "1")) for name in SIZE_VARIABLES)
    if wanted > world.size:
        raise BadInput(
            f"the launcher started {wanted} ranks but the MPI library ({library}) sees {world.size}: "
            "they are of different MPIs, so start with the mpirun that belongs to this library"
        )
    return Ranks(world, library)


def run(program: Callable[[Ranks], int]) -> NoReturn:
    """Run ``program`` on every rank and exit with the code that it returns.

    Whatever ends one rank early ends them all, at once: an exception, with its traceback on stderr, or
    an exit, which counts as a failure whatever its code. BadInput from ``connect`` is one sentence from
    root and exit code 2.
    """
    try:
        ranks = connect()
    except BadInput as refusal:
        if launched_as_root():
            refuse(refusal)
        sys.exit(2)
    try:
        code = program(ranks)
    except SystemExit as leaving:
        # A program returns its code: whoever exits instead, even with 0, leaves the other ranks waiting.
        code = (leaving.code if isinstance(leaving.code, int) else 1) or 1
        reason = f": {leaving.code}" if isinstance(leaving.code, str) else ""
        print(f"dials_mpi: rank {ranks.rank} of {ranks.size} exits with {code}{reason}", file=sys.stderr)
        ranks.abort(code)
    except BaseException:
        where = f"dials_mpi: rank {ranks.rank} of {ranks.size} on {ranks.host} failed; all ranks end"
        print(f"{where}\n{traceback.format_exc()}", file=sys.stderr)
        ranks.abort(1)
    sys.exit(code)


def _bytes(array: np.ndarray) -> np.ndarray:
    """The same memory as a flat byte array: what MPI sends, whatever the type."""
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays can be sent")
    return array.reshape(-1).view(np.uint8)
