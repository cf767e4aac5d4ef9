"""Files that are whole or not there, and a run's claim on its directory."""

from __future__ import annotations

import fcntl
import io
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.text import printable

LOCK = ".lock"
PARTIAL = ".partial"
GLANCE = 0.05
"""Seconds after which whoever only looks at a lock has let go of it."""


class PatientFile(io.FileIO):
    """A file that keeps a failure to itself until ``settle``.

    The HDF5 library, once told that the disk is full, cannot close its file any more, and the process
    ends in a segmentation fault. So it is told nothing, and what it goes on to write is dropped.
    """

    failure: OSError | None = None

    def write(self, data: memoryview) -> int:
        """All of it, or, after a failure, nothing; the position moves either way."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.failure is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as failure:
            self.failure = failure
        self.seek(len(rest) if self.failure else 0, os.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            return super().truncate(size) if self.failure is None else size or 0
        except OSError as failure:
            self.failure = failure
            return size or 0

    def settle(self) -> None:
        """Return when all of it is on the disk. OSError: it is not."""
        if self.failure is not None:
            raise self.failure
        os.fsync(self.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[PatientFile]:
    """A new file to write, which takes the place of ``path`` in one step when it is whole.

    Whoever is killed amid this leaves the old file as it was. Unwritable: the disk takes no more.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    file = None
    try:
        with PatientFile(partial, "w+") as file:
            yield file
            file.settle()
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException as error:
        _remove(partial)
        failure = (file and file.failure) or error  # whatever came after the first failure came from it
        if not isinstance(failure, OSError):
            raise
        raise Unwritable(
            f"{printable(str(path))} cannot be written ({failure.strerror or failure}), what was there "
            "before is intact: make room or make it writable, then go on with --resume"
        ) from error


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A file to write in place of ``file``, the user's ``--out``, whose place it takes when it is whole.

    BadInput: the folder or the disk does not take it.
    """
    try:
        partial = file.with_name(f".partial-{os.getpid()}-{file.name}")
        partial.touch(exist_ok=False)  # now, not when everything has been drawn
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        raise _unwritable(file, error) from error
    try:
        yield partial
        os.replace(partial, file)
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _unwritable(file: Path, error: Exception) -> BadInput:
    reason = getattr(error, "strerror", None) or error
    return BadInput(f"{printable(str(file))} cannot be written ({reason}): choose another --out")


def claim(directory: Path) -> str | None:
    """Hold a directory until this process ends, however it ends: the system lets go of the lock.

    Returns a warning where the file system knows no locks. BadInput: another process holds it.
    """
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)  # stays open, and so locked
    try:
        _lock(lock)
    except BlockingIOError:
        by = _named_in(lock)
        os.close(lock)
        raise BadInput(
            f"a run goes on in {printable(str(directory))} ({by}): wait for its end, or choose another "
            "directory with --output"
        ) from None
    except OSError as error:
        os.close(lock)
        return (
            f"the file system of {printable(str(directory))} has no locks ({error.strerror}): nothing keeps "
            "a second run out of the directory"
        )
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {platform.node()} since {since}\n".encode(), 0)
    return None


def holder(directory: Path) -> str | None:
    """Who holds a directory now, in its own words; None if nobody does, or the file system cannot tell."""
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _named_in(lock)
    except OSError:
        return None
    finally:
        os.close(lock)


def free_name(path: Path, ending: str) -> Path:
    """A name beside ``path`` that nothing has: it, the ending, and a number where that is taken."""
    names = (path.with_name(f"{path.name}{ending}{k or ''}") for k in count())
    return next(name for name in names if not os.path.lexists(name))


def keep(path: Path, name: Path) -> None:
    """Give a file a second name, under which its content stays when another one takes its place."""
    try:
        os.link(path, name)
    except OSError:  # a file system without links
        shutil.copy2(path, name)


def sweep(directory: Path) -> None:
    """Remove the unfinished files of a run that was killed; for the holder of the directory."""
    for partial in directory.glob(f".*{PARTIAL}"):
        _remove(partial)


def _lock(lock: int) -> None:
    """BlockingIOError: another process holds it, and not only for the moment that ``holder`` takes."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(GLANCE)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _named_in(lock: int) -> str:
    return printable(os.read(lock, 200).decode(errors="replace").strip()) or "another process"


def _remove(file: Path) -> None:
    with suppress(OSError):  # a file system that has become read-only keeps it; ``sweep`` comes by again
        file.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Put a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder of a run where it is missing. Unwritable: the disk or its parent does not take it."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Unwritable(
            f"the folder {printable(str(folder))} cannot be made ({error.strerror}): make its parent "
            "writable, then go on with --resume"
        ) from error
