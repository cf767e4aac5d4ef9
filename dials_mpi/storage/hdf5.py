"""HDF5 files: read with one sentence for those that are damaged, replaced in one step, networks in them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.signals import deferred
from dials_mpi.settings.values import printable
from dials_mpi.storage.files import replacing

FORMAT = "v110"
"""Readable by HDF5 1.10 and later. Older formats are read back while they are written, which does not go well
with a full disk (PatientFile)."""

SEAL = 512
"""Bytes before the content, HDF5's user block: a checksum of all that follows. The format has its own for
a part only, and on some damaged files the library hangs or ends the process."""

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
        # Without locking: some file systems have none.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except DAMAGE as error:
        raise _damaged(path, what, error) from error


def require_seal(path: Path, what: str) -> None:
    """BadInput: the file is not as ``rewriting`` left it."""
    try:
        with open(path, "rb") as file:
            if file.read(SEAL) != _checksum(file):
                raise ValueError("its checksum is wrong")
    except OSError as error:
        raise BadInput(f"{printable(str(path))} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(path, what, error) from error


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


def _damaged(path: Path, what: str, error: Exception) -> BadInput:
    reason = printable(" ".join(str(error).split()))[:300]
    return BadInput(f"{printable(str(path))} is not {what}, or a damaged one: {reason}")


def _checksum(file: BinaryIO) -> bytes:
    """What the seal of a file must be, by its content."""
    file.seek(SEAL)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"dials_mpi sha256 {digest}\n".encode().ljust(SEAL, b"\0")


@contextmanager
def rewriting(path: Path, begin_empty: bool = False) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, or an empty one, to change; it takes the file's place when it is whole.

    Unwritable: the disk takes no more.
    """
    with deferred(), replacing(path) as file:  # HDF5 calls the file's methods
        if not begin_empty:
            with open(path, "rb") as old:
                shutil.copyfileobj(old, file, 1 << 20)
            if file.failure:
                raise file.failure
        begin = {"mode": "w", "userblock_size": SEAL} if begin_empty else {"mode": "r+"}
        with h5py.File(file, libver=FORMAT, **begin) as content:
            yield content
        if file.failure is None:
            checksum = _checksum(file)
            file.seek(0)
            file.write(checksum)


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
