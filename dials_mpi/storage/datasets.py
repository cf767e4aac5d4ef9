"""Dataset files, ``DIR/datasets/<env_steps>.h5``: the data that the predictors of a refit were fitted to.

docs/datasets.md describes the format. A single global rank writes the file itself. Several global ranks write
one part file each, and the file refers to the parts (HDF5's virtual datasets). A file is complete or absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dials_mpi.core import signals
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.storage.checksum import require_checksum
from dials_mpi.storage.files import make_folder
from dials_mpi.storage.hdf5 import reading, require_version, rewriting

FORMAT_VERSION = 2
FOLDER = "datasets"
WHAT = "a dataset file"
CHUNK_BYTES = 16 << 20
"""Maximal bytes of a chunk before compression; most regions fit into one chunk, which is read at once."""
LEVEL = 4
"""Level of gzip; higher levels take longer and save little space."""
_NAME = re.compile(r"(\d+)\.h5")
_PART = re.compile(r"\d+-part\d+\.h5")


class RegionData(NamedTuple):
    """K episodes of T steps of one region with D predictor inputs, M sources and A agents.

    inputs [K, T, D]: uint8 (bits) or float32, before each step. sources uint8 [K, T, M], actions [K, T, A]
    (unsigned integers), rewards float32 [K, T, A]: of the step itself.
    """

    inputs: np.ndarray
    sources: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class RegionNames(NamedTuple):
    """Labels of a region's columns: the agents' numbers, and the names of its sources if known.

    classes: the number of classes of each source. source_names: empty where the domain has no names.
    """

    agents: Sequence[int]
    classes: Sequence[int]
    source_names: Sequence[str] = ()


class DatasetFile:
    """A dataset file on disk, read region by region."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """BadInput: it is not a dataset file, or is damaged, or has a newer format, or a part is missing."""
        self.path = Path(path)
        require_checksum(self.path, WHAT)
        with self._read() as file:
            for part in _parts(file):
                require_checksum(self.path.with_name(part), WHAT)
            require_version(file, FORMAT_VERSION, self.path, "read it")
            self.attributes: dict[str, Any] = dict(file.attrs)
            self.regions = len(file["regions"])

    def region(self, k: int) -> RegionData:
        """All episodes of region k, with unpacked bits. BadInput: the region is missing or damaged."""
        with self._read() as file:
            group = file[f"regions/{k}"]
            arrays = [group[name][()] for name in RegionData._fields]
            bits = group["inputs"].attrs.get("bits")
        if bits is not None:
            arrays[0] = np.unpackbits(arrays[0], axis=-1, count=int(bits))
        return RegionData(*arrays)

    def shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """The shapes that ``region(k)`` has, without reading the arrays."""
        with self._read() as file:
            group = file[f"regions/{k}"]
            shapes = {name: tuple(group[name].shape) for name in RegionData._fields}
            bits = group["inputs"].attrs.get("bits")
        if bits is not None:
            shapes["inputs"] = (*shapes["inputs"][:-1], int(bits))
        return shapes

    def names(self, k: int) -> RegionNames:
        """The labels of region k's columns."""
        with self._read() as file:
            found = dict(file[f"regions/{k}"].attrs)
        return RegionNames(
            found["agents"].tolist(), found["classes"].tolist(), list(found.get("source_names", ()))
        )

    def classes(self, k: int) -> tuple[int, ...]:
        """The number of classes of each source of region k."""
        with self._read() as file:
            return tuple(int(count) for count in file[f"regions/{k}"].attrs["classes"])

    @contextmanager
    def _read(self) -> Iterator[h5py.File]:
        with reading(self.path, WHAT) as file:
            yield file


def path_of(directory: Path, env_steps: int) -> Path:
    """The path of the dataset file of the refit at ``env_steps`` steps per agent."""
    return directory / FOLDER / f"{env_steps}.h5"


def present(directory: Path) -> list[Path]:
    """The dataset files of a run, without parts, newest first."""
    try:
        names = os.listdir(directory / FOLDER)
    except (OSError, ValueError):
        return []
    found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
    return [directory / FOLDER / name for _, name in sorted(found, reverse=True)]


def write(
    path: Path, regions: Iterable[RegionData], names: Sequence[RegionNames], attributes: Mapping[str, Any]
) -> None:
    """Write a dataset file or a part, in one step. Unwritable: it cannot be written."""
    every = list(regions)
    with writing(path, len(every[0].inputs), names, attributes) as put:
        put(every)


@contextmanager
def writing(
    path: Path, episodes: int, names: Sequence[RegionNames], attributes: Mapping[str, Any]
) -> Iterator[Callable[[Iterable[RegionData]], None]]:
    """Write a dataset file or a part with so many episodes; it is there when all are.

    Gives the function that takes the data of all regions of some of the episodes, after those before.
    Signals are handled outside it. Unwritable: it cannot be written.
    """
    make_folder(path.parent)
    done = 0
    with rewriting(path, begin_empty=True) as file, signals.handled():

        def put(regions: Iterable[RegionData]) -> None:
            nonlocal done
            with signals.deferred():
                for k, data in enumerate(regions):
                    group = file.require_group(f"regions/{k}")
                    for key, array in _packed(data).items():
                        _room(group, key, array, episodes)[done : done + len(array)] = array
                    _describe_inputs(group, data.inputs)
            done += len(data.inputs)

        with signals.deferred():
            _describe(file, attributes)
            for k, name in enumerate(names):
                _describe_region(file.create_group(f"regions/{k}"), name)
        yield put


def part_of(path: Path, rank: int) -> Path:
    """The path of the part of a dataset file that a global rank writes."""
    return path.with_name(f"{path.stem}-part{rank}.h5")


def join(path: Path, parts: Sequence[Path], attributes: Mapping[str, Any]) -> None:
    """Write the file that refers to the episodes of all parts, in their order. Unwritable: it cannot be."""
    with rewriting(path, begin_empty=True) as file:
        _describe(file, attributes)
        with h5py.File(parts[0], "r", locking=False) as first:
            for k in range(len(first["regions"])):
                group = file.create_group(f"regions/{k}")
                group.attrs.update(first[f"regions/{k}"].attrs)
                for key in RegionData._fields:
                    _join(group, f"regions/{k}/{key}", key, parts)


def remove_older(directory: Path) -> None:
    """Remove all dataset files except the newest, and all parts that belong to no file."""
    for path in present(directory)[1:]:
        path.unlink(missing_ok=True)
    remove_parts_without_file(directory)


def remove_parts_without_file(directory: Path) -> None:
    """Remove parts whose file is missing because the run was ended before it was written."""
    complete = {path.stem for path in present(directory)}
    for part in sorted((directory / FOLDER).glob("*-part*.h5")):
        if _PART.fullmatch(part.name) and part.stem.partition("-")[0] not in complete:
            part.unlink(missing_ok=True)


def choose(place: str) -> DatasetFile:
    """The dataset file at ``place``: a file, or a run's directory that has exactly one.

    BadInput: there is none, or there are several, or it cannot be read.
    """
    path = Path(place)
    if path.is_file():
        return DatasetFile(path)
    found = present(path)
    if not found:
        raise BadInput(
            f"there are no datasets in {printable(place)}: give the directory of a run with datasets=last or "
            f"all, or one of its files {FOLDER}/<env_steps>.h5"
        )
    if len(found) > 1:
        names = ", ".join(printable(file.name) for file in found[:5])
        raise BadInput(f"{printable(place)} has several datasets ({names}): give the path of one of them")
    return DatasetFile(found[0])


def _parts(file: h5py.File) -> list[str]:
    """The names of the part files that a file refers to; empty if it has its own data."""
    first = file["regions/0/sources"]
    return [source.file_name for source in first.virtual_sources()] if first.is_virtual else []


def _describe(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    file.attrs.update({"format_version": FORMAT_VERSION, **attributes})


def _describe_region(group: h5py.Group, names: RegionNames) -> None:
    group.attrs["agents"] = np.array(names.agents, np.int64)
    group.attrs["classes"] = np.array(names.classes, np.int64)
    if names.source_names:
        group.attrs["source_names"] = list(names.source_names)


def _describe_inputs(group: h5py.Group, inputs: np.ndarray) -> None:
    if inputs.dtype == np.uint8:
        group["inputs"].attrs["bits"] = inputs.shape[-1]


def _packed(data: RegionData) -> dict[str, np.ndarray]:
    arrays = data._asdict()
    if data.inputs.dtype == np.uint8:
        arrays["inputs"] = np.packbits(data.inputs, axis=-1)
    return arrays


def _room(group: h5py.Group, key: str, first: np.ndarray, episodes: int) -> h5py.Dataset:
    """The dataset for so many episodes; made for the first of them, whose number is that of its chunks."""
    if key in group:
        return group[key]
    shape, chunks = (episodes, *first.shape[1:]), _chunks(first)
    return group.create_dataset(key, shape, first.dtype, chunks=chunks, **_compression(first))


def _chunks(array: np.ndarray) -> tuple[int, ...] | None:
    if not array.size:
        return None
    rows = max(1, min(len(array), CHUNK_BYTES // array[0].nbytes))
    return (rows, *array.shape[1:])


def _compression(array: np.ndarray) -> dict[str, Any]:
    return {"compression": "gzip", "compression_opts": LEVEL, "shuffle": True} if array.size else {}


def _join(group: h5py.Group, name: str, key: str, parts: Sequence[Path]) -> None:
    """A virtual dataset that joins a dataset of all parts; their names are relative to the file's folder."""
    sources = []
    for part in parts:
        with h5py.File(part, "r", locking=False) as file:
            dataset = file[name]
            sources.append(h5py.VirtualSource(part.name, name, dataset.shape, dataset.dtype))
            attributes = dict(dataset.attrs)
    episodes = sum(source.shape[0] for source in sources)
    layout = h5py.VirtualLayout((episodes, *sources[0].shape[1:]), sources[0].dtype)
    first = 0
    for source in sources:
        layout[first : first + source.shape[0]] = source
        first += source.shape[0]
    group.create_virtual_dataset(key, layout).attrs.update(attributes)
