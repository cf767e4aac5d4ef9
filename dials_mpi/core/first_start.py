"""What a first start makes for the cache: a command says so at root while it lasts, and how long it took.

At a terminal the line that says so is removed afterwards; elsewhere, as in the log of a job, it stays. If all
is in the cache, nothing is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dials_mpi.core.errors import PREFIX
from dials_mpi.core.launchers import launched, launched_as_root
from dials_mpi.core.logging import LOG

COMPILING = "compiling the inner loops"


class Work:
    """Work that is done in pieces, which may lie inside each other; ``end`` says how long they all took.

    This process has one for the compiler: ``compiling``.
    """

    def __init__(self, text: str, brief: bool = False) -> None:
        """text: such as "compiling the inner loops". brief: without the line at the beginning."""
        self.text = text
        self._said = brief
        self._depth = 0
        self._begun = self._seconds = 0.0

    def begin(self) -> None:
        """A piece begins."""
        self._depth += 1
        if self._depth == 1:
            self._begun = time.monotonic()
            if not self._said or _at_terminal():
                _say(f"{self.text} ...", progress=True)
            self._said = True

    def pause(self) -> None:
        """A piece has ended; more may follow."""
        self._depth -= 1
        if not self._depth:
            self._seconds += time.monotonic() - self._begun
            _remove_progress()

    def end(self) -> None:
        """Say how long all pieces since the last call took, if there were any."""
        if self._said and not self._depth:
            _say(f"{self.text} took {self._seconds:.1f} s")
            self._said, self._seconds = False, 0.0


compiling = Work(COMPILING)


@contextmanager
def making(text: str, brief: bool = False) -> Iterator[None]:
    """Say what is made inside, such as "building the road network", and how long it took; brief: as of
    ``Work``."""
    work = Work(text, brief)
    work.begin()
    try:
        yield
    finally:
        work.pause()
    work.end()


_listeners: list[bool] = []


@contextmanager
def announced(wanted: bool = True) -> Iterator[None]:
    """Inside, first starts are announced, if wanted: the user watches this program."""
    compiling.end()  # what was compiled before is not part of it
    _listeners.append(wanted)
    try:
        yield
    finally:
        compiling.end()
        _listeners.pop()


def _say(text: str, progress: bool = False) -> None:
    """Print a line on stderr, and log it; progress: at a terminal until ``_remove_progress``."""
    if _is_announced():
        LOG.info("first start: %s", text)
        _write(f"{PREFIX}first start: {text}" + ("" if progress and _at_terminal() else "\n"))


def _remove_progress() -> None:
    if _is_announced() and _at_terminal():
        _write("\r\x1b[K")


def _write(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_announced() -> bool:
    return bool(_listeners) and _listeners[-1] and launched_as_root()


def _at_terminal() -> bool:
    """Whether stderr is a terminal that nothing else writes to, such as a progress bar."""
    stream = sys.__stderr__
    return stream is not None and sys.stderr is stream and stream.isatty() and not launched()
