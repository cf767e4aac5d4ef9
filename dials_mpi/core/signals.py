"""What signals ask of a run: SIGUSR1 to stop at the next segment's end, SIGTERM and SIGINT at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dials_mpi.core.errors import StopAtOnce

AT_ONCE = (signal.SIGTERM, signal.SIGINT)


class StopRequests:
    """What has been asked of this process. stop_soon: by SIGUSR1; stop: at once, and not yet heeded."""

    stop_soon = False
    stop: StopAtOnce | None = None
    deferred = 0


_requests = StopRequests()


def available() -> bool:
    """Whether this thread can say what signals do: Python lets the main thread alone do so."""
    return threading.current_thread() is threading.main_thread()


def install_handlers() -> None:
    """Heed signals from now on; SIGTERM and SIGINT raise StopAtOnce in the main thread.

    In another thread signals do what they did before.
    """
    _requests.stop_soon = False
    if available():
        signal.signal(signal.SIGUSR1, _soon)
        for each in AT_ONCE:
            signal.signal(each, _at_once)


def request_stop() -> None:
    """Request a stop at the next segment's end, as SIGUSR1 does."""
    _requests.stop_soon = True


def stop_requested() -> bool:
    """Whether a stop at the next segment's end was requested since ``install_handlers``."""
    return _requests.stop_soon


def ignore_all() -> None:
    """Heed no signals any more: on the way out the default actions would come back, and kill the process."""
    if available():
        for each in (signal.SIGUSR1, *AT_ONCE):
            signal.signal(each, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[None]:
    """Put off StopAtOnce until the end of what happens inside.

    Where a library calls back into Python an exception gets lost, or ends the process.
    """
    _requests.deferred += 1
    try:
        yield
    finally:
        _requests.deferred -= 1
        if not _requests.deferred:
            raise_pending()


def raise_pending() -> None:
    """Raise a StopAtOnce that was put off; for places where it does no harm."""
    stop, _requests.stop = _requests.stop, None
    if stop:
        raise stop


def stop_request_in(error: BaseException) -> StopAtOnce | None:
    """The StopAtOnce that led to an exception, or is it: compiled code that is interrupted by one may make
    it the cause of a SystemError."""
    seen: BaseException | None = error
    while seen and not isinstance(seen, StopAtOnce):
        seen = seen.__cause__ or seen.__context__
    return seen if isinstance(seen, StopAtOnce) else None


def _soon(number: int, frame: FrameType | None) -> None:
    _requests.stop_soon = True


def _at_once(number: int, frame: FrameType | None) -> None:
    # One is enough: a launcher may pass on what the terminal has sent to all already.
    for each in AT_ONCE:
        signal.signal(each, signal.SIG_IGN)
    _requests.stop = StopAtOnce(signal.Signals(number).name)
    if not _requests.deferred:
        raise_pending()
