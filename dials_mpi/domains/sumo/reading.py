"""What is read from SUMO after every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Reading(NamedTuple):
    """The vehicles on L lanes, V in all.

    vehicles: int64 [L], number of vehicles on each lane. position: float64 [V], of their fronts, lane after
    lane, metres from the lane's beginning. mean_speed: float64, m/s, of each lane that has vehicles. newest:
    the last vehicle that entered each lane, "" on an empty lane.
    """

    vehicles: np.ndarray
    position: np.ndarray
    mean_speed: np.ndarray
    newest: list[str]


def reading(names: Sequence[Sequence[str]], positions: list[float], speeds: list[float]) -> Reading:
    """A Reading from plain values; names: the vehicles of each lane, the newest first."""
    return Reading(
        np.fromiter(map(len, names), np.int64, len(names)),
        np.fromiter(positions, np.float64, len(positions)),
        np.fromiter(speeds, np.float64, len(speeds)),
        [lane[0] if lane else "" for lane in names],
    )
