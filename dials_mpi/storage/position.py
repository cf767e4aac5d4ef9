"""How far a run has come, as a checkpoint records it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    segments: how many are done; env_steps: steps per agent; wall_time: seconds of all its sessions; lengths:
    rows of each series in the run file; ranks; seconds: how long each part of a segment takes on that many.
    unrecorded: a row for each rank of what is in no row of the run file yet (``UnrecordedCosts``).
    """

    segments: int = 0
    env_steps: int = 0
    wall_time: float = 0.0
    lengths: dict[str, int] = field(default_factory=dict)
    ranks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    unrecorded: list[list[float]] = field(default_factory=list)
