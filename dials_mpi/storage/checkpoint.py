"""Checkpoints, ``DIR/checkpoint-<env_steps>.h5``: what a run needs to continue from the end of a segment.

docs/checkpoint.md describes the format. A file holds a progress record, the configuration, and datasets with
one row per owner (an agent, a region, a rank), which are written and read row by row. It is whole or absent.
If several ranks write, each writes the rows of some owners to a part, and the file refers to all parts
(virtual datasets of HDF5); without the file they are not a checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import DTypeLike

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable
from dials_mpi.storage import dimensions
from dials_mpi.storage.checksum import InUse, damaged, recorded_checksum, require_checksum
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

FORMAT_VERSION = 4
ONE_FILE = 3
"""The version of a checkpoint without parts."""
WHAT = "a checkpoint"
DAMAGED = ".damaged"
_ATTRIBUTES = [entry.name for entry in fields(Progress)]
_JSON = ("lengths", "seconds")
_NAME = re.compile(r"checkpoint-(\d+)\.h5")
_PART = re.compile(r"(checkpoint-\d+)-part\d+\.h5")


class Part(NamedTuple):
    """A part of a checkpoint. numbers: of the owners whose rows it holds, by dataset."""

    path: Path
    numbers: Mapping[str, Sequence[int]]


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
            require_checksum(path, WHAT, unchecked)
        with self._read() as file:
            require_version(file, FORMAT_VERSION, path, "continue")
            parts = json.loads(file.attrs.get("parts", "{}"))
            values = {name: file.attrs[name] for name in _ATTRIBUTES}
            values |= {name: json.loads(values[name]) for name in _JSON}
            self.progress = Progress(**{name: _plain(value) for name, value in values.items()})
            self.progress.require_valid()
            self.configuration = text_of(file["config"])
            self.digest = str(file.attrs["config_digest"])
        for name, checksum in {} if trusted else parts.items():
            _require_part(path.with_name(name), checksum, unchecked)

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

    @contextmanager
    def _read(self) -> Iterator[h5py.File]:
        with reading(self.path, WHAT) as file:
            if file.driver == "fileobj" and "parts" in file.attrs:  # from there HDF5 does not find the parts
                raise InUse(f"{printable(str(self.path))} is open in another program: close it there")
            yield file


Put = Callable[[str, int, np.ndarray], None]
"""Takes a dataset's name, a row's number and the row."""


@contextmanager
def writing(
    directory: Path,
    progress: Progress,
    configuration: tuple[str, str],
    attributes: Mapping[str, Any],
    datasets: Iterable[Rows],
    tables: Mapping[str, Sequence[Any]],
    parts: Sequence[Part] = (),
) -> Iterator[Put]:
    """Write a new checkpoint; gives the function that takes the rows, of which there are none if there are
    parts, which are complete.

    configuration: YAML and digest. tables: of each kind of network, one per owner (``learning.tables``).
    Unwritable: the disk is full or fails, or a part is missing.
    """
    checksums = {part.path.name: _checksum_of(part.path) for part in parts}
    with rewriting(path_of(directory, progress.env_steps), begin_empty=True) as file:
        values = asdict(progress)
        values |= {name: json.dumps(values[name], sort_keys=True) for name in _JSON}
        text, digest = configuration
        version = FORMAT_VERSION if parts else ONE_FILE
        file.attrs.update({**attributes, **values, "format_version": version, "config_digest": digest})
        if parts:
            file.attrs["parts"] = json.dumps(checksums)
        file["config"] = text
        for kind, own in tables.items():
            for name, value in network_tables(kind, own).items():
                file[name] = value
        if parts:
            for rows in datasets:
                _refer(file, rows, parts)
        yield _putting({} if parts else _empty(file, datasets))
        dimensions.label(file)


@contextmanager
def writing_part(part: Part, datasets: Iterable[Rows]) -> Iterator[Put]:
    """Write a part of a checkpoint with these datasets, as ``writing``; rows have the numbers of their
    owners."""
    places = {name: {number: i for i, number in enumerate(own)} for name, own in part.numbers.items()}
    with rewriting(part.path, begin_empty=True) as file:
        own = [replace(rows, count=len(places[rows.name])) for rows in datasets]
        put = _putting(_empty(file, own))
        yield lambda name, number, row: put(name, places[name][number], row)


def path_of(directory: Path, env_steps: int) -> Path:
    """The path of the checkpoint at so many steps per agent."""
    return directory / f"checkpoint-{env_steps}.h5"


def part_of(path: Path, number: int) -> Path:
    """The path of a part of a checkpoint."""
    return path.with_name(f"{path.stem}-part{number}.h5")


def files_of(path: Path) -> list[Path]:
    """A checkpoint's file, and its parts, if it has some."""
    return [path, *sorted(path.parent.glob(f"{path.stem}-part*.h5"))]


def _empty(file: h5py.File, datasets: Iterable[Rows]) -> dict[str, h5py.Dataset]:
    return {
        rows.name: file.create_dataset(rows.name, (rows.count or 0, rows.width), rows.dtype)
        for rows in datasets
    }


def _putting(opened: Mapping[str, h5py.Dataset]) -> Put:
    def put(name: str, number: int, row: np.ndarray) -> None:
        opened[name][number] = row

    return put


def _refer(file: h5py.File, rows: Rows, parts: Sequence[Part]) -> None:
    """A virtual dataset with the rows of all parts, whose names are relative to the file's folder."""
    layout = h5py.VirtualLayout((rows.count or 0, rows.width), rows.dtype)
    for part in parts:
        numbers = part.numbers[rows.name]
        source = h5py.VirtualSource(part.path.name, rows.name, (len(numbers), rows.width), rows.dtype)
        for first, last in _runs(numbers):
            layout[numbers[first] : numbers[first] + last - first] = source[first:last]
    file.create_virtual_dataset(rows.name, layout)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where runs of consecutive numbers begin and end."""
    ends = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    return pairwise([0, *ends, len(numbers)] if numbers else [])


def _checksum_of(part: Path) -> str:
    """The checksum of a part. Unwritable: it is not there."""
    try:
        return recorded_checksum(part)
    except OSError as error:
        raise Unwritable(
            f"{printable(str(part))}, which another rank has written, is not there ({error.strerror}): put "
            "the run's directory on a disk that all ranks share, or set checkpoint_writers=1; then continue "
            f"with {option('resume')}"
        ) from error


def _require_part(part: Path, checksum: str, unchecked: bool) -> None:
    """BadInput: the part is missing, damaged or another one than the checkpoint was written with."""
    changed = require_checksum(part, "a part of a checkpoint", unchecked)
    if not changed and recorded_checksum(part) != checksum:
        raise damaged(part, "a part of its checkpoint", "it belongs to another one")


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
            for file in files_of(path):
                file.unlink(missing_ok=True)


def remove_parts_without_checkpoint(directory: Path) -> None:
    """Remove parts of a checkpoint that was not completed because the run was ended."""
    complete = {path.stem for path in present(directory)}
    for part in sorted(directory.glob("checkpoint-*-part*.h5")):
        found = _PART.fullmatch(part.name)
        if found and found[1] not in complete:
            part.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither used nor counted; returns its new path."""
    renamed = [file.rename(free_name(file, DAMAGED)) for file in files_of(path)]
    return renamed[0]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
