"""A collection (Algorithm 2) on all ranks: the global ranks play it in chunks of episodes.

Each chunk is sent to the ranks that hold the regions, and written to the dataset file, before the next one is
played: a global rank never holds more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest

import numpy as np

from dials_mpi.algorithm.collect import Trajectories, chunks, collect, play
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.failures import Attempts
from dials_mpi.algorithm.joint import JointPolicy, TrainedPolicies
from dials_mpi.config import Config
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains.base import Domain, GlobalSimulator
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import REGION, Layout
from dials_mpi.run.datasets import DatasetStore, Refit
from dials_mpi.run.global_ranks import GlobalRank

Shares = Sequence[slice]
"""Episodes that each global rank plays; see ``Division.recorded`` for those that it records."""

Write = Callable[[Trajectories], None]


class Collection:
    """One rank's part of the collections of a run. All ranks call its methods, in the same order."""

    def __init__(
        self,
        config: Config,
        domain: Domain,
        comm: Communicator,
        layout: Layout,
        watch: Stopwatch,
        global_rank: GlobalRank,
        store: DatasetStore,
        exchange: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """exchange: within it the ranks exchange data; it waits for all of them."""
        self.config, self.domain, self.comm, self.layout = config, domain, comm, layout
        self.watch, self.global_rank, self.store = watch, global_rank, store
        self._exchange = exchange
        self.division = global_rank.division
        self.played: Shares = self.division.played(config.dataset_episodes)
        self.is_ahead = False
        self._ahead: Trajectories | None = None

    def play_ahead(self, segment: int) -> None:
        """Play all episodes for the refit before a segment now; ``datasets`` then sends them."""
        self.is_ahead, self._ahead = True, self.record(segment, self.played)

    def datasets(self, refit: Refit) -> dict[int, Dataset]:
        """The datasets of this rank's regions for a refit."""
        taken = {
            k: Dataset.empty(self.domain.regions[k], self.config.dataset_episodes, self.domain.horizon)
            for k in self.layout.regions
        }
        if self.config.datasets_from and refit.segment == 0:
            self._send(self.store.kept() if self.layout.is_global else None, taken, self.played)
            return taken
        with self.store.writing(refit) as write:
            for part in [self.played] if self.is_ahead else self._chunks():
                self._pass_on(refit.segment, part, taken, write)
        return taken

    def record(self, segment: int, part: Shares) -> Trajectories | None:
        """Algorithm 2 on a global rank: the episodes of a chunk that this rank records, maybe none."""
        if not self.layout.is_global:
            return None
        own, rank = self.global_rank, self.comm.rank
        simulators, actions = (
            Attempts(streams(self.config.seed, purpose, range(part[rank].start, part[rank].stop), segment))
            for purpose in (Purpose.COLLECT, Purpose.COLLECT_ACTIONS)
        )

        def acting(_: GlobalSimulator, episodes: slice) -> JointPolicy:
            return TrainedPolicies(own.policies, actions[episodes], own.partners)

        with_acts = self.config.datasets != "none"
        with self.watch("collect"):
            if self.division.recorded(part)[rank] == part[rank]:
                return collect(self.domain, simulators, acting, own.playing, with_acts)
            play(self.domain, simulators, acting, own.playing)
        return Trajectories.empty(self.domain, with_acts)

    def _chunks(self) -> Iterator[Shares]:
        """The episodes of each global rank in each chunk; some of them may have fewer chunks."""
        every = [chunks(self.domain, share, self.config.collect_chunk) for share in self.played]
        return map(list, zip_longest(*every, fillvalue=slice(0, 0)))

    def _pass_on(self, segment: int, part: Shares, taken: Mapping[int, Dataset], write: Write) -> None:
        """Play one chunk, or take what was played ahead; send and write it. Afterwards its memory is free."""
        played, self._ahead = self._ahead if self.is_ahead else self.record(segment, part), None
        self.is_ahead = False
        given = {k: dataset.stored for k, dataset in enumerate(played.datasets)} if played else None
        self._send(given, taken, part)
        if played:
            with self.watch("collect"):
                write(played)

    def _send(
        self,
        given: Mapping[int, Sequence[np.ndarray]] | None,
        taken: Mapping[int, Dataset],
        part: Shares,
    ) -> None:
        with self._exchange():
            room = {k: dataset.stored for k, dataset in taken.items()}
            self.comm.scatter(given, room, self.layout.owned[REGION], self.division.recorded(part))
