"""Standard output that cannot be written: its reader has gone, the disk is full, or it was closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, NoReturn

from dials_mpi.core.errors import CRASHED, DONE, print_error


class _Watched:
    """Standard output that remembers why it could not be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of the stream."""
        with self._noting():
            return self._stream.write(text)

    def flush(self) -> None:
        """As of the stream."""
        with self._noting():
            self._stream.flush()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = error
            raise


def command_line(main: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    """A command line that ends quietly where its reader has gone (``| head``), on a full disk in a sentence.

    The exit code is then 1 in place of 0. Standard streams that are closed become the null device, so that
    no file of ours takes their numbers.
    """

    @wraps(main)
    def run(*arguments: Any) -> NoReturn:
        open_closed_streams()
        plain, watched = sys.stdout, _Watched(sys.stdout)
        sys.stdout = watched  # type: ignore[assignment]
        try:
            _flushed(main, arguments)
        except OSError as error:
            if error is not watched.fault:
                raise
            discard()
            if not isinstance(error, BrokenPipeError):
                print_error(f"standard output cannot be written ({error.strerror}): give it another place")
            sys.exit(CRASHED)
        finally:
            sys.stdout = plain

    return run


def _flushed(main: Callable[..., NoReturn], arguments: Sequence[Any]) -> NoReturn:
    """Write all of the output here, not where Python ends; an exit code that tells of more goes before."""
    try:
        main(*arguments)
    except SystemExit as ending:
        try:
            sys.stdout.flush()
        except OSError:
            if ending.code in (None, DONE):
                raise
            discard()
        raise


def discard() -> None:
    """Send what is still in the buffer of standard output, and all that follows, nowhere."""
    with suppress(OSError, ValueError):  # it may be no file, as in a notebook
        number = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def open_closed_streams() -> None:
    """Give the null device to standard streams that this process was started without."""
    names = ("stdin", "stdout", "stderr")
    for number, name in enumerate(names):
        if getattr(sys, name) is None:
            _occupy(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _occupy(number: int) -> None:
    """Open the null device under a number that is free."""
    with suppress(OSError):
        os.fstat(number)
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
