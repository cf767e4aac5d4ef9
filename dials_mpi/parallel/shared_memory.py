"""The shared memory of MPICH's ranks on one machine: a file in /dev/shm, 64 MB in a container.

MPICH does not ask whether there is room: where there is none the ranks end with a bus error, without a word.
"""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from dials_mpi.core.errors import BadInput
from dials_mpi.core.launchers import local_ranks, mpich_version

FOLDER = Path("/dev/shm")
PREFIX = "mpich_shm_"
EACH, ALL = 1_057_344, 4_096
"""Bytes for each rank of a machine and for all of them together: measured with MPICH 5.0, 4.1 takes a little
less."""

LATELY = 60.0
"""Seconds: no rank is started by so much later than the others."""
_loaded = time.time()


def spare() -> None:
    """Keep UCX, as a part of MPICH, from taking 4.3 MB more for each rank.

    Within a machine MPICH sends through memory of its own, and not through that of UCX.
    """
    os.environ.setdefault("UCX_TLS", "^posix")


def require_room(library: str) -> None:
    """BadInput: there is no room for all ranks of this machine. library: all that it says of its version."""
    version, ranks = mpich_version(library), local_ranks()
    if sys.platform != "linux" or version is None or "ch4" not in library:
        return
    if ranks == 1 and version < (5, 0):  # takes none
        return
    needed = EACH * ranks + ALL
    free = _free(needed)
    if free < needed:
        asked, there = math.ceil(needed / 1e5) / 10, math.floor(free / 1e5) / 10
        raise BadInput(
            f"MPICH needs {asked} MB of shared memory for {ranks} rank{'s' * (ranks > 1)} on this "
            f"machine, and {FOLDER} has {there} MB free: give it more (docker run --shm-size=1g), "
            f"remove what runs that were killed left there ({PREFIX}*), or start fewer ranks"
        )


def forget() -> None:
    """Remove the name of MPICH's shared memory, which all ranks of this machine have open by now.

    MPICH does so at its own end: a run that is killed would leave it behind, a megabyte for each rank.
    """
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.split()[-1]
            if path.startswith(str(FOLDER / PREFIX)):
                with suppress(FileNotFoundError):
                    os.unlink(path)


def _free(needed: int) -> int:
    """Bytes that this job may have, whatever of them its other ranks, which are starting too, have taken."""
    if not os.access(FOLDER, os.W_OK):
        return 0
    room = os.statvfs(FOLDER)
    return room.f_bavail * room.f_frsize + sum(_taken(path, needed) for path in FOLDER.glob(f"{PREFIX}*"))


def _taken(path: Path, needed: int) -> int:
    """Bytes of a file that are in use, if it seems to be that of this job: of its size and owner, and new."""
    with suppress(FileNotFoundError):
        file = path.stat()
        ours = file.st_uid == os.getuid() and abs(file.st_size / needed - 1) < 0.01
        if ours and file.st_ctime > _loaded - LATELY:
            return file.st_blocks * 512
    return 0
