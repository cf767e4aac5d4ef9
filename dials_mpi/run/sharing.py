"""Policies that agents share: which runs can train them, and the exchange of gradients between ranks."""

from __future__ import annotations

import numpy as np

from dials_mpi.algorithm.learners import groups_of
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains.base import Domain, Limited
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import REGION, Layout, Owned


class GradientExchange:
    """The exchange (learning/sharing.py) among the ranks that hold regions. All ranks of the run make it.

    The time until all have reached a minibatch's exchange counts as waiting, and the rest as communication.
    """

    def __init__(self, comm: Communicator, regions: Owned, watch: Stopwatch) -> None:
        """regions: of each rank."""
        self._group = comm.group([rank for rank, held in enumerate(regions) if held])
        self._watch = watch

    def maximum(self, numbers: np.ndarray) -> None:
        """See ``Exchange``."""
        with self._watch("wait"):
            self._group.maximum(numbers)

    def total(self, numbers: np.ndarray) -> None:
        """See ``Exchange``."""
        with self._watch("communicate"):
            self._group.total(numbers)


def require_simulators(config: Config, domain: Domain, size: int) -> None:
    """BadInput: agents share policies, and one of the ranks would need several simulators at a time, which a
    process cannot have. size: number of ranks."""
    limit = domain.only_one if config.shared and isinstance(domain, Limited) else None
    if not limit or _simulators(config, domain, size) <= 1:
        return
    least, most = max(size, config.global_ranks) + 1, len(domain.regions) + config.global_ranks
    enough = next(n for n in range(least, most + 1) if _simulators(config, domain, n) <= 1)
    otherwise = f", or set {limit.otherwise}" if limit.otherwise else ""
    raise BadInput(
        f"policy.share is {config.policy.share}, which trains all regions of a rank at a time, and with "
        f"mpirun -n {size} a rank would need more than the one simulator that a process can have: use "
        f"mpirun -n {enough}{otherwise}"
    )


def _simulators(config: Config, domain: Domain, size: int) -> int:
    """The largest number of simulators that a rank trains in, on so many ranks."""
    agents = [region.agents for region in domain.regions]
    layout = Layout(0, size, agents, config.mode == "global", config.global_ranks)
    return max(len(groups_of(config, domain, list(held))) for held in layout.owned[REGION])
