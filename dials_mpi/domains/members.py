"""Which agents belong to which region, and what both have as one row per region: as it travels and is kept.

Ranks and checkpoints know regions alone. What each agent has, its policy and its metrics, travels as part of
its region's row: the rows of the region's agents one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

if TYPE_CHECKING:
    from dials_mpi.domains.base import Region
    from dials_mpi.parallel.communicator import Communicator

OF_REGIONS = ("predictor",)
"""The kinds of network that regions have; the others belong to agents."""


class Members:
    """The N agents of the R regions of a system.

    agents: the numbers of each region's. count: N. most: how many the largest region has.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        """ValueError: an agent is in no region, or in two."""
        self.agents = [region.agents for region in regions]
        everyone = [i for agents in self.agents for i in agents]
        self.count, self.most = len(everyone), max(map(len, self.agents), default=0)
        if sorted(everyone) != list(range(self.count)) or not all(self.agents):
            raise ValueError(
                f"the regions hold the agents {everyone}: each has one at least, and together they have "
                f"0 to {self.count - 1} once"
            )
        places = {i: k * self.most + j for k, agents in enumerate(self.agents) for j, i in enumerate(agents)}
        self._places = [places[i] for i in range(self.count)]

    def of(self, regions: Sequence[int]) -> list[int]:
        """The agents of some regions, region after region."""
        return [i for k in regions for i in self.agents[k]]

    def groups(self, regions: Sequence[int], most: int) -> list[list[int]]:
        """Regions one after the other, in groups of at most so many agents, or of one region."""
        groups: list[list[int]] = []
        for k in regions:
            if groups and len(self.of([*groups[-1], k])) <= most:
                groups[-1].append(k)
            else:
                groups.append([k])
        return groups

    def owners(self, kind: str, region: int) -> Sequence[int]:
        """The numbers of those in a region who have a network of this kind: agents, or the region itself."""
        return (region,) if kind in OF_REGIONS else self.agents[region]

    def numbers(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many networks of each kind there are in the system."""
        return {kind: len(self.agents) if kind in OF_REGIONS else self.count for kind in kinds}

    def pieces(
        self, layouts: Mapping[str, Mapping[str, int]], region: int
    ) -> Iterator[tuple[str, int, slice]]:
        """What a region's row of a checkpoint consists of: kind of network, its owner's number, and where.

        layouts: names and widths of each kind's datasets (``states.layouts``).
        """
        start = 0
        for kind, layout in layouts.items():
            width = sum(layout.values())
            for owner in self.owners(kind, region):
                yield kind, owner, slice(start, start + width)
                start += width

    def width(self, layouts: Mapping[str, Mapping[str, int]]) -> int:
        """The length of the longest region's row."""
        lengths = {kind: sum(layout.values()) for kind, layout in layouts.items()}
        return sum(width * (1 if kind in OF_REGIONS else self.most) for kind, width in lengths.items())

    def gather(
        self,
        comm: Communicator,
        mine: Mapping[int, np.ndarray],
        width: int,
        dtype: DTypeLike,
        to: int = 1,
    ) -> np.ndarray | None:
        """One row per agent, from those who hold their regions to the first ``to`` ranks: [N, width] there,
        None elsewhere.

        mine: the rows of the agents of this rank's regions; behind a shorter row it is zero.
        """
        rows = self.pack(mine, width, dtype)
        gathered = comm.gather(rows, self.most * width, dtype, to)
        return None if gathered is None else self.unpack(gathered)

    def pack(self, rows: Mapping[int, np.ndarray], width: int, dtype: DTypeLike) -> dict[int, np.ndarray]:
        """One row per region of whose agents there are rows: these, up to ``width`` each, end to end."""
        return {
            k: rows[agents[0]] if len(agents) == 1 else _joined([rows[i] for i in agents], width, dtype)
            for k, agents in enumerate(self.agents)
            if agents[0] in rows
        }

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """The agents' rows [N, width] in the regions' rows [R, most x width]; copied if in another order."""
        parts = rows.reshape(len(rows) * self.most, -1)
        return parts if self._places == list(range(len(parts))) else parts[self._places]


def _joined(rows: Sequence[np.ndarray], width: int, dtype: DTypeLike) -> np.ndarray:
    joined = np.zeros((len(rows), width), dtype)
    for target, row in zip(joined, rows, strict=True):
        target[: len(row)] = row
    return joined.reshape(-1)
