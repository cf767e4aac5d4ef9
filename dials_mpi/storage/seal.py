"""The seal of an HDF5 file, a checksum of its content, and what can be said of a file that it does not fit.

A file that another program has changed can be told from a damaged one: all of it can be read.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.storage import superblock

SEAL = 512
"""Bytes before the content, HDF5's user block: a checksum of all that follows. The format has its own for
a part only, and on some damaged files the library hangs or ends the process."""

BLOCK = 1 << 20
PROBE = Path(__file__).with_name("probe.py")
PATIENCE, PER_BYTE = 60.0, 1e-7
"""Seconds that reading a file may take, and in addition for each of its bytes."""
_BEGINNING = b"dials_mpi sha256 "


class Changed(BadInput):
    """A file that can be read, and that another program has changed since it was written."""


class Held(BadInput):
    """A file that another program has open for writing at this moment."""


def seal(file: BinaryIO) -> bytes:
    """What the seal of a file must be, by its content; a writer's mark in it does not count."""
    file.seek(SEAL)
    digest = hashlib.sha256(superblock.cleared(file.read(superblock.HEAD)))
    while block := file.read(BLOCK):
        digest.update(block)
    return (_BEGINNING + f"{digest.hexdigest()}\n".encode()).ljust(SEAL, b"\0")


def sealed(path: Path) -> bool:
    """Whether a file's content is as it was written. OSError: it cannot be read."""
    with open(path, "rb") as file:
        return file.read(SEAL) == seal(file)


def require_seal(path: Path, what: str, unchecked: bool = False) -> bool:
    """Whether another program has changed the file; without ``unchecked`` that is refused.

    Changed, Held, BadInput: it is no such file, or a damaged one; ``what`` it should be.
    """
    where = printable(str(path))
    try:
        if sealed(path):
            return False
        if held(path):
            raise Held(
                f"{where} is open for writing in another program, which has changed it: close it there"
            )
        if not readable(path):
            raise damaged(path, what, "its checksum is wrong")
    except OSError as error:
        raise BadInput(f"{where} cannot be read: {error.strerror}") from error
    if unchecked:
        return True
    raise Changed(
        f"{where} was changed by another program since the run wrote it (it can be read, but its checksum is "
        "wrong): read it as it is with --unchecked, or go on with the run with --resume, which takes from it "
        "what the checkpoint needs"
    )


def require_closed(path: Path) -> None:
    """Held: another program has the file open for writing."""
    if held(path):
        raise Held(f"{printable(str(path))} is open for writing in another program: close it there")


def held(path: Path) -> bool:
    """Whether a program has the file open for writing now, as far as its lock tells."""
    if not left_open(path):
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def readable(path: Path) -> bool:
    """Whether all of a sealed file's content can be read, its seal aside: tried in a process of its own."""
    content = unmarked(path)
    if not content.startswith(_BEGINNING):
        return False
    limit = PATIENCE + PER_BYTE * len(content)
    command = [sys.executable, "-P", str(PROBE)]
    try:
        return not subprocess.run(command, input=content, capture_output=True, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return False


def left_open(path: Path) -> bool:
    """Whether there is a writer's mark, with which the library opens no file."""
    with open(path, "rb") as file:
        file.seek(SEAL)
        return superblock.marked(file.read(superblock.HEAD))


def unmarked(path: Path) -> bytes:
    """The file without a writer's mark."""
    content = path.read_bytes()
    end = SEAL + superblock.HEAD
    return content[:SEAL] + superblock.cleared(content[SEAL:end]) + content[end:]


def damaged(path: Path, what: str, reason: object) -> BadInput:
    """The sentence for a file that is not ``what`` it should be."""
    short = printable(" ".join(str(reason).split()))[:300]
    return BadInput(f"{printable(str(path))} is not {what}, or a damaged one: {short}")
