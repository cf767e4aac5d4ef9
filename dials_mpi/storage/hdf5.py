"""HDF5 files: errors of damaged files as one sentence, replacement in one step, tables of networks."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.logging import LOG
from dials_mpi.core.shell import option
from dials_mpi.core.signals import deferred
from dials_mpi.core.text import printable
from dials_mpi.storage.checksum import (
    BLOCK,
    TRAILER_BYTES,
    content_begin,
    content_end,
    damaged,
    has_valid_checksum,
    has_writer_mark,
    readable,
    trailer,
    without_writer_mark,
)
from dials_mpi.storage.files import replacing
from dials_mpi.storage.superblock import HEAD, cleared, end, with_end

FORMAT = "v110"
"""Readable by HDF5 1.10 and later. With older formats the library also reads while it writes, which fails
after discarded writes (DeferredErrorFile)."""

READ_ERRORS = (
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
"""Exceptions of h5py for damaged files and files with other content."""


class NewerFormat(BadInput):
    """The file has a newer format than this program can read; it is not damaged."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. BadInput: it is not ``what`` was expected, or is damaged."""
    try:
        with _opened(path) as file:
            yield file
    except READ_ERRORS as error:
        raise damaged(path, what, error) from error


def _opened(path: Path) -> h5py.File:
    if has_writer_mark(path):  # the caller has checked the content
        return h5py.File(io.BytesIO(without_writer_mark(path)), "r")
    try:
        return h5py.File(path, "r", locking=False)  # some file systems do not support locks
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        # Another library of this process, such as xarray, has the file open with locks.
        return h5py.File(io.BytesIO(path.read_bytes()), "r")


def require_version(file: h5py.File, newest: int, path: Path, to_do: str) -> None:
    """NewerFormat: the format version is larger than ``newest``; to_do: what a newer program can do with it.

    ValueError: the version is invalid.
    """
    version = int(file.attrs["format_version"])
    if version < 1:
        raise ValueError(f"format version {version}")
    if version > newest:
        raise NewerFormat(
            f"{printable(str(path))} has format version {version}, and this dials_mpi reads up to {newest}: "
            f"{to_do} with a newer one"
        )


@contextmanager
def rewriting(path: Path, begin_empty: bool = False) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, or an empty file, to change; it replaces the file when it is complete.

    Unwritable: it cannot be written, or another program has damaged the file.
    """
    with deferred(), replacing(path) as file:  # HDF5 calls the file's methods, where StopAtOnce would be lost
        if not begin_empty:
            _require_readable(path)
            _copy(path, file)
            if file.failure:
                raise file.failure
        with h5py.File(file, "w" if begin_empty else "r+", libver=FORMAT) as content:
            yield content
        if file.failure is None:
            _seal(file)


def _copy(path: Path, to: BinaryIO) -> None:
    """Copy the HDF5 content of a file, without a writer's mark."""
    with open(path, "rb") as file:
        begin, length = content_begin(file), content_end(file)
        file.seek(begin)
        head = cleared(file.read(HEAD))
        # Where another program has added content behind the trailer, the trailer stays as unused space.
        to.write(with_end(head, length - begin) if end(head) >= length - begin else head)
        shutil.copyfileobj(file, to, BLOCK)
        to.truncate(length - begin)


def _seal(file: BinaryIO) -> None:
    """Append the trailer, and count it as a part of the HDF5 file, which keeps it when it is opened."""
    file.seek(0)
    head, length = file.read(HEAD), file.seek(0, os.SEEK_END)
    file.seek(0)
    file.write(with_end(head, length + TRAILER_BYTES))
    checksum = trailer(file, length)
    file.seek(length)
    file.write(checksum)


def _require_readable(path: Path) -> None:
    """Unwritable: another program has damaged the file."""
    if has_valid_checksum(path):
        return
    if not readable(path):
        raise Unwritable(
            f"{printable(str(path))} was damaged by another program during the run: replace it by a good "
            f"copy, then continue with {option('resume')}"
        )
    LOG.warning("%s was changed by another program: its changes are kept", path)


def require_float32(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """ValueError: the dataset is not float32 of this shape."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype != np.float32 or found.shape != shape:
        raise ValueError(f"{name} is not float32 {list(shape)}")


def float32(file: h5py.File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A whole dataset. ValueError: it is not float32 of this shape."""
    require_float32(file, name, shape)
    return file[name][()]


def text_of(dataset: h5py.Dataset) -> str:
    """The text in a dataset. ValueError: it does not hold a single text."""
    text = dataset.asstr()[()]
    if not isinstance(text, str):
        raise ValueError(f"{dataset.name} is not a text")
    return text


def network_tables(kind: str, tables: Sequence[Any]) -> dict[str, Any]:
    """Datasets of the group ``kind`` for each network's table of names and shapes.

    Equal tables are stored once; ``kind/table_of`` [N agents or R regions] has the index of each one's table.
    """
    distinct = list(dict.fromkeys(tables))
    return {
        f"{kind}/tables": [json.dumps(table) for table in distinct],
        f"{kind}/table_of": [distinct.index(table) for table in tables],
    }
