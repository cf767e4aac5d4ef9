"""What a checkpoint holds: one list of entries, by which it is written, verified and read.

To keep something new in checkpoints, add one entry to ``entries``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.config import Config
from dials_mpi.config.schedule import collects_ahead
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Domain
from dials_mpi.domains.members import OWNERS
from dials_mpi.learning.stored import Stored, stored
from dials_mpi.parallel.layout import AGENT, RANK, REGION, RUN
from dials_mpi.run.costs import WIDTH, UnrecordedCosts, redistribute, valid

if TYPE_CHECKING:
    from dials_mpi.algorithm.learners import Learners
    from dials_mpi.storage.checkpoint import Checkpoint, Rows


@dataclass
class RankState:
    """What the entries of one rank are packed from and unpacked into.

    earlier: the policies [P] of this rank's agents at the start of the segment, while they are needed.
    """

    learners: Learners
    costs: UnrecordedCosts
    earlier: dict[int, np.ndarray] = field(default_factory=dict)


def _always(segments: int) -> bool:
    return True


class Entry(NamedTuple):
    """A dataset of a checkpoint with one row [width] per owner.

    owner: the kind of owner, AGENT, REGION, RANK or RUN. pack: the row of an owner, by its number; it may be
    shorter than ``width`` and is then followed by zeros. unpack: give an owner its row [width] back.
    kept: whether a checkpoint after so many segments holds the entry. optional: checkpoints of older versions
    are without it. valid: whether the values [n, width] can have been written. redistribute: for RANK, the
    rows of the ranks of one session, given to the ranks of the next, whose number comes with them.
    """

    name: str
    owner: str
    width: int
    pack: Callable[[RankState, int], np.ndarray]
    unpack: Callable[[RankState, int, np.ndarray], None]
    dtype: DTypeLike = np.float32
    kept: Callable[[int], bool] = _always
    optional: bool = False
    valid: Callable[[np.ndarray], bool] | None = None
    redistribute: Callable[[np.ndarray, int], np.ndarray] | None = None


def entries(config: Config, domain: Domain) -> list[Entry]:
    """All that checkpoints of a run hold besides the progress record and the configuration."""
    kept = list(stored(config, domain))
    parameters = next(one for one in kept if one.name == "policy/parameters")
    return [
        *map(_learned, kept),
        Entry(
            "earlier_policy/parameters",
            AGENT,
            parameters.width,
            pack=lambda state, i: state.earlier[i],
            unpack=lambda state, i, row: state.earlier.update({i: row.copy()}),
            kept=partial(collects_ahead, config),
        ),
        Entry(
            "unrecorded",
            RANK,
            WIDTH,
            pack=lambda state, _: state.costs.row(),
            unpack=lambda state, _, row: state.costs.restore(row),
            dtype=np.float64,
            optional=True,
            valid=valid,
            redistribute=redistribute,
        ),
    ]


def _learned(one: Stored) -> Entry:
    """A part of a kind of network, of its optimiser or learner."""

    def pack(state: RankState, owner: int) -> np.ndarray:
        return state.learners.state(one.kind, owner)[one.name]

    def unpack(state: RankState, owner: int, row: np.ndarray) -> None:
        state.learners.restore(one.kind, owner, one.part, row)

    return Entry(one.name, OWNERS[one.kind], one.width, pack, unpack, one.dtype)


def datasets(kept: Sequence[Entry], domain: Domain, ranks: int | None) -> list[Rows]:
    """The datasets of some entries; ranks: of the session, None for any number."""
    from dials_mpi.storage.checkpoint import Rows  # loads h5py, which only root needs

    counts = {AGENT: len(domain.agents), REGION: len(domain.regions), RANK: ranks, RUN: 1}
    return [Rows(entry.name, counts[entry.owner], entry.width, entry.dtype) for entry in kept]


def verify(checkpoint: Checkpoint, every: Sequence[Entry], domain: Domain) -> None:
    """BadInput: an entry is missing, or has another type or shape, or values that no run writes."""
    kept = [entry for entry in every if entry.kept(checkpoint.progress.segments)]
    kept = [entry for entry in kept if not entry.optional or checkpoint.has(entry.name)]
    checkpoint.verify(datasets(kept, domain, None))
    for entry in kept:
        if entry.valid and not entry.valid(checkpoint.whole(entry.name)):
            where = printable(str(checkpoint.path))
            raise BadInput(f"{where} is damaged: {entry.name} has values that no run writes")
