"""HDF5 files: read with one sentence for those that are damaged, replaced in one step, networks in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from dials_mpi.errors import BadInput
from dials_mpi.storage.files import replacing
from dials_mpi.values import printable

FORMAT = "v110"
"""Readable by HDF5 1.10 and later; unlike in older formats, metadata has checksums."""

DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError)
"""What h5py raises for files that are not what they should be."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[h5py.File]:
    """An HDF5 file to read. BadInput: it is no such file, or a damaged one; ``what`` it should be."""
    try:
        # Without locking: some file systems have none.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except DAMAGE as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise BadInput(f"{printable(str(path))} is not {what}, or a damaged one: {reason}") from error


@contextmanager
def rewriting(path: Path, begin_empty: bool = False) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, or an empty one, to change; it takes the file's place when it is whole.

    Unwritable: the disk takes no more.
    """
    with replacing(path) as file:
        if not begin_empty:
            with open(path, "rb") as old:
                shutil.copyfileobj(old, file, 1 << 20)
            if file.failure:
                raise file.failure
        with h5py.File(file, "w" if begin_empty else "r+", libver=FORMAT) as content:
            yield content


def network_tables(kind: str, tables: Sequence[Any]) -> dict[str, Any]:
    """Each region's table of names and shapes as datasets of the group ``kind``.

    Equal ones are stored once, ``kind/table_of[N]`` says which is whose.
    """
    distinct = list(dict.fromkeys(tables))
    return {
        f"{kind}/tables": [json.dumps(table) for table in distinct],
        f"{kind}/table_of": [distinct.index(table) for table in tables],
    }
