"""A region's whole state as one row of numbers: what travels to root for a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PARTS = ("parameters", "first_moment", "second_moment")

EARLIER = "earlier_policy/parameters"
"""A checkpoint's dataset of the policies that play for the next refresh, where these are not the newest."""

State = Mapping[str, np.ndarray]
"""The arrays [n] of a region by the name of a checkpoint's dataset, such as ``policy/first_moment``."""


def layout(widths: Mapping[str, int]) -> dict[str, int]:
    """The datasets and their widths, in the order of a row; widths: P of each kind of network."""
    return {
        f"{kind}/{part}": width if part in PARTS else 1
        for kind, width in widths.items()
        for part in (*PARTS, "adam_steps")
    }


def pack(layout: Mapping[str, int], state: State) -> np.ndarray:
    """The state as a row, float32 [sum of widths]; behind a shorter array the row is zero."""
    row, start = np.zeros(sum(layout.values()), np.float32), 0
    for name, width in layout.items():
        row[start : start + state[name].size] = state[name]
        start += width
    return row


def unpack(layout: Mapping[str, int], row: np.ndarray, state: State) -> None:
    """Fill the arrays of ``state`` from a row."""
    start = 0
    for name, width in layout.items():
        state[name][...] = row[start : start + state[name].size]
        start += width
