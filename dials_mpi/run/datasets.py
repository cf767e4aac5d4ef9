"""The datasets of a run: written after a collection, or read from another run instead of the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dials_mpi.algorithm.collect import Trajectories
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.core.errors import BadInput
from dials_mpi.core.provenance import versions
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Drawable
from dials_mpi.domains.decisions import decision_steps

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Domain
    from dials_mpi.storage.datasets import DatasetFile, RegionNames


class Refit(NamedTuple):
    """A refit: the segment that follows it, the steps per agent then, and those of the joint policy that
    plays for it."""

    segment: int
    env_steps: int
    policy_env_steps: int


class Kept(Mapping[int, Sequence[np.ndarray]]):
    """Some episodes of all regions in a dataset file, as ``Dataset.stored``; each region is read when it is
    asked for."""

    def __init__(self, file: DatasetFile, episodes: slice) -> None:
        self._file, self._episodes = file, episodes

    def __getitem__(self, k: int) -> Sequence[np.ndarray]:
        region = self._file.region(k)
        return Dataset(region.inputs[self._episodes], region.sources[self._episodes]).stored

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._file.regions))

    def __len__(self) -> int:
        return self._file.regions


class DatasetStore:
    """Reads and writes one global rank's part of the files in ``DIR/datasets``.

    shares: the episodes of a collection that each global rank plays. h5py is imported at the first call.
    """

    def __init__(
        self, config: Config, domain: Domain, directory: Path, rank: int, shares: Sequence[slice]
    ) -> None:
        self.config, self.domain, self.directory, self.rank = config, domain, directory, rank
        self.share = shares[rank] if rank < len(shares) else slice(0, 0)
        self.writers = [other for other, share in enumerate(shares) if share.stop > share.start]
        self._attributes: dict[str, Any] | None = None  # of what was written last

    def kept(self) -> Kept:
        """This rank's share of the datasets in ``datasets_from``."""
        from dials_mpi.storage.datasets import choose

        return Kept(choose(self.config.datasets_from), self.share)

    @contextmanager
    def writing(self, refit: Refit) -> Iterator[Callable[[Trajectories], None]]:
        """Write this rank's episodes: the whole file if no other rank has any, else a part for ``join``.

        Gives the function that takes some of the episodes after others. On a rank that writes nothing it
        does nothing. Unwritable: it cannot be written.
        """
        self._attributes = None if self.config.datasets == "none" else self._identity(refit)
        if self._attributes is None or self.rank not in self.writers:
            yield lambda played: None
            return
        from dials_mpi.storage import datasets

        path = datasets.path_of(self.directory, refit.env_steps)
        alone = self.writers == [self.rank]
        target = path if alone else datasets.part_of(path, self.rank)
        episodes = self.share.stop - self.share.start
        with datasets.writing(target, episodes, self._names(), self._attributes) as write:
            yield lambda played: write(self._regions(played))
        if alone:
            self._remove_older()

    def join(self, env_steps: int) -> None:
        """On root, after all ranks have written their parts, where there are any: write the file that joins
        them."""
        from dials_mpi.storage import datasets

        if self._attributes is None or len(self.writers) == 1:
            return
        path = datasets.path_of(self.directory, env_steps)
        parts = [datasets.part_of(path, rank) for rank in self.writers]
        datasets.join(path, parts, self._attributes)
        self._attributes = None
        self._remove_older()

    def _remove_older(self) -> None:
        from dials_mpi.storage import datasets

        if self.config.datasets == "last":
            datasets.remove_older(self.directory)

    def _regions(self, played: Trajectories) -> Any:
        from dials_mpi.storage.datasets import RegionData

        acts = played.acts
        assert acts is not None
        for region, dataset in zip(self.domain.regions, played.datasets, strict=True):
            agents = list(region.agents)
            inputs, sources = dataset
            yield RegionData(inputs, sources, acts.actions[:, :, agents], acts.rewards[:, :, agents])

    def _names(self) -> list[RegionNames]:
        from dials_mpi.storage.datasets import RegionNames

        drawable = self.domain if isinstance(self.domain, Drawable) else None
        return [
            RegionNames(
                region.agents,
                region.source_classes,
                [source.name for source in drawable.sources(k)] if drawable else (),
            )
            for k, region in enumerate(self.domain.regions)
        ]

    def _identity(self, refit: Refit) -> dict[str, Any]:
        ours = {name: versions()[name] for name in ("creator", "git_commit")}
        steps = {**refit._asdict(), "decision_every": decision_steps(self.domain)}
        return {**ours, **steps, "domain": self.config.domain, "seed": self.config.seed}


def require_fitting(config: Config, domain: Domain) -> None:
    """BadInput: the datasets in ``datasets_from`` do not fit this configuration's first refit."""
    from dials_mpi.storage.datasets import choose

    if not config.datasets_from:
        return
    file = choose(config.datasets_from)
    where = f"datasets_from={printable(config.datasets_from)}"
    if file.regions != len(domain.regions):
        raise BadInput(
            f"{where} has {file.regions} regions and this system has {len(domain.regions)}: give datasets of "
            "the same system"
        )
    for k, region in enumerate(domain.regions):
        shapes, classes = file.shapes(k), file.classes(k)
        episodes, horizon, inputs = shapes["inputs"]
        if (horizon, inputs, classes) != (domain.horizon, region.input_size, region.source_classes):
            raise BadInput(
                f"{where} has other regions (region {k}: episodes of {horizon} steps, {inputs} inputs, "
                f"classes {list(classes)}; this system: {domain.horizon}, {region.input_size}, "
                f"{list(region.source_classes)}): give datasets of the same system"
            )
        _require_episodes(where, episodes, config, horizon, file)


def _require_episodes(where: str, episodes: int, config: Config, horizon: int, file: DatasetFile) -> None:
    if episodes != config.dataset_episodes:
        raise BadInput(
            f"{where} has {episodes} episodes of {horizon} steps ({printable(file.path.name)}): set "
            f"dataset_size={episodes * horizon}"
        )


def remove_unfinished(directory: Path) -> None:
    """Remove temporary files and incomplete datasets of an ended session from ``DIR/datasets``."""
    from dials_mpi.storage.datasets import FOLDER, remove_parts_without_file
    from dials_mpi.storage.files import remove_temporary_files

    remove_temporary_files(directory / FOLDER)
    remove_parts_without_file(directory)
