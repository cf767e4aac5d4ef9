"""How the global ranks share the work of a joint policy: whole blocks of episodes first, then the agents.

The ranks of a group play the same episodes. Each of them advances the same simulator, which costs little
beside the networks, and acts for some of the agents, so that only actions travel. Where a simulator costs
more than the networks, this would save nothing, and each rank plays episodes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dials_mpi.algorithm.collect import blocks, shares
from dials_mpi.config import Config
from dials_mpi.domains.base import Domain

NOTHING = range(0)


class Division:
    """The groups of so many global ranks.

    groups: consecutive ranks each. With more ranks in a group than agents, the last ones have no work.
    """

    def __init__(self, config: Config, domain: Domain, ranks: int) -> None:
        self.domain, self.ranks = domain, ranks
        number = ranks if domain.side_by_side is not None else min(ranks, _fewest_blocks(config, domain))
        bounds = [ranks * k // number for k in range(number + 1)]
        most = len(domain.agents)
        self.groups = [range(first, min(last, first + most)) for first, last in pairwise(bounds)]

    def group(self, rank: int) -> range:
        """The ranks that play the same episodes as this one; none if it has no work."""
        return next((group for group in self.groups if rank in group), NOTHING)

    def of_groups(self, episodes: int) -> list[slice]:
        """Of so many episodes those that each group plays."""
        return shares(self.domain, episodes, len(self.groups))

    def played(self, episodes: int) -> list[slice]:
        """Of so many episodes those that each rank plays, as all ranks of its group do."""
        found = [slice(0, 0)] * self.ranks
        for group, share in zip(self.groups, self.of_groups(episodes), strict=True):
            found[group.start : group.stop] = [share] * len(group)
        return found

    def recorded(self, played: Sequence[slice]) -> list[slice]:
        """Of the episodes that each rank plays those that it records: the first of a group does so for all.

        played: of each rank, maybe a part of ``played``.
        """
        firsts = {group.start for group in self.groups}
        return [share if rank in firsts else slice(0, 0) for rank, share in enumerate(played)]

    def part(self, rank: int, owners: int) -> range:
        """The numbers of the agents, or the regions, whose networks a rank computes, of so many in all."""
        group = self.group(rank)
        if not group:
            return NOTHING
        member = rank - group.start
        return range(owners * member // len(group), owners * (member + 1) // len(group))


def _fewest_blocks(config: Config, domain: Domain) -> int:
    """So many groups all have episodes, whether they evaluate or collect."""
    numbers = [config.evaluation_episodes]
    if config.mode == "dials":
        numbers.append(config.dataset_episodes)
    return min(len(blocks(domain, number)) for number in numbers)
