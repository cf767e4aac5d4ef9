"""What a network and its optimiser remember as one row of numbers, which travels to root for a checkpoint.

An agent has such a row of its policy, a region one of its predictor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PARTS = ("parameters", "first_moment", "second_moment")

EARLIER = "earlier_policy"
"""The kind of the policies that play for the next refit, where these are not the newest."""

Layout = Mapping[str, int]
"""The names and widths of a kind's datasets in a checkpoint, in the order of a row."""

State = Mapping[str, np.ndarray]
"""The arrays [n] of one owner by the name of a checkpoint's dataset, such as ``policy/first_moment``."""


def layouts(widths: Mapping[str, int]) -> dict[str, Layout]:
    """The layout of each kind of network; widths: their numbers of parameters P."""
    return {
        kind: {f"{kind}/{part}": width if part in PARTS else 1 for part in (*PARTS, "adam_steps")}
        for kind, width in widths.items()
    }


def earlier(width: int) -> dict[str, Layout]:
    """The layout of the earlier policies, which have no optimiser; width: their P."""
    return {EARLIER: {f"{EARLIER}/parameters": width}}


def pack(layout: Layout, state: State) -> np.ndarray:
    """The state as a row, float32 [sum of widths]; behind a shorter array the row is zero."""
    row, start = np.zeros(sum(layout.values()), np.float32), 0
    for name, width in layout.items():
        row[start : start + state[name].size] = state[name]
        start += width
    return row


def unpack(layout: Layout, row: np.ndarray, state: State) -> None:
    """Fill the arrays of ``state`` from a row."""
    start = 0
    for name, width in layout.items():
        state[name][...] = row[start : start + state[name].size]
        start += width
