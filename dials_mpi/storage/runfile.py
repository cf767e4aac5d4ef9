"""The run file, ``DIR/run.h5``: the results of a run so far. docs/run-file.md describes the format.

Changes are buffered until ``commit``, which replaces the file by a changed copy. The file is therefore
complete at any time, also if the process is killed. (A file that is changed in place can be destroyed then.)
The copy takes little time compared with a segment of training: milliseconds per megabyte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.storage import dimensions
from dials_mpi.storage.checksum import require_checksum
from dials_mpi.storage.files import free_name, link_or_copy
from dials_mpi.storage.hdf5 import float32, network_tables, reading, require_version, rewriting, text_of
from dials_mpi.storage.shipped import NAME, located

FORMAT_VERSION = 2
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
    "timing": SECONDS,
    "memory": {"unit": "byte"},
    "reference": REWARD,
}
"""Attributes of the datasets that have a unit, by name, else by group."""


NETWORKS = ("policy", "predictor")
"""Groups of parameters, nearly all of a file's bytes; most archived copies do not have them."""

ARCHIVED = "archived"
"""Attribute of an archived copy."""

FLAGS = ("finished", "references_paired", ARCHIVED)
"""Attributes that are 1 or 0: netCDF does not read HDF5's booleans, which version 1 had."""

CHANGED = ".changed"
"""Ending of the name under which a run file that another program has changed is kept."""

OTHER_TYPES = (h5py.Empty, h5py.Reference, h5py.RegionReference)
"""Types of attributes that only other programs write."""

KEPT_GROUPS = ("memory", "placement", "map")
"""Groups of arrays that ``rebuild`` copies, because a session may not write them again."""

BY_RANK = ("timing", "events")
"""Groups whose rows have one entry per rank; their width is the largest number of ranks of any session."""

NAMED, SEARCHED = 3, 1000
"""Run directories below a folder that a message names, and folders in which they are looked for."""


class Labelled(NamedTuple):
    """A dataset of a run file with the names of its dimensions and its attributes."""

    dimensions: tuple[str, ...]
    values: np.ndarray
    attributes: dict[str, Any]


class RunFile:
    """A run file: attributes, a configuration per session, series that grow by one row at a time, arrays."""

    def __init__(
        self, directory: str | os.PathLike[str], statistics: Mapping[str, str] | None = None
    ) -> None:
        """statistics: units of the datasets in ``evaluation_statistics`` and ``reference_statistics``."""
        self.directory = Path(directory)
        self.path = self.directory / NAME
        self.changed = False
        self._statistics = statistics or {}
        self._changes: list[Callable[[h5py.File], None]] = []
        self._changed_groups: set[str] = set()

    @classmethod
    def open(cls, directory: str | os.PathLike[str], unchecked: bool = False) -> RunFile:
        """An existing run; ``changed`` tells whether another program has changed its file.

        directory: of the run, or the name of one that comes with the package, such as ``trained/warehouse``.
        unchecked: accept such a file. BadInput: there is none, or it is not readable, or has a newer format.
        """
        run = cls(located(directory))
        if not run.exists():
            where = printable(str(directory))
            raise BadInput(f"there is no {NAME} in {where}: {_nearest_runs(run.directory)}")
        run.changed = require_checksum(run.path, "a run file", unchecked)
        with run._read() as file:
            require_version(file, FORMAT_VERSION, run.path, "read it")
        return run

    def exists(self) -> bool:
        """Whether the file exists."""
        try:
            return self.path.is_file()
        except (OSError, ValueError):  # the name is not valid for a file
            return False

    # Writing: only by root.

    def create(self, configuration: str, attributes: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Create the file of a new run, with the attributes and the configuration as ``config/0``.

        session: attributes of that dataset. An existing file is replaced. Unwritable: it cannot be written.
        """
        with _changing(self.path, begin_empty=True) as file:
            file.attrs.update({**_libraries(), **attributes})
            file["config/0"] = configuration
            file["config/0"].attrs.update({**_libraries(), **session})

    def continue_run(
        self,
        configuration: str,
        attributes: Mapping[str, Any],
        session: Mapping[str, Any],
        lengths: Mapping[str, int],
    ) -> None:
        """Start another session; the series keep their first ``lengths`` rows, later ones are recorded again.

        The configuration is added as the newest one, with ``session`` as its attributes.
        """
        with _changing(self.path) as file:
            for name, series in _series(file).items():
                if lengths.get(name):
                    series.resize(lengths[name], axis=0)
                else:
                    dimensions.remove(file, name)
            file.attrs.update(attributes)
            name = f"config/{1 + max(map(int, file['config']))}"
            file[name] = configuration
            file[name].attrs.update({**_libraries(), **session})

    def rebuild(self, lengths: Mapping[str, int]) -> Path:
        """Replace a file that another program has changed; returns the path under which that one is kept.

        The new file has the same attributes, configurations and KEPT_GROUPS, and the first ``lengths`` rows
        of the series.
        """
        with self._read() as file:
            attributes = _simple(file.attrs)
            configurations = {one.name: (text_of(one), _simple(one.attrs)) for one in _sessions(file)}
            series = {name: _first_rows(file[name], rows) for name, rows in lengths.items() if rows}
            for one in _datasets(file):
                if one.name.split("/")[1] in KEPT_GROUPS:
                    series[one.name] = _first_rows(one)
        kept = free_name(self.path, CHANGED)
        link_or_copy(self.path, kept)
        with _changing(self.path, begin_empty=True) as file:
            file.attrs.update({**attributes, "finished": False, **file.attrs})  # the new file has no networks
            for name, (text, described) in configurations.items():
                file[name] = text
                file[name].attrs.update(described)
            for name, (how, described) in series.items():
                file.create_dataset(name, **how).attrs.update(described)
        self.changed = False
        return kept

    def append(self, rows: Mapping[str, Any]) -> None:
        """Add one row to each of the named series, at the next ``commit``."""
        rows = {name: np.array(row) for name, row in rows.items()}
        self._changed_groups.update(map(_group_of, rows))
        self._changes.append(lambda file: self._append(file, rows))

    def write(self, arrays: Mapping[str, Any], **attributes: Any) -> None:
        """Set the named arrays and attributes of the file, at the next ``commit``."""
        self._changed_groups.update(map(_group_of, arrays))
        self._changes.append(lambda file: self._write(file, arrays, attributes))

    def write_session(self, **attributes: Any) -> None:
        """Set attributes of the newest session's configuration, at the next ``commit``."""
        self._changes.append(lambda file: _sessions(file)[-1].attrs.update(attributes))

    def write_networks(self, kind: str, parameters: np.ndarray, tables: list[Any]) -> None:
        """Store ``kind/parameters``, [N, P] or [R, P], and each network's table of names and shapes."""
        self.write({f"{kind}/parameters": parameters, **network_tables(kind, tables)})

    def commit(self) -> None:
        """Write all changes since the last call to the file. Unwritable: it cannot be written."""
        if not self._changes:
            return
        with _changing(self.path, groups=self._changed_groups) as file:
            for change in self._changes:
                change(file)
        self._changes.clear()
        self._changed_groups.clear()

    def archive(self, directory: str | os.PathLike[str], with_networks: bool = False) -> RunFile:
        """Copy the file, compressed, into another directory; returns the copy.

        with_networks: the copy has the policies and predictors, too. Unwritable: it cannot be written.
        """
        copy = RunFile(directory)
        with self._read() as source, _changing(copy.path, begin_empty=True) as target:
            target.attrs.update({**source.attrs, ARCHIVED: True, **target.attrs})
            for dataset in _datasets(source):
                if with_networks or dataset.name.split("/")[1] not in NETWORKS:
                    _copy_packed(dataset, target)
        return copy

    # Reading: by any process, at any time.

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A whole dataset. BadInput: the file does not have it (yet), or it is not float32 of this shape."""
        with self._read() as file:
            if name not in file:
                archived = file.attrs.get(ARCHIVED, False)
                why = "it is a copy without networks" if archived else "the run has not written it yet"
                raise BadInput(f"{printable(str(self.path))} has no {name}: {why}")
            return file[name][()] if shape is None else float32(file, name, shape)

    def labelled(self, *groups: str) -> dict[str, Labelled]:
        """All datasets of some groups, by their names in the group, from one state of the file."""
        found = {}
        with self._read() as file:
            for group in groups:
                for one in _datasets(file[group]) if group in file else ():
                    name = one.name.removeprefix(f"/{group}/")
                    values = one.asstr()[()] if h5py.check_string_dtype(one.dtype) else one[()]
                    attributes = {**dimensions.units_of(one), **_simple(one.attrs)}
                    found[name] = Labelled(dimensions.names_of(one.name, one.ndim), values, attributes)
        return found

    def has(self, name: str) -> bool:
        """Whether the file has a dataset or group of this name."""
        with self._read() as file:
            return name in file

    def attributes(self) -> dict[str, Any]:
        """The attributes of the file."""
        with self._read() as file:
            return dict(file.attrs)

    def finished(self) -> bool:
        """Whether the run is finished."""
        with self._read() as file:
            finished = file.attrs.get("finished", False)
            if not isinstance(finished, bool | np.bool_ | np.int8) or finished not in (0, 1):
                raise ValueError("finished is neither true nor false")
            return bool(finished)

    def archived(self) -> bool:
        """Whether this is an archived copy, which cannot be continued and may have no networks."""
        return bool(self.attributes().get(ARCHIVED, False))

    def configuration(self) -> str:
        """The newest resolved configuration, YAML."""
        with self._read() as file:
            return text_of(_sessions(file)[-1])

    def sessions(self) -> list[tuple[str, int]]:
        """Each session's configuration, YAML, and the steps per agent before it."""
        with self._read() as file:
            return [(text_of(one), int(one.attrs.get("env_steps", 0))) for one in _sessions(file)]

    def session_attributes(self) -> list[dict[str, Any]]:
        """The attributes of each session, texts and numbers, the oldest first."""
        with self._read() as file:
            return [_simple(one.attrs) for one in _sessions(file)]

    def provenance(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The attributes of the newest session and those of all earlier ones: distinct values by name.

        Sessions of older programs may lack some.
        """
        with self._read() as file:
            *earlier, newest = _sessions(file)
            return _distinct_values([newest]), _distinct_values(earlier)

    def ranks(self) -> list[int]:
        """The number of ranks of each session; 0 if it is not recorded."""
        with self._read() as file:
            return [int(one.attrs.get("ranks", 0)) for one in _sessions(file)]

    def trained(self) -> int:
        """Steps per agent at the end of the last segment."""
        return int(self.last_row("training").get("env_steps", 0))

    def lengths(self) -> dict[str, int]:
        """The number of rows of each series."""
        with self._read() as file:
            return {name: len(series) for name, series in _series(file).items()}

    def last_row(self, group: str) -> dict[str, np.ndarray]:
        """The last row of each series in a group; empty if there is no such group."""
        with self._read() as file:
            if group not in file:
                return {}
            rows = {name: file[group][name] for name in file[group]}
            return {k: one[-1] for k, one in rows.items() if not dimensions.is_coordinate(one.name)}

    def mean_return(self, env_steps: int) -> float:
        """The mean return of the evaluation at ``env_steps``; NaN if there is none."""
        with self._read() as file:
            steps = file["evaluation/env_steps"][:] if "evaluation/env_steps" in file else np.empty(0)
            rows = np.flatnonzero(steps == env_steps)
            return float(file["evaluation/returns"][rows[-1]].mean()) if rows.size else float("nan")

    def _append(self, file: h5py.File, rows: Mapping[str, np.ndarray]) -> None:
        before = {name: _rows_before(file, name) for name in rows if name not in file}
        for name, row in rows.items():
            by_rank = row.ndim and name.partition("/")[0] in BY_RANK
            if name in before:
                chunk = max(1, min(64, CHUNK_BYTES // max(1, row.nbytes)))
                file.create_dataset(
                    name,
                    (before[name], *row.shape),  # those before it was recorded are not known
                    row.dtype,
                    maxshape=(None, None, *row.shape[1:]) if by_rank else (None, *row.shape),
                    chunks=(chunk, *row.shape),
                    fillvalue=np.nan if row.dtype.kind == "f" else 0,
                )
                self._describe(file[name])
            series = file[name]
            series.resize(len(series) + 1, axis=0)
            if by_rank and len(row) != series.shape[1]:
                series.resize(max(len(row), series.shape[1]), axis=1)
                series[-1, : len(row)] = row
            else:
                series[-1] = row

    def _write(self, file: h5py.File, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            if name in file and file[name].shape == np.shape(array):
                file[name][...] = array
                continue
            if name in file:
                dimensions.remove(file, name)
            file[name] = array
            self._describe(file[name])
        file.attrs.update(attributes)

    def _describe(self, dataset: h5py.Dataset) -> None:
        """Set the unit of a new dataset, if it has one."""
        name = dataset.name.lstrip("/")
        group, _, last = name.partition("/")
        if group.endswith("_statistics"):
            dataset.attrs["unit"] = self._statistics[last.rpartition("/")[2]]
        else:
            dataset.attrs.update(DESCRIPTIONS.get(name) or DESCRIPTIONS.get(group, {}))

    @contextmanager
    def _read(self) -> Iterator[h5py.File]:
        with reading(self.path, "a run file") as file:
            yield file


@contextmanager
def _changing(path: Path, begin_empty: bool = False, groups: Set[str] | None = None) -> Iterator[h5py.File]:
    """``rewriting`` a run file, whose dimensions get their names; groups: those that change, None: all."""
    with rewriting(path, begin_empty) as file:
        if begin_empty or file.attrs["format_version"] < FORMAT_VERSION:
            file.attrs["format_version"] = FORMAT_VERSION
            groups = None
        yield file
        for name in FLAGS:
            if name in file.attrs:
                file.attrs[name] = np.int8(file.attrs[name])
        dimensions.label(file, groups)


def _group_of(name: str) -> str:
    """The first part of a dataset's name."""
    return name.strip("/").partition("/")[0]


def _libraries() -> dict[str, str]:
    return {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version}


def _sessions(file: h5py.File) -> list[h5py.Dataset]:
    """The configuration datasets of the sessions, oldest first."""
    group = file["config"]
    if not len(group):
        raise ValueError("it has no configuration")
    return [group[name] for name in sorted(group, key=int)]


def _rows_before(file: h5py.File, name: str) -> int:
    """The number of rows that the series of the same group have, which a new one is added to."""
    group, slash, _ = name.partition("/")
    members = _datasets(file[group]) if slash and group in file else ()
    return max((len(one) for one in members if not dimensions.is_coordinate(one.name)), default=0)


def _first_rows(series: h5py.Dataset, rows: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of create_dataset for the first rows of a dataset (None: all), and its attributes."""
    how = {name: getattr(series, name) for name in ("dtype", "maxshape", "chunks", "fillvalue")}
    return {**how, "data": series[:rows]}, _simple(series.attrs)


def _simple(attributes: h5py.AttributeManager) -> dict[str, Any]:
    """The attributes that are texts or numbers; a run writes no others, but for those of dimensions."""
    found = {name: attributes[name] for name in attributes if name not in dimensions.ATTRIBUTES}
    return {name: value for name, value in found.items() if not isinstance(value, OTHER_TYPES)}


def _distinct_values(sessions: Sequence[h5py.Dataset]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for one in sessions:
        for name, value in one.attrs.items():
            found.setdefault(name, {}).update(dict.fromkeys(map(str, np.ravel(value))))
    return {name: list(values) for name, values in found.items()}


def _series(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The datasets that grow by rows, by name."""
    growing = (one for one in _datasets(file) if one.maxshape and one.maxshape[0] is None)
    return {one.name.lstrip("/"): one for one in growing}


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """The datasets in a group, at any depth, without coordinates of dimensions."""
    return (one for one in dimensions.within(group) if not dimensions.is_coordinate(one.name))


def _copy_packed(dataset: h5py.Dataset, target: h5py.File) -> None:
    """Copy a dataset to another file; an array of numbers is compressed."""
    packed = {}
    if dataset.ndim and dataset.size and dataset.dtype.kind != "O":
        rows = max(1, min(len(dataset), CHUNK_BYTES // max(1, dataset[0].nbytes)))
        packed = {
            "chunks": (rows, *dataset.shape[1:]),
            "maxshape": dataset.maxshape,
            "compression": "gzip",
            "compression_opts": 9,
            "shuffle": True,
        }
    copy = target.create_dataset(dataset.name, data=dataset[()], dtype=dataset.dtype, **packed)
    copy.attrs.update(_simple(dataset.attrs))


def _nearest_runs(folder: Path) -> str:
    """What to give in place of a folder without a run: the run directories below it, if there are any."""
    below: list[str] = []
    with suppress(OSError, ValueError):
        places = islice(chain(folder.glob("*/"), folder.glob("*/*/")), SEARCHED)
        below = sorted(printable(str(place)) for place in places if (place / NAME).is_file())
    if not below:
        return "give the directory of a run"
    more = [f"{len(below) - NAMED} more"] if len(below) > NAMED else []
    return f"give the directory of a run below it: {', '.join([*below[:NAMED], *more])}"
