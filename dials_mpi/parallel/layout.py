"""Which rank holds which regions and agents, and which ranks run global simulators.

The first ``global_ranks`` ranks, rank 0 (root) among them, run global simulators. The W others are workers:
region k of R is on worker k*W//R, so that the regions of a worker are contiguous. A single rank does both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from dials_mpi.core.errors import BadInput

AGENT, REGION, RANK, RUN = "agent", "region", "rank", "run"
"""The kinds of owner that rows of numbers have. RUN: the run as a whole, whose row root holds."""

Owned = Sequence[Sequence[int]]
"""For each rank the numbers of the owners whose rows it holds."""


class Layout:
    """The layout of a run, seen from one rank.

    owned: of each kind of owner, the numbers that each rank holds. regions: the regions of this rank.
    region_ranks: the rank of each region. is_global: whether this rank runs a global simulator.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        agents: Sequence[Sequence[int]],
        on_root: bool = False,
        global_ranks: int = 1,
    ) -> None:
        """agents: the numbers of each region's agents. on_root: root holds all regions (training on the
        global simulator). global_ranks: how many ranks run global simulators; a single rank is one, whatever
        is asked for."""
        self.global_ranks = 1 if size == 1 else global_ranks
        self.is_global = rank < self.global_ranks
        first, workers = (0, 1) if on_root or size == 1 else (self.global_ranks, size - self.global_ranks)
        self.region_ranks = [first + k * workers // len(agents) for k in range(len(agents))]
        regions: list[list[int]] = [[] for _ in range(size)]
        for k, holder in enumerate(self.region_ranks):
            regions[holder].append(k)
        self.regions = regions[rank]
        self.owned: dict[str, Owned] = {
            AGENT: [[i for k in held for i in agents[k]] for held in regions],
            REGION: regions,
            RANK: [[r] for r in range(size)],
            RUN: [[0] if r == 0 else [] for r in range(size)],
        }


def writing_groups(layout: Layout, writers: int) -> list[list[int]]:
    """The ranks in at most so many groups whose first rank writes what all of them hold. One: all ranks, and
    root writes. Else ranks that hold regions write; the first group has the others, too."""
    ranks = range(len(layout.owned[REGION]))
    holding = [rank for rank in ranks if layout.owned[REGION][rank]]
    count = min(writers, len(holding))
    if count == 1:
        return [list(ranks)]
    groups = [holding[len(holding) * k // count : len(holding) * (k + 1) // count] for k in range(count)]
    groups[0] += [rank for rank in ranks if rank not in set(holding)]
    return groups


def default_ranks() -> int:
    """One rank for each core of this machine, and root, which is idle while the others train."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def usable_ranks(available: int, regions: int, global_ranks: int, on_root: bool) -> int:
    """How many of the available ranks a run of so many regions can use; one where only root has work."""
    ranks = min(available, regions + global_ranks)
    return ranks if not on_root and ranks > global_ranks else 1


def meaning(ranks: int, regions: int, global_ranks: int, on_root: bool) -> str:
    """What a number from ``usable_ranks`` means, in a sentence."""
    if on_root:
        return "1 rank: mode=global trains on one rank"
    if ranks == 1:
        return f"1 rank: the cores here are too few for more than global_ranks={global_ranks}"
    plural = "" if regions == 1 else "s"
    return (
        f"{ranks} ranks, for mpirun -n: {global_ranks} for the global simulator and {ranks - global_ranks} "
        f"for {regions} region{plural}, which suits the cores here (a run can use {regions + global_ranks})"
    )


def require_usable(ranks: int, regions: int, global_ranks: int) -> None:
    """BadInput: so many ranks cannot share the work; a single one can do all of it."""
    if ranks > regions + global_ranks:
        more = "one root" if global_ranks == 1 else f"global_ranks={global_ranks}"
        raise BadInput(
            f"{ranks} ranks are more than {regions} regions and {more} can use: "
            f"start at most {regions + global_ranks}"
        )
    if 1 < ranks <= global_ranks:
        raise BadInput(
            f"{ranks} ranks and global_ranks={global_ranks} leave none for the regions: start at least "
            f"{global_ranks + 1} ranks, or one, or give at most global_ranks={ranks - 1}"
        )
