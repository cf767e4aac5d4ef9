"""Which agents belong to which region."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dials_mpi.domains.base import Region

OWNERS = {"policy": "agent", "predictor": "region"}
"""Who has a network of each kind."""


class Members:
    """The N agents of the R regions of a system.

    agents: the numbers of each region's agents. count: N. largest: number of agents of the largest region.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        """ValueError: an agent is in no region, or in two."""
        self.agents = [region.agents for region in regions]
        everyone = [i for agents in self.agents for i in agents]
        self.count, self.largest = len(everyone), max(map(len, self.agents), default=0)
        if sorted(everyone) != list(range(self.count)) or not all(self.agents):
            raise ValueError(
                f"the regions hold the agents {everyone}: each has one at least, and together they have "
                f"0 to {self.count - 1} once"
            )

    def of(self, regions: Sequence[int]) -> list[int]:
        """The agents of some regions, region after region."""
        return [i for k in regions for i in self.agents[k]]

    def groups(self, regions: Sequence[int], largest: int) -> list[list[int]]:
        """Consecutive regions in groups of at most ``largest`` agents, or of one region."""
        groups: list[list[int]] = []
        for k in regions:
            if groups and len(self.of([*groups[-1], k])) <= largest:
                groups[-1].append(k)
            else:
                groups.append([k])
        return groups

    def numbers(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many networks of each kind there are in the system."""
        return {kind: len(self.agents) if OWNERS[kind] == "region" else self.count for kind in kinds}
