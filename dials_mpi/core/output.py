"""Errors of standard output: the reader of a pipe has exited, the disk is full, the stream is closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, NoReturn

from dials_mpi.core.errors import CRASHED, DONE, print_error
from dials_mpi.core.first_start import announced
from dials_mpi.core.shell import running_command


class _ErrorRecorder:
    """Standard output; ``error`` is the last error of a write or flush, None without one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's method."""
        with self._recording_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        """As the stream's method."""
        with self._recording_errors():
            self._stream.flush()

    @contextmanager
    def _recording_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise


def command_line(main: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    """Decorator of a program's ``main``: handle output that cannot be written, with exit code 1.

    If the reader of a pipe has exited (``| head``), nothing is printed; otherwise one sentence is. Closed
    standard streams are replaced by the null device, so that no file gets their file descriptors.
    """

    @wraps(main)
    def run(*arguments: Any) -> NoReturn:
        open_closed_streams()
        plain, watched = sys.stdout, _ErrorRecorder(sys.stdout)
        sys.stdout = watched  # type: ignore[assignment]
        try:
            with running_command(main.__module__), announced():
                _call_and_flush(main, arguments)
        except OSError as error:
            if error is not watched.error:
                raise
            discard_output()
            if not isinstance(error, BrokenPipeError):
                print_error(f"standard output cannot be written ({error.strerror}): redirect it elsewhere")
            sys.exit(CRASHED)
        finally:
            sys.stdout = plain

    return run


def _call_and_flush(main: Callable[..., NoReturn], arguments: Sequence[Any]) -> NoReturn:
    """Call main and flush the output; a nonzero exit code of main takes precedence over a flush error."""
    try:
        main(*arguments)
    except SystemExit as ending:
        try:
            sys.stdout.flush()
        except OSError:
            if ending.code in (None, DONE):
                raise
            discard_output()
        raise


def discard_output() -> None:
    """Discard the buffered and all further text of standard output."""
    with suppress(OSError, ValueError):  # it may not be a file, as in a notebook
        number = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def open_closed_streams() -> None:
    """Open the null device for standard streams that were closed when this process was started."""
    names = ("stdin", "stdout", "stderr")
    for number, name in enumerate(names):
        if getattr(sys, name) is None:
            _open_null_device(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _open_null_device(number: int) -> None:
    """Open the null device with this file descriptor, if it is free."""
    with suppress(OSError):
        os.fstat(number)
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
