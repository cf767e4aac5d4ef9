"""The start and the end of a program on all ranks: the launcher is checked, and exit codes are set.

What the environment says of the launcher is in core/launchers.py.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from dials_mpi.core import launchers, signals
from dials_mpi.core.errors import CRASHED, REFUSED, STOPPED, BadInput, Unwritable, print_error, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.logging import LOG
from dials_mpi.core.shell import option
from dials_mpi.parallel import shared_memory
from dials_mpi.parallel.communicator import Communicator, initialise, library

T = TypeVar("T")

ABORT_DELAY = 1.0
"""Seconds that other ranks wait for root to end the job when a signal came to all of them."""


def connect() -> Communicator:
    """Join the other processes of the job.

    BadInput: there is no MPI library; or the launcher belongs to another MPI, so that each rank would be a
    separate run; or there is too little shared memory.
    """
    MPI = library()
    version = MPI.Get_library_version()
    if not MPI.Is_initialized():
        launchers.require_numbers()
        launchers.require_same_kind(version)
        shared_memory.require_room(version)
        shared_memory.spare()
        initialise(MPI)
    world = MPI.COMM_WORLD
    launchers.require_all_ranks_seen(world.size, version)
    return Communicator(world, version.splitlines()[0].strip(" \0"))


def run(program: Callable[[Communicator], int]) -> NoReturn:
    """Run ``program`` on every rank and exit with the code that it returns.

    Whatever ends one rank early ends all ranks at once: an exception, with its traceback on stderr, or an
    exit, which counts as a failure whatever its code. BadInput from ``connect`` gives one sentence from root
    and exit code 2; Unwritable one sentence and 1; StopAtOnce one sentence and 75.
    """
    try:
        comm = connect()
    except BadInput as refusal:
        if launched_as_root():
            refuse(refusal)
        sys.exit(REFUSED)
    except BaseException as error:
        if signals.stop_request_in(error):
            sys.exit(STOPPED)
        raise
    try:
        code = program(comm)
        signals.ignore_all()
    except BaseException as error:
        _end_after(comm, error)
    sys.exit(code)


def together(comm: Communicator, program: Callable[[], T]) -> T:
    """What ``program`` returns, which all ranks run together as a part of a user's program.

    With several ranks, whatever ends one early ends all, as in ``run``: the others would wait for it.
    """
    try:
        return program()
    except BaseException as error:
        if comm.size == 1:
            raise
        _end_after(comm, error)


def _end_after(comm: Communicator, error: BaseException) -> NoReturn:
    """End all ranks because of an exception on this one, which is being handled."""
    if isinstance(error, SystemExit):
        # A program returns its code. A rank that exits instead, even with 0, leaves the other ranks waiting.
        code = (error.code if isinstance(error.code, int) else CRASHED) or CRASHED
        reason = f": {error.code}" if isinstance(error.code, str) else ""
        _end(comm, code, f"rank {comm.rank} of {comm.size} exits with {code}{reason}")
    if isinstance(error, Unwritable):
        _end(comm, CRASHED, str(error))
    if stop := signals.stop_request_in(error):
        if not comm.is_root:
            time.sleep(ABORT_DELAY)
        why = f"{stop}: the run ends, its last checkpoint is kept, continue with {option('resume')}"
        _end(comm, STOPPED, why)
    where = f"rank {comm.rank} of {comm.size} on {comm.host} failed; all ranks end"
    _end(comm, CRASHED, f"{where}\n{traceback.format_exc()}")


def _end(comm: Communicator, code: int, why: str) -> NoReturn:
    print_error(why)
    LOG.error(why)
    comm.abort(code)
