"""Signs of life: a rank that hangs is noticed and named, with its machine.

Every rank gives a sign to its watcher while it works and while it waits: the workers to root, root to
rank 1. Watchers look while they wait. A process that has died ends the job in another way (see ranks.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from dials_mpi.core.logging import warn

SIGNS = 10
"""Signs in the time after which a rank counts as silent."""


class Heartbeat:
    """The signs of life that one rank gives and gets.

    give: sends a sign to a rank, if the one before has gone; got: the ranks whose signs have come in since
    the last call. silence: seconds; 0 is never.
    """

    def __init__(
        self,
        rank: int,
        hosts: Sequence[str],
        silence: float,
        give: Callable[[int], None],
        got: Callable[[], Iterable[int]],
    ) -> None:
        self._rank, self._hosts, self._silence = rank, hosts, silence
        self._give, self._got = give, got
        everyone = range(len(hosts)) if silence else ()
        self._watcher = 0 if rank else 1
        watched = everyone[1:] if rank == 0 else everyone[:1] if rank == 1 else ()
        now = time.monotonic()
        self._heard = dict.fromkeys(watched, now)
        self._silent: set[int] = set()
        self._next_sign = self._next_look = now if len(everyone) > 1 else float("inf")

    def beat(self) -> None:
        """Say that this rank is alive; costs next to nothing where it was said a moment ago."""
        now = time.monotonic()
        if now >= self._next_sign:
            self._next_sign = now + self._silence / SIGNS
            self._give(self._watcher)

    def check(self) -> None:
        """See who has been silent for too long, and say so once; call it while waiting."""
        now = time.monotonic()
        if now < self._next_look:
            return
        # Not seen for long, this rank was busy itself: the others' signs may only just come in.
        late = now - self._next_look > self._silence / SIGNS
        self._next_look = now + self._silence / SIGNS / 10
        for rank in self._got():
            self._heard[rank] = now
            if rank in self._silent:
                self._silent.remove(rank)
                warn(f"rank {rank} on {self._hosts[rank]} gives signs of life again", self._rank)
        for rank, heard in self._heard.items():
            if now - heard > self._silence and rank not in self._silent and not late:
                self._silent.add(rank)
                warn(
                    f"rank {rank} on {self._hosts[rank]} has given no sign of life for {now - heard:.0f} s: "
                    "it hangs, or its machine does; if it stays so, end the run, and go on with --resume",
                    self._rank,
                )
