"""What a run keeps of each network and learner between segments: names, widths and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.learning import learner
from dials_mpi.learning.tables import state_widths, tables, widths

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Domain


class Stored(NamedTuple):
    """An array [width] that is kept of each owner.

    kind: "policy", whose owners are agents, or "predictor", of regions. width: of the largest owner's array;
    shorter ones are followed by zeros.
    """

    kind: str
    part: str
    width: int
    dtype: DTypeLike

    @property
    def name(self) -> str:
        """Of its dataset in a checkpoint."""
        return f"{self.kind}/{self.part}"


def stored(config: Config, domain: Domain) -> Iterator[Stored]:
    """All that is kept of the networks, their optimisers and learners. BadInput: as of ``learner.create``."""
    for kind, width in widths(tables(config, domain)).items():
        if kind == "policy" and config.own_learner:
            state = max(learner.sizes(config, agent).state for agent in domain.agents)
            yield Stored(kind, "parameters", width, np.float32)
            if state:
                yield Stored(kind, "learner", state, np.uint8)
        else:
            for part, length in state_widths(width).items():
                yield Stored(kind, part, length, np.float32)
