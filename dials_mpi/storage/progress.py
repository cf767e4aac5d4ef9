"""How far a run has come: the attributes of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

LONGEST = 1e12
"""Seconds; no run takes longer."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    segments: segments done; env_steps: steps per agent done; wall_time: seconds of all sessions; lengths:
    rows of each series in the run file; ranks: ranks of the session; seconds: how long each kind of work in
    a segment takes on so many ranks.
    """

    segments: int = 0
    env_steps: int = 0
    wall_time: float = 0.0
    lengths: dict[str, int] = field(default_factory=dict)
    ranks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def require_valid(self) -> None:
        """ValueError: a value is not possible, such as a negative count."""
        counts = (self.segments, self.env_steps, self.ranks, *self.lengths.values())
        numbers = (self.wall_time, *self.seconds.values())
        if not (
            all(type(count) is int and count >= 0 for count in counts)
            and all(type(number) in (int, float) and 0 <= number < LONGEST for number in numbers)
        ):
            raise ValueError("its progress record is invalid")
