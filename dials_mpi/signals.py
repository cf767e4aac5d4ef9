"""What signals ask of a run: SIGUSR1 to stop at the next segment's end, SIGTERM and SIGINT at once."""

from __future__ import annotations

import signal
from types import FrameType

from dials_mpi.errors import StopAtOnce

AT_ONCE = (signal.SIGTERM, signal.SIGINT)


class Wishes:
    """stop_soon: whether a SIGUSR1 has come to this process."""

    stop_soon = False


def ignore() -> None:
    """Heed no signals any more: on the way out the default actions would come back, and kill the process."""
    for each in (signal.SIGUSR1, *AT_ONCE):
        signal.signal(each, signal.SIG_IGN)


def listen() -> Wishes:
    """Heed signals from now on; SIGTERM and SIGINT raise StopAtOnce in the main thread."""
    wishes = Wishes()

    def soon(number: int, frame: FrameType | None) -> None:
        wishes.stop_soon = True

    def at_once(number: int, frame: FrameType | None) -> None:
        # One is enough: a launcher may pass on what the terminal has sent to all already.
        for each in AT_ONCE:
            signal.signal(each, signal.SIG_IGN)
        raise StopAtOnce(signal.Signals(number).name)

    signal.signal(signal.SIGUSR1, soon)
    for each in AT_ONCE:
        signal.signal(each, at_once)
    return wishes
