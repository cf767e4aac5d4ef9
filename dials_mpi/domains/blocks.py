"""Grids whose regions are blocks of neighbouring agents (Appendix E.2 of the paper)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Agent

Pair = tuple[int, int]


def require_fit(section: str, grid: Pair, block: Pair) -> None:
    """BadInput: ``block`` (rows, columns) does not divide ``grid``; section: its key in the configuration."""
    if any(whole % part for whole, part in zip(grid, block, strict=True)):
        rows, columns = (_divisors(whole) for whole in grid)
        raise BadInput(
            f"{section}.block is {list(block)}, which does not divide {section}.grid={list(grid)}: "
            f"use {rows} for its rows and {columns} for its columns"
        )


def blocks(grid: Pair, block: Pair) -> list[tuple[int, ...]]:
    """The agents of each block. Agents are numbered row by row; blocks and their agents are in that order."""
    rows, columns = grid
    high, wide = block
    return [
        tuple(r * columns + c for r in range(top, top + high) for c in range(left, left + wide))
        for top in range(0, rows, high)
        for left in range(0, columns, wide)
    ]


def placed(agent: Agent, grid: Pair) -> list[Agent]:
    """Equal agents on a grid, row by row, with their names and positions."""
    rows, columns = grid
    return [
        replace(agent, name=f"row {r + 1}, column {c + 1}", position=(float(c), float(-r)))
        for r in range(rows)
        for c in range(columns)
    ]


def joined(values: np.ndarray) -> np.ndarray:
    """Concatenate the values of the B agents of each of R blocks: [R, B, E, n] to [R, E, B x n]."""
    regions, _, episodes, _ = values.shape
    return values.swapaxes(1, 2).reshape(regions, episodes, -1)


def _divisors(whole: int) -> str:
    every = [str(part) for part in range(1, whole + 1) if whole % part == 0]
    return " or ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
