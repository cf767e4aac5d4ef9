"""Heartbeats: a rank that hangs is noticed and reported, with its machine.

Every rank sends heartbeats to its watcher while it works and while it waits: the others to root, root to rank
1. Watchers check them while they wait. A process that dies ends the job in another way (``run``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from dials_mpi.core.logging import warn
from dials_mpi.core.shell import option

BEATS = 10
"""Heartbeats in the time after which a rank counts as silent."""


class Heartbeat:
    """The heartbeats that one rank sends and receives.

    send: sends one to a rank, if the last one has arrived; received: the ranks whose heartbeats have arrived
    since the last call. silence: seconds after which a rank is reported; 0: never.
    """

    def __init__(
        self,
        rank: int,
        hosts: Sequence[str],
        silence: float,
        send: Callable[[int], None],
        received: Callable[[], Iterable[int]],
    ) -> None:
        self._rank, self._hosts, self._silence = rank, hosts, silence
        self._send, self._received = send, received
        everyone = range(len(hosts)) if silence else range(0)
        self._watcher = 0 if rank else 1
        watched = everyone[1:] if rank == 0 else everyone[:1] if rank == 1 else ()
        now = time.monotonic()
        self._heard = dict.fromkeys(watched, now)
        self._silent: set[int] = set()
        self._next_beat = self._next_check = now if len(everyone) > 1 else float("inf")

    def beat(self) -> None:
        """Send a heartbeat, unless the last one is recent; this costs next to nothing."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self._silence / BEATS
            self._send(self._watcher)

    def check(self) -> None:
        """Report ranks that have been silent for too long, once; call it while waiting."""
        now = time.monotonic()
        if now < self._next_check:
            return
        # If this rank was busy for long itself, heartbeats of others may only now be received.
        late = now - self._next_check > self._silence / BEATS
        self._next_check = now + self._silence / BEATS / 10
        for rank in self._received():
            self._heard[rank] = now
            if rank in self._silent:
                self._silent.remove(rank)
                warn(f"rank {rank} on {self._hosts[rank]} sends heartbeats again", self._rank)
        for rank, heard in self._heard.items():
            if now - heard > self._silence and rank not in self._silent and not late:
                self._silent.add(rank)
                warn(
                    f"rank {rank} on {self._hosts[rank]} has sent no heartbeat for {now - heard:.0f} s: it "
                    "hangs, or its machine does; if this lasts, end the run, and continue it with "
                    f"{option('resume')}",
                    self._rank,
                )
