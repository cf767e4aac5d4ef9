"""The run directory, the only file that knows h5py. docs/run-file.md describes the format.

Every write opens the file, appends and closes it again, so that it can be read while the run goes on and
a crash in between leaves it whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dials_mpi.errors import BadInput
from dials_mpi.values import printable

FORMAT_VERSION = 1
NAME = "run.h5"
CHUNK_BYTES = 1 << 20

STEPS, SECONDS, REWARD, NATS = (
    {"unit": unit} for unit in ("steps per agent", "s", "reward per episode", "nat per source")
)
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "evaluation/env_steps": STEPS,
    "evaluation/wall_time": SECONDS,
    "evaluation/returns": REWARD,
    "evaluation/cross_entropy": NATS,
    "influence/env_steps": STEPS,
    "influence": NATS,
    "training/env_steps": STEPS,
    "training/episode_return": REWARD,
    "training/entropy": {"unit": "nat"},
    "training/approx_kl": {"unit": "nat"},
    "timing/env_steps": STEPS,
    "events/env_steps": STEPS,
    "timing": {**SECONDS, "columns": ("wall", "CPU")},
    "memory": {"unit": "byte"},
    "reference": REWARD,
}
"""Attributes of the datasets that have a unit, by name, else by group; ``columns`` names the last axis."""


_DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)
"""What h5py raises for files that are not what they should be."""


class RunFile:
    """``DIR/run.h5``: attributes, the configuration, series that grow by one row at a time, arrays."""

    def __init__(
        self, directory: str | os.PathLike[str], statistics: Mapping[str, str] | None = None
    ) -> None:
        """statistics: units of the datasets in ``evaluation_statistics`` and ``reference_statistics``."""
        self.directory = Path(directory)
        self.path = self.directory / NAME
        self._statistics = statistics or {}

    @classmethod
    def create(cls, directory: str, configuration: str, attributes: Mapping[str, Any]) -> RunFile:
        """Begin a run: the directory is made, the file holds the configuration as ``config/0``.

        BadInput: there is a run in the directory already, or it cannot be written.
        """
        run = cls(directory)
        if run._exists():
            raise BadInput(
                f"there is a run in {run.directory} already: choose another directory with --output, "
                "or remove that one"
            )
        try:
            run.directory.mkdir(parents=True, exist_ok=True)
            with h5py.File(run.path, "x", locking=False) as file:
                file.attrs["format_version"] = FORMAT_VERSION
                file.attrs["h5py"] = h5py.__version__
                file.attrs["hdf5"] = h5py.version.hdf5_version
                for name, value in attributes.items():
                    file.attrs[name] = value
                file["config/0"] = configuration
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadInput(
                f"the run directory {printable(str(directory))} cannot be written ({reason}): "
                "choose another one with --output"
            ) from error
        return run

    @classmethod
    def open(cls, directory: str) -> RunFile:
        """A run that exists. BadInput: there is none, or it is not readable, or of a newer format."""
        run = cls(directory)
        if not run._exists():
            where = printable(str(directory))
            raise BadInput(f"there is no {NAME} in {where}: give the directory of a run")
        with run._read() as file:
            version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise BadInput(
                f"{run.path} has format version {version}, and this dials_mpi reads up to "
                f"{FORMAT_VERSION}: read it with a newer one"
            )
        return run

    def append(self, rows: Mapping[str, Any]) -> None:
        """Add one row to each of the named series; a series begins with its first row."""
        with self._change() as file:
            for name, row in rows.items():
                row = np.asarray(row)
                if name not in file:
                    chunk = max(1, min(64, CHUNK_BYTES // max(1, row.nbytes)))
                    shape, most = (0, *row.shape), (None, *row.shape)
                    file.create_dataset(name, shape, row.dtype, maxshape=most, chunks=(chunk, *row.shape))
                    self._describe(file[name])
                series = file[name]
                series.resize(len(series) + 1, axis=0)
                series[-1] = row

    def write(self, arrays: Mapping[str, Any], **attributes: Any) -> None:
        """Set the named arrays; one that is there keeps its shape. Attributes go to the file."""
        with self._change() as file:
            for name, array in arrays.items():
                if name in file:
                    file[name][...] = array
                else:
                    file[name] = array
                    self._describe(file[name])
            file.attrs.update(attributes)

    def write_networks(self, kind: str, parameters: np.ndarray, tables: list[Any]) -> None:
        """Store ``kind/parameters`` [N, P] and each region's table of names and shapes.

        tables: one per region; equal ones are stored once, ``kind/table_of[N]`` says which is whose.
        """
        distinct = list(dict.fromkeys(tables))
        self.write(
            {
                f"{kind}/parameters": parameters,
                f"{kind}/tables": [json.dumps(table) for table in distinct],
                f"{kind}/table_of": [distinct.index(table) for table in tables],
            }
        )

    def read(self, name: str) -> np.ndarray:
        """A whole dataset. BadInput: the run does not hold it (yet)."""
        with self._read() as file:
            if name not in file:
                raise BadInput(f"{self.path} holds no {name}: the run has not come so far")
            return file[name][()]

    def has(self, name: str) -> bool:
        """Whether the file holds a dataset or group of this name."""
        with self._read() as file:
            return name in file

    def attributes(self) -> dict[str, Any]:
        """The attributes of the file."""
        with self._read() as file:
            return dict(file.attrs)

    def configuration(self) -> str:
        """The newest resolved configuration, YAML."""
        with self._read() as file:
            chain = file["config"]
            return chain[max(chain, key=int)].asstr()[()]

    def _describe(self, dataset: h5py.Dataset) -> None:
        """Set the unit and the columns of a new dataset, where it has any."""
        name = dataset.name.lstrip("/")
        group, _, last = name.partition("/")
        if group.endswith("_statistics"):
            dataset.attrs["unit"] = self._statistics[last.rpartition("/")[2]]
        else:
            dataset.attrs.update(DESCRIPTIONS.get(name) or DESCRIPTIONS.get(group, {}))

    def _exists(self) -> bool:
        try:
            return self.path.is_file()
        except (OSError, ValueError):  # a name that no file can have
            return False

    def _change(self) -> h5py.File:
        # Without locking: a reader that holds the file open must not stop the run.
        return h5py.File(self.path, "r+", locking=False)

    @contextmanager
    def _read(self) -> Iterator[h5py.File]:
        # Without locking: the run may have the file open to append.
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                yield file
        except _DAMAGE as error:
            reason = printable(str(error))
            raise BadInput(f"{self.path} is not a run file, or a damaged one: {reason}") from error
