"""What signals ask of a run: SIGUSR1 to stop at the next segment's end, SIGTERM and SIGINT at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dials_mpi.errors import StopAtOnce

AT_ONCE = (signal.SIGTERM, signal.SIGINT)


class Wishes:
    """What has been asked of this process. stop_soon: by SIGUSR1; stop: at once, and not yet heeded."""

    stop_soon = False
    stop: StopAtOnce | None = None
    held = 0


_wishes = Wishes()


def listen() -> Wishes:
    """Heed signals from now on; SIGTERM and SIGINT raise StopAtOnce in the main thread."""
    signal.signal(signal.SIGUSR1, _soon)
    for each in AT_ONCE:
        signal.signal(each, _at_once)
    return _wishes


def ignore() -> None:
    """Heed no signals any more: on the way out the default actions would come back, and kill the process."""
    for each in (signal.SIGUSR1, *AT_ONCE):
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def held() -> Iterator[None]:
    """Put off StopAtOnce until the end of what happens inside.

    Where a library calls back into Python an exception gets lost, or ends the process.
    """
    _wishes.held += 1
    try:
        yield
    finally:
        _wishes.held -= 1
        if not _wishes.held:
            heed()


def heed() -> None:
    """Raise a StopAtOnce that was put off; for places where it does no harm."""
    stop, _wishes.stop = _wishes.stop, None
    if stop:
        raise stop


def stop_behind(error: BaseException) -> StopAtOnce | None:
    """The StopAtOnce that led to an exception, or is it: compiled code that is interrupted by one may make
    it the cause of a SystemError."""
    seen: BaseException | None = error
    while seen and not isinstance(seen, StopAtOnce):
        seen = seen.__cause__ or seen.__context__
    return seen


def _soon(number: int, frame: FrameType | None) -> None:
    _wishes.stop_soon = True


def _at_once(number: int, frame: FrameType | None) -> None:
    # One is enough: a launcher may pass on what the terminal has sent to all already.
    for each in AT_ONCE:
        signal.signal(each, signal.SIG_IGN)
    _wishes.stop = StopAtOnce(signal.Signals(number).name)
    if not _wishes.held:
        heed()
