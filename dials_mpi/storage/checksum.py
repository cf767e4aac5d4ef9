"""The checksum of an HDF5 file, and messages for files with a wrong one.

If all of such a file can be read, another program has changed it; otherwise it is damaged.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from dials_mpi.core.errors import BadInput
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable
from dials_mpi.storage import superblock

TRAILER_BYTES = 128
"""Length of the last part of a file, which holds a checksum of the rest. For HDF5 it is unused space.
HDF5's own checksums cover only a part, and with some damaged files the library hangs or crashes."""

USER_BLOCK_BYTES = 512
"""Length of the first part of files of earlier versions, which held the checksum: HDF5's user block."""

BLOCK = 1 << 20
PROBE = Path(__file__).with_name("probe.py")
READ_SECONDS, READ_SECONDS_PER_BYTE = 30.0, 1e-7
"""Time limit for reading a file: a constant, and an addition per byte."""
_BEGINNING = b"dials_mpi sha256 "


class Changed(BadInput):
    """The file is readable, but another program has changed it since it was written."""


class InUse(BadInput):
    """Another program has the file open for writing."""


def trailer(file: BinaryIO, length: int) -> bytes:
    """The checksum of the first ``length`` bytes of a file, without a writer's mark, [TRAILER_BYTES]."""
    return _line(_digest(file, 0, length), TRAILER_BYTES)


def has_valid_checksum(path: Path) -> bool:
    """Whether a file's content is unchanged since it was written. OSError: it cannot be read."""
    with open(path, "rb") as file:
        begin, length = content_begin(file), file.seek(0, os.SEEK_END)
        if begin:
            file.seek(0)
            return file.read(begin) == _line(_digest(file, begin, length), begin)
        content = max(0, length - TRAILER_BYTES)
        file.seek(content)
        return file.read() == trailer(file, content)


def recorded_checksum(path: Path) -> str:
    """The checksum (hex) in the last part of a file. OSError: it cannot be read."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TRAILER_BYTES))
        return file.read()[len(_BEGINNING) :].strip(b"\0\n").decode(errors="replace")


def content_begin(file: BinaryIO) -> int:
    """Where the HDF5 content of a file begins: behind the user block of earlier versions."""
    file.seek(0)
    return USER_BLOCK_BYTES if file.read(len(_BEGINNING)) == _BEGINNING else 0


def content_end(file: BinaryIO) -> int:
    """Where the HDF5 content of a file ends: before the trailer, if that is still at its end."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - TRAILER_BYTES))
    return length - TRAILER_BYTES if file.read(len(_BEGINNING)) == _BEGINNING else length


def _digest(file: BinaryIO, begin: int, end: int) -> str:
    """SHA-256 (hex) of a part of a file that begins with a superblock, without a writer's mark."""
    file.seek(begin)
    digest = hashlib.sha256(superblock.cleared(file.read(min(superblock.HEAD, end - begin))))
    while block := file.read(min(BLOCK, end - file.tell())):
        digest.update(block)
    return digest.hexdigest()


def _line(digest: str, length: int) -> bytes:
    return (_BEGINNING + f"{digest}\n".encode()).ljust(length, b"\0")


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
        f"wrong): read it as it is with {option('unchecked')}, or continue the run with {option('resume')}, "
        "which uses what the checkpoint needs of it"
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
    if _BEGINNING not in content:  # not written by this program
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
        file.seek(content_begin(file))
        return superblock.marked(file.read(superblock.HEAD))


def without_writer_mark(path: Path) -> bytes:
    """The bytes of the file, without a writer's mark."""
    content = path.read_bytes()
    begin = content_begin(io.BytesIO(content))
    end = begin + superblock.HEAD
    return content[:begin] + superblock.cleared(content[begin:end]) + content[end:]


def damaged(path: Path, what: str, reason: object) -> BadInput:
    """The exception for a file that is not ``what`` was expected."""
    short = printable(" ".join(str(reason).split()))[:300]
    return BadInput(f"{printable(str(path))} is not {what}, or a damaged one: {short}")
