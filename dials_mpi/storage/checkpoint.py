"""Checkpoints, ``DIR/checkpoint-<env_steps>.h5``: what a run needs to continue from the end of a segment.

docs/checkpoint.md describes the format. A file holds a progress record, the configuration, and datasets with
one row per owner (an agent, a region, a rank), which are written and read row by row. It is whole or absent.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.core.errors import BadInput
from dials_mpi.storage import dimensions
from dials_mpi.storage.checksum import require_checksum
from dials_mpi.storage.files import free_name
from dials_mpi.storage.hdf5 import (
    float32,
    network_tables,
    reading,
    require_version,
    rewriting,
    text_of,
)
from dials_mpi.storage.progress import Progress

FORMAT_VERSION = 3
DAMAGED = ".damaged"
_ATTRIBUTES = [entry.name for entry in fields(Progress)]
_JSON = ("lengths", "seconds")
_NAME = re.compile(r"checkpoint-(\d+)\.h5")


@dataclass(frozen=True)
class Rows:
    """A dataset [count, width] of a checkpoint; count None: any number of rows."""

    name: str
    count: int | None
    width: int
    dtype: DTypeLike = np.float32

    def require(self, file: h5py.File) -> None:
        """ValueError: the dataset has another type or shape. KeyError: it is missing."""
        found = file[self.name]
        if isinstance(found, h5py.Dataset) and found.dtype == self.dtype and found.ndim == 2:
            count, width = found.shape
            if width == self.width and self.count in (None, count):
                return
        count_text = "*" if self.count is None else self.count
        raise ValueError(f"{self.name} is not {np.dtype(self.dtype)} [{count_text}, {self.width}]")


class Checkpoint:
    """A checkpoint on disk, to read.

    progress: its progress record. configuration: YAML. digest: of the configuration.
    """

    def __init__(self, path: Path, trusted: bool = False, unchecked: bool = False) -> None:
        """trusted: this process has written or verified the file, and need not read it for its checksum.
        unchecked: another program may have changed it.

        BadInput: it is not a checkpoint, or damaged or changed, or of a newer format.
        """
        self.path = path
        if not trusted:
            require_checksum(path, "a checkpoint", unchecked)
        with self._read() as file:
            require_version(file, FORMAT_VERSION, path, "continue")
            values = {name: file.attrs[name] for name in _ATTRIBUTES}
            values |= {name: json.loads(values[name]) for name in _JSON}
            self.progress = Progress(**{name: _plain(value) for name, value in values.items()})
            self.progress.require_valid()
            self.configuration = text_of(file["config"])
            self.digest = str(file.attrs["config_digest"])

    def has(self, name: str) -> bool:
        """Whether there is a dataset or group of this name."""
        with self._read() as file:
            return name in file

    def verify(self, datasets: Iterable[Rows]) -> None:
        """BadInput: one of the datasets is missing, or has another type or shape."""
        with self._read() as file:
            for rows in datasets:
                rows.require(file)

    @contextmanager
    def rows(self) -> Iterator[Callable[[str, int], np.ndarray]]:
        """Open the file; gives the function that reads a row, by the dataset's name and the row's number."""
        with self._read() as file:
            yield lambda name, number: file[name][number]

    def whole(self, name: str) -> np.ndarray:
        """A whole dataset, of any shape. BadInput: it cannot be read."""
        with self._read() as file:
            return file[name][()]

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A whole dataset. BadInput: it is not float32 of this shape."""
        with self._read() as file:
            return float32(file, name, shape)

    def _read(self) -> Any:
        return reading(self.path, "a checkpoint")


@contextmanager
def writing(
    directory: Path,
    progress: Progress,
    configuration: tuple[str, str],
    attributes: Mapping[str, Any],
    datasets: Iterable[Rows],
    tables: Mapping[str, Sequence[Any]],
) -> Iterator[Callable[[str, int, np.ndarray], None]]:
    """Write a new checkpoint; gives the function that takes a dataset's name, a row's number and the row.

    configuration: YAML and digest. tables: of each kind of network, one per owner (``learning.tables``).
    Unwritable: the disk is full or fails.
    """
    with rewriting(directory / f"checkpoint-{progress.env_steps}.h5", begin_empty=True) as file:
        values = asdict(progress)
        values |= {name: json.dumps(values[name], sort_keys=True) for name in _JSON}
        text, digest = configuration
        file.attrs.update({**attributes, **values, "format_version": FORMAT_VERSION, "config_digest": digest})
        file["config"] = text
        for kind, own in tables.items():
            for name, value in network_tables(kind, own).items():
                file[name] = value
        opened = {
            rows.name: file.create_dataset(rows.name, (rows.count or 0, rows.width), rows.dtype)
            for rows in datasets
        }

        def put(name: str, number: int, row: np.ndarray) -> None:
            opened[name][number] = row

        yield put
        dimensions.label(file)


def present(directory: Path) -> list[Path]:
    """The checkpoints in a directory, newest first."""
    try:
        names = os.listdir(directory)
    except (OSError, ValueError):  # no such directory, or not a possible path
        return []
    found = ((_NAME.fullmatch(name), directory / name) for name in names)
    return [path for _, path in sorted(((int(m[1]), path) for m, path in found if m), reverse=True)]


def best(
    directory: Path, mean_return: Callable[[int], float], trusted: bool = False, unchecked: bool = False
) -> Path | None:
    """The checkpoint with the highest mean return; None where no readable one has a known return.

    mean_return: of the run's evaluation at so many env_steps, NaN where unknown. trusted,
    unchecked: as of ``Checkpoint``.
    """
    returns = {}
    for path in present(directory):
        try:
            returns[path] = mean_return(Checkpoint(path, trusted, unchecked).progress.env_steps)
        except BadInput:
            continue
    known = {path: value for path, value in returns.items() if not math.isnan(value)}
    return max(known, key=known.__getitem__) if known else None


def prune(directory: Path, keep: int, mean_return: Callable[[int], float]) -> None:
    """Remove all checkpoints but the newest ``keep`` and the best; mean_return as of ``best``."""
    spared = {*present(directory)[:keep], best(directory, mean_return, trusted=True)}
    for path in present(directory):
        if path not in spared:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither used nor counted; returns its new path."""
    return path.rename(free_name(path, DAMAGED))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
