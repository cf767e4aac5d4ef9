"""Checkpoints, ``DIR/checkpoint-<env_steps>.h5``: all that a run needs to go on from a segment's end.

docs/checkpoint.md describes the format. A file is written region by region, so that no rank ever holds
more than one region's state beside its own, and is whole or not there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dials_mpi.errors import BadInput
from dials_mpi.position import Position
from dials_mpi.storage.hdf5 import network_tables, reading, rewriting

FORMAT_VERSION = 1
DAMAGED = ".damaged"
_NAME = re.compile(r"checkpoint-(\d+)\.h5")


class Checkpoint:
    """A checkpoint that is there, to read."""

    def __init__(self, path: Path) -> None:
        """BadInput: it is no checkpoint, or a damaged one, or of a newer format."""
        self.path = path
        with self._read() as file:
            version = int(file.attrs["format_version"])
            if version > FORMAT_VERSION:
                raise ValueError(f"format version {version}, newer than {FORMAT_VERSION}")
            values = {entry.name: file.attrs[entry.name] for entry in fields(Position)}
            for name in ("lengths", "seconds"):
                values[name] = json.loads(values[name])
            self.position = Position(**{name: _plain(value) for name, value in values.items()})
            self.configuration: str = file["config"].asstr()[()]
            self.digest = str(file.attrs["config_digest"])

    def verify(self, layout: Mapping[str, int], regions: int) -> None:
        """Read all of it once. BadInput: something is missing, of a wrong shape, or its checksum is wrong."""
        with self._read() as file:
            for name, width in layout.items():
                if file[name].shape != (regions, width) or file[name].dtype != np.float32:
                    raise ValueError(f"{name} is not float32 [{regions}, {width}]")
            for _ in self._rows(file, layout, regions):
                pass

    def rows(self, layout: Mapping[str, int], regions: int) -> Iterator[np.ndarray]:
        """The state of one region after another, as ``writing`` was given it."""
        with self._read() as file:
            yield from self._rows(file, layout, regions)

    def read(self, name: str) -> np.ndarray:
        """A whole dataset."""
        with self._read() as file:
            return file[name][()]

    def has(self, name: str) -> bool:
        """Whether the file holds a dataset or group of this name."""
        with self._read() as file:
            return name in file

    @staticmethod
    def _rows(file: h5py.File, layout: Mapping[str, int], regions: int) -> Iterator[np.ndarray]:
        for i in range(regions):
            yield np.concatenate([file[name][i] for name in layout])

    def _read(self) -> Any:
        return reading(self.path, "a checkpoint")


@contextmanager
def writing(
    directory: Path,
    position: Position,
    configuration: tuple[str, str],
    attributes: Mapping[str, Any],
    layout: Mapping[str, int],
    tables: Mapping[str, Sequence[Any]],
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """A new checkpoint: gives the function that takes each region's number and row.

    configuration: YAML and digest. layout: the datasets and their widths, which make up a row in this
    order. tables: of each kind of network, one per region. Unwritable: the disk takes no more.
    """
    regions = len(next(iter(tables.values())))
    with rewriting(directory / f"checkpoint-{position.env_steps}.h5", begin_empty=True) as file:
        values = asdict(position)
        for name in ("lengths", "seconds"):
            # Of fixed length, and so under the checksum of the metadata.
            values[name] = np.bytes_(json.dumps(values[name], sort_keys=True))
        text, digest = configuration
        file.attrs.update({**attributes, **values, "format_version": FORMAT_VERSION, "config_digest": digest})
        file["config"] = text
        for kind, own in tables.items():
            for name, value in network_tables(kind, own).items():
                file[name] = value
        datasets = {
            name: file.create_dataset(name, (regions, width), np.float32, chunks=(1, width), fletcher32=True)
            for name, width in layout.items()
        }

        def put(region: int, row: np.ndarray) -> None:
            start = 0
            for name, width in layout.items():
                datasets[name][region] = row[start : start + width]
                start += width

        yield put


def present(directory: Path) -> list[Path]:
    """The checkpoints in a directory, newest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in directory.glob("checkpoint-*.h5"))
    return [path for _, path in sorted(((int(m[1]), path) for m, path in found if m), reverse=True)]


def best(directory: Path) -> Path | None:
    """The checkpoint with the highest mean return; None where no readable one has any."""
    returns = {}
    for path in present(directory):
        try:
            returns[path] = Checkpoint(path).position.mean_return
        except BadInput:
            continue
    known = {path: value for path, value in returns.items() if not math.isnan(value)}
    return max(known, key=known.__getitem__) if known else None


def prune(directory: Path, keep: int) -> None:
    """Remove all checkpoints but the newest ``keep`` and the best."""
    spared = {*present(directory)[:keep], best(directory)}
    for path in present(directory):
        if path not in spared:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither used nor counted; its new name."""
    return path.rename(path.with_name(path.name + DAMAGED))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
