"""The checksum of an HDF5 file, and messages for files with a wrong one.

If all of such a file can be read, another program has changed it; otherwise it is damaged.
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

CHECKSUM_BYTES = 512
"""Length of the user block, the part of an HDF5 file before its content; it holds a checksum of the content.
HDF5's own checksums cover only a part, and with some damaged files the library hangs or crashes."""

BLOCK = 1 << 20
PROBE = Path(__file__).with_name("probe.py")
READ_SECONDS, READ_SECONDS_PER_BYTE = 30.0, 1e-7
"""Time limit for reading a file: a constant, and an addition per byte."""
_BEGINNING = b"dials_mpi sha256 "


class Changed(BadInput):
    """The file is readable, but another program has changed it since it was written."""


class InUse(BadInput):
    """Another program has the file open for writing."""


def checksum(file: BinaryIO) -> bytes:
    """The user block [CHECKSUM_BYTES] with the checksum of a file's content, without a writer's mark."""
    file.seek(CHECKSUM_BYTES)
    digest = hashlib.sha256(superblock.cleared(file.read(superblock.HEAD)))
    while block := file.read(BLOCK):
        digest.update(block)
    return (_BEGINNING + f"{digest.hexdigest()}\n".encode()).ljust(CHECKSUM_BYTES, b"\0")


def has_valid_checksum(path: Path) -> bool:
    """Whether a file's content is unchanged since it was written. OSError: it cannot be read."""
    with open(path, "rb") as file:
        return file.read(CHECKSUM_BYTES) == checksum(file)


def require_checksum(path: Path, what: str, unchecked: bool = False) -> bool:
    """Whether another program has changed the file; without ``unchecked`` such a file raises Changed.

    what: the expected kind of file, for messages. InUse: another program has changed it and has it open for
    writing. BadInput: it is not such a file, or is damaged.
    """
    where = printable(str(path))
    try:
        if has_valid_checksum(path):
            return False
        if in_use(path):
            raise InUse(
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
        "wrong): read it as it is with --unchecked, or continue the run with --resume, which uses what the "
        "checkpoint needs of it"
    )


def require_closed(path: Path) -> None:
    """Raise InUse if another program has the file open for writing."""
    if in_use(path):
        raise InUse(f"{printable(str(path))} is open for writing in another program: close it there")


def in_use(path: Path) -> bool:
    """Whether a program has the file open for writing now: the file has a writer's mark and a lock."""
    if not has_writer_mark(path):
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # the file system does not support locks
            return False
    return False


def readable(path: Path) -> bool:
    """Whether HDF5 can read all of a file's content, whatever its checksum; tried in a separate process."""
    content = without_writer_mark(path)
    if not content.startswith(_BEGINNING):
        return False
    limit = READ_SECONDS + READ_SECONDS_PER_BYTE * len(content)
    command = [sys.executable, "-P", str(PROBE)]
    try:
        return not subprocess.run(command, input=content, capture_output=True, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return False


def has_writer_mark(path: Path) -> bool:
    """Whether the file has a writer's mark, with which the HDF5 library refuses to open it."""
    with open(path, "rb") as file:
        file.seek(CHECKSUM_BYTES)
        return superblock.marked(file.read(superblock.HEAD))


def without_writer_mark(path: Path) -> bytes:
    """The bytes of the file, without a writer's mark."""
    content = path.read_bytes()
    end = CHECKSUM_BYTES + superblock.HEAD
    return content[:CHECKSUM_BYTES] + superblock.cleared(content[CHECKSUM_BYTES:end]) + content[end:]


def damaged(path: Path, what: str, reason: object) -> BadInput:
    """The exception for a file that is not ``what`` was expected."""
    short = printable(" ".join(str(reason).split()))[:300]
    return BadInput(f"{printable(str(path))} is not {what}, or a damaged one: {short}")
