"""Signals to a run: SIGUSR1 requests a stop at the end of the segment, SIGTERM and SIGINT at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dials_mpi.core.errors import StopAtOnce

AT_ONCE = (signal.SIGTERM, signal.SIGINT)


class StopRequests:
    """Stop requests to this process.

    stop_soon: SIGUSR1 was received. stop: SIGTERM or SIGINT was received, and not yet raised. deferred: the
    number of active ``deferred`` blocks.
    """

    stop_soon = False
    stop: StopAtOnce | None = None
    deferred = 0


_requests = StopRequests()


def available() -> bool:
    """Whether this thread can set signal handlers: in Python only the main thread can."""
    return threading.current_thread() is threading.main_thread()


def install_handlers() -> None:
    """Handle signals from now on; SIGTERM and SIGINT raise StopAtOnce in the main thread.

    In another thread it installs no handlers.
    """
    _requests.stop_soon = False
    if available():
        signal.signal(signal.SIGUSR1, _on_stop_soon)
        for each in AT_ONCE:
            signal.signal(each, _on_stop)


def request_stop() -> None:
    """Request a stop at the next segment's end, as SIGUSR1 does."""
    _requests.stop_soon = True


def stop_requested() -> bool:
    """Whether a stop at the next segment's end was requested since ``install_handlers``."""
    return _requests.stop_soon


def ignore_all() -> None:
    """Ignore all signals from now on: at exit the default actions would be restored and kill the process."""
    if available():
        for each in (signal.SIGUSR1, *AT_ONCE):
            signal.signal(each, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[None]:
    """Delay StopAtOnce until the end of the block.

    In callbacks from a library into Python an exception would be lost, or would end the process.
    """
    _requests.deferred += 1
    try:
        yield
    finally:
        _requests.deferred -= 1
        if not _requests.deferred:
            raise_pending()


@contextmanager
def handled() -> Iterator[None]:
    """In a ``deferred`` block: raise StopAtOnce at any time in this block, where it is safe again."""
    outside, _requests.deferred = _requests.deferred, 0
    try:
        raise_pending()
        yield
    finally:
        _requests.deferred = outside


def raise_pending() -> None:
    """Raise a delayed StopAtOnce, if there is one; for places where an exception is safe."""
    stop, _requests.stop = _requests.stop, None
    if stop:
        raise stop


def stop_request_in(error: BaseException) -> StopAtOnce | None:
    """The StopAtOnce in an exception's chain of causes, itself included; None without one.

    Compiled code that is interrupted by StopAtOnce may raise a SystemError with it as the cause.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StopAtOnce):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _on_stop_soon(number: int, frame: FrameType | None) -> None:
    _requests.stop_soon = True


def _on_stop(number: int, frame: FrameType | None) -> None:
    # Further signals are ignored: a launcher may forward a signal that the terminal has sent to all.
    for each in AT_ONCE:
        signal.signal(each, signal.SIG_IGN)
    _requests.stop = StopAtOnce(signal.Signals(number).name)
    if not _requests.deferred:
        raise_pending()
