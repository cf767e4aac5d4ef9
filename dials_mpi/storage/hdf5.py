"""HDF5 files: read with one sentence for those that are damaged, replaced in one step, networks in them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.logging import LOG
from dials_mpi.core.signals import deferred
from dials_mpi.core.text import printable
from dials_mpi.storage.files import replacing
from dials_mpi.storage.seal import BLOCK, SEAL, damaged, left_open, readable, seal, sealed, unmarked
from dials_mpi.storage.superblock import HEAD, cleared

FORMAT = "v110"
"""Readable by HDF5 1.10 and later. Older formats are read back while they are written, which does not go well
with a full disk (PatientFile)."""

DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)
"""What h5py raises for files that are not what they should be."""


class Newer(BadInput):
    """A file of a newer program: it is good, and not for this one."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[h5py.File]:
    """An HDF5 file to read. BadInput: it is no such file, or a damaged one; ``what`` it should be."""
    try:
        with _opened(path) as file:
            yield file
    except DAMAGE as error:
        raise damaged(path, what, error) from error


def _opened(path: Path) -> h5py.File:
    if left_open(path):  # whoever wrote there, what we need was checked
        return h5py.File(io.BytesIO(unmarked(path)), "r")
    return h5py.File(path, "r", locking=False)  # some file systems have no locks


def require_version(file: h5py.File, newest: int, path: Path, to_do: str) -> None:
    """Newer: the file's format is newer than the newest that is known; ``to_do`` with a newer program.

    ValueError: there was never such a format.
    """
    version = int(file.attrs["format_version"])
    if version < 1:
        raise ValueError(f"format version {version}")
    if version > newest:
        raise Newer(
            f"{printable(str(path))} has format version {version}, and this dials_mpi reads up to {newest}: "
            f"{to_do} with a newer one"
        )


@contextmanager
def rewriting(path: Path, begin_empty: bool = False) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, or an empty one, to change; it takes the file's place when it is whole.

    Unwritable: the disk takes no more.
    """
    with deferred(), replacing(path) as file:  # HDF5 calls the file's methods
        if not begin_empty:
            _require_readable(path)
            _copy(path, file)
            if file.failure:
                raise file.failure
        begin = {"mode": "w", "userblock_size": SEAL} if begin_empty else {"mode": "r+"}
        with h5py.File(file, libver=FORMAT, **begin) as content:
            yield content
        if file.failure is None:
            own = seal(file)
            file.seek(0)
            file.write(own)


def _copy(path: Path, to: BinaryIO) -> None:
    """The whole file, without a writer's mark."""
    with open(path, "rb") as file:
        to.write(file.read(SEAL))
        to.write(cleared(file.read(HEAD)))
        shutil.copyfileobj(file, to, BLOCK)


def _require_readable(path: Path) -> None:
    """Unwritable: another program has damaged the file that is to be changed."""
    if sealed(path):
        return
    if not readable(path):
        raise Unwritable(
            f"{printable(str(path))} was damaged by another program while the run went on: put a good copy "
            "in its place, then go on with --resume"
        )
    LOG.warning("%s was changed by another program: what it has added stays in it", path)


def require_float32(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """ValueError: the dataset is of another type or shape."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype != np.float32 or found.shape != shape:
        raise ValueError(f"{name} is not float32 {list(shape)}")


def float32(file: h5py.File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A whole dataset. ValueError: it is of another type or shape."""
    require_float32(file, name, shape)
    return file[name][()]


def text_of(dataset: h5py.Dataset) -> str:
    """A dataset that is one text. ValueError: it is none."""
    text = dataset.asstr()[()]
    if not isinstance(text, str):
        raise ValueError(f"{dataset.name} is no text")
    return text


def network_tables(kind: str, tables: Sequence[Any]) -> dict[str, Any]:
    """Each network's table of names and shapes as datasets of the group ``kind``.

    Equal ones are stored once, ``kind/table_of`` says which is whose, of N agents or R regions.
    """
    distinct = list(dict.fromkeys(tables))
    return {
        f"{kind}/tables": [json.dumps(table) for table in distinct],
        f"{kind}/table_of": [distinct.index(table) for table in tables],
    }
