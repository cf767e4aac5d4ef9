"""Checkpoints, ``DIR/checkpoint-<env_steps>.h5``: all that a run needs to go on from a segment's end.

docs/checkpoint.md describes the format. A file is written region by region, so that no rank ever holds
more than one region's state beside its own, and is whole or not there.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.storage.checksum import require_checksum
from dials_mpi.storage.files import free_name
from dials_mpi.storage.hdf5 import (
    float32,
    network_tables,
    reading,
    require_float32,
    require_version,
    rewriting,
    text_of,
)
from dials_mpi.storage.position import Position

FORMAT_VERSION = 2
DAMAGED = ".damaged"
FOREVER = 1e12
"""Seconds that no run takes."""
Layouts = Mapping[str, Mapping[str, int]]
"""Of each kind of state, such as ``policy``: its datasets and their widths (``states.layouts``)."""
_ATTRIBUTES = [entry.name for entry in fields(Position) if entry.name != "unrecorded"]
_NAME = re.compile(r"checkpoint-(\d+)\.h5")


class Checkpoint:
    """A checkpoint that is there, to read."""

    def __init__(self, path: Path, trusted: bool = False, unchecked: bool = False) -> None:
        """BadInput: it is no checkpoint, or a damaged or changed one, or of a newer format.

        trusted: this process has written or checked it, and need not read all of it for its checksum.
        unchecked: another program may have changed it.
        """
        self.path = path
        if not trusted:
            require_checksum(path, "a checkpoint", unchecked)
        with self._read() as file:
            require_version(file, FORMAT_VERSION, path, "go on")
            values = {name: file.attrs[name] for name in _ATTRIBUTES}
            for name in ("lengths", "seconds"):
                values[name] = json.loads(values[name])
            values = {name: _plain(value) for name, value in values.items()}
            unrecorded = file["unrecorded"][()].tolist() if "unrecorded" in file else []
            self.position = Position(**values, unrecorded=unrecorded)
            _require_position(self.position)
            self.configuration = text_of(file["config"])
            self.digest = str(file.attrs["config_digest"])

    def verify(self, layouts: Layouts, numbers: Mapping[str, int]) -> None:
        """BadInput: the states are not there as ``layouts`` says; numbers: how many of each kind."""
        with self._read() as file:
            for kind, layout in layouts.items():
                for name, width in layout.items():
                    require_float32(file, name, (numbers[kind], width))

    def rows(self, layouts: Layouts, groups: Iterable[Iterable[tuple[str, int]]]) -> Iterator[np.ndarray]:
        """One row for each group of states, end to end, each as ``writing`` was given it.

        groups: kind and number of each of its states.
        """
        with self._read() as file:
            for group in groups:
                yield np.concatenate([file[name][i] for kind, i in group for name in layouts[kind]])

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A whole dataset. BadInput: it is not float32 of this shape."""
        with self._read() as file:
            return float32(file, name, shape)

    def _read(self) -> Any:
        return reading(self.path, "a checkpoint")


@contextmanager
def writing(
    directory: Path,
    position: Position,
    configuration: tuple[str, str],
    attributes: Mapping[str, Any],
    layouts: Layouts,
    numbers: Mapping[str, int],
    tables: Mapping[str, Sequence[Any]],
) -> Iterator[Callable[[str, int, np.ndarray], None]]:
    """A new checkpoint: gives the function that takes each state's kind, number and row.

    configuration: YAML and digest. layouts: of each kind the datasets and their widths, which make up a row
    in this order; numbers: how many states of each. tables: of each kind of network, one per owner.
    Unwritable: the disk takes no more.
    """
    with rewriting(directory / f"checkpoint-{position.env_steps}.h5", begin_empty=True) as file:
        values = {name: value for name, value in asdict(position).items() if name in _ATTRIBUTES}
        for name in ("lengths", "seconds"):
            values[name] = json.dumps(values[name], sort_keys=True)
        text, digest = configuration
        file.attrs.update({**attributes, **values, "format_version": FORMAT_VERSION, "config_digest": digest})
        file["config"] = text
        file["unrecorded"] = np.array(position.unrecorded, float)
        for kind, own in tables.items():
            for name, value in network_tables(kind, own).items():
                file[name] = value
        datasets = {
            name: file.create_dataset(name, (numbers[kind], width), np.float32)
            for kind, layout in layouts.items()
            for name, width in layout.items()
        }

        def put(kind: str, number: int, row: np.ndarray) -> None:
            start = 0
            for name, width in layouts[kind].items():
                datasets[name][number] = row[start : start + width]
                start += width

        yield put


def present(directory: Path) -> list[Path]:
    """The checkpoints in a directory, newest first."""
    try:
        names = os.listdir(directory)
    except (OSError, ValueError):  # there is no such directory, or can be none
        return []
    found = ((_NAME.fullmatch(name), directory / name) for name in names)
    return [path for _, path in sorted(((int(m[1]), path) for m, path in found if m), reverse=True)]


def best(
    directory: Path, mean_return: Callable[[int], float], trusted: bool = False, unchecked: bool = False
) -> Path | None:
    """The checkpoint with the highest mean return; None where no readable one has any.

    mean_return: by env_steps, of the run's evaluations (a checkpoint may be older than its own); NaN is none.
    """
    returns = {}
    for path in present(directory):
        try:
            returns[path] = mean_return(Checkpoint(path, trusted, unchecked).position.env_steps)
        except BadInput:
            continue
    known = {path: value for path, value in returns.items() if not math.isnan(value)}
    return max(known, key=known.__getitem__) if known else None


def prune(directory: Path, keep: int, mean_return: Callable[[int], float]) -> None:
    """Remove all checkpoints but the newest ``keep`` and the best; mean_return as for ``best``."""
    spared = {*present(directory)[:keep], best(directory, mean_return, trusted=True)}
    for path in present(directory):
        if path not in spared:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither used nor counted; its new name."""
    return path.rename(free_name(path, DAMAGED))


def _require_position(position: Position) -> None:
    """ValueError: there is a value that no checkpoint has."""
    counts = (position.segments, position.env_steps, position.ranks, *position.lengths.values())
    numbers = (position.wall_time, *position.seconds.values(), *chain.from_iterable(position.unrecorded))
    if not (
        all(type(count) is int and count >= 0 for count in counts)
        and all(type(number) in (int, float) and 0 <= number < FOREVER for number in numbers)
    ):
        raise ValueError("its position is none")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
