"""Files that are replaced in one step, so that each is complete or absent; the lock of a run's directory."""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LOCK = ".lock"
TEMPORARY = ".partial"
LOCK_RETRY = 0.05
"""Seconds before a second attempt to lock: ``locked_by`` holds a lock for less."""


_held: list[int] = []
"""The file descriptors of the locks that this process has."""


class DeferredErrorFile(io.FileIO):
    """A file whose write errors are reported only by ``settle``.

    If a write fails, the HDF5 library cannot close its file, and the process ends in a segmentation fault.
    Therefore ``write`` and ``truncate`` report success after an error, and further data is discarded.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of the data, or nothing after an error; the position advances in both cases."""
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
        """Return when all data is on the disk. OSError: the first error of a write."""
        if self.failure is not None:
            raise self.failure
        os.fsync(self.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[DeferredErrorFile]:
    """A temporary file to write, which replaces ``path`` in one step when it is complete.

    If the process is killed, ``path`` is unchanged. Unwritable: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    file = None
    try:
        with DeferredErrorFile(temporary, "w+") as file:
            yield file
            file.settle()
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        _remove(temporary)
        failure = (file and file.failure) or error  # later errors are consequences of the first one
        if not isinstance(failure, OSError):
            raise
        raise Unwritable(
            f"{printable(str(path))} cannot be written ({failure.strerror or failure}), its earlier content "
            f"is intact: free disk space or make it writable, then continue with {option('resume')}"
        ) from error


@contextmanager
def output_file(file: Path, option: str = "--out") -> Iterator[Path]:
    """A temporary file to write, which replaces ``file`` when it is complete; option: named the file.

    A device or a pipe, such as /dev/stdout, is written itself. BadInput: the folder is not writable, or the
    disk is full.
    """
    try:
        if special := file.exists() and not file.is_file():
            temporary = file
            file.open("ab").close()  # an error must come now, not after minutes of drawing
        else:
            temporary = file.with_name(f".partial-{os.getpid()}-{file.name}")
            temporary.touch(exist_ok=False)
    except (OSError, ValueError) as error:  # ValueError: the name is not valid for a file
        raise _unwritable(file, option, error) from error
    try:
        yield temporary
        if not special:
            os.replace(temporary, file)
    except OSError as error:
        raise _unwritable(file, option, error) from error
    finally:
        if not special:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_json(file: str, content: Any) -> None:
    """Write what ``--json`` asks for, as one file. BadInput as of ``output_file``."""
    with output_file(Path(file), "--json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _unwritable(file: Path, option: str, error: Exception) -> BadInput:
    reason = getattr(error, "strerror", None) or error
    return BadInput(f"{printable(str(file))} cannot be written ({reason}): choose another {option}")


def lock_directory(directory: Path) -> str | None:
    """Lock a directory until ``unlock_directories``, or the end of this process, even after a kill.

    Returns a warning if the file system does not support locks. BadInput: another process has the lock.
    """
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(lock)
    except BlockingIOError:
        owner = _recorded_owner(lock)
        os.close(lock)
        raise BadInput(
            f"another run is active in {printable(str(directory))} ({owner}): wait for its end, or choose "
            f"another directory with {option('output')}"
        ) from None
    except OSError as error:
        os.close(lock)
        return (
            f"the file system of {printable(str(directory))} does not support locks ({error.strerror}): a "
            "second run in the directory cannot be prevented"
        )
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {platform.node()} since {since}\n".encode(), 0)
    _held.append(lock)  # stays open, which keeps the lock
    return None


def unlock_directories() -> None:
    """Release all locks of this process."""
    while _held:
        os.close(_held.pop())


def locked_by(directory: Path) -> str | None:
    """Which process has locked a directory, as it is recorded in the lock file.

    None: no process, or the file system does not support locks.
    """
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _recorded_owner(lock)
    except OSError:
        return None
    finally:
        os.close(lock)


def free_name(path: Path, ending: str) -> Path:
    """An unused name beside ``path``: its name, the ending, and a number if that name exists."""
    names = (path.with_name(f"{path.name}{ending}{k or ''}") for k in count())
    return next(name for name in names if not os.path.lexists(name))


def link_or_copy(path: Path, name: Path) -> None:
    """Give a file a second name, which keeps its content when ``path`` is replaced."""
    try:
        os.link(path, name)
    except OSError:  # the file system does not support hard links
        shutil.copy2(path, name)


def remove_temporary_files(directory: Path) -> None:
    """Remove the temporary files of a run that was killed; the caller has locked the directory."""
    for temporary in directory.glob(f".*{TEMPORARY}"):
        _remove(temporary)


def _lock(lock: int) -> None:
    """BlockingIOError: another process has the lock, and not only for the duration of ``locked_by``."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOCK_RETRY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _recorded_owner(lock: int) -> str:
    return printable(os.read(lock, 200).decode(errors="replace").strip()) or "another process"


def _remove(file: Path) -> None:
    # Fails on a file system that has become read-only; a later session calls ``remove_temporary_files``.
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder of a run if it is missing. Unwritable: it cannot be made."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Unwritable(
            f"the folder {printable(str(folder))} cannot be made ({error.strerror}): make its parent "
            f"writable, then continue with {option('resume')}"
        ) from error
