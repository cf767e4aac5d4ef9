"""Read all of the HDF5 file on stdin; the exit code is 0 if that succeeds.

A separate program that imports nothing of the package: with some damaged files the HDF5 library hangs or
crashes.
"""

from __future__ import annotations

import io
import sys

import h5py

MOST_PACKED, SPARE = 64, 1 << 30
"""The largest dataset that a file can hold: a multiple of the file's bytes, and a constant."""


def read(group: h5py.Group, most: int, seen: set[int]) -> None:
    """Read all attributes and datasets, without links to other files. Raises h5py's exceptions for damage."""
    dict(group.attrs)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        thing = group[name]
        if isinstance(thing, h5py.Group):
            address = h5py.h5o.get_info(thing.id).addr
            if address not in seen:
                read(thing, most, seen | {address})
            continue
        dict(thing.attrs)
        if isinstance(thing, h5py.Dataset) and thing.shape is not None:
            if thing.nbytes > most:
                raise ValueError(f"{thing.name} is larger than the file can hold")
            (thing.asstr() if h5py.check_string_dtype(thing.dtype) else thing)[()]


def read_all(content: bytes) -> None:
    """Read an HDF5 file with this content. Raises h5py's exceptions for damage."""
    with h5py.File(io.BytesIO(content), "r") as file:
        read(file, len(content) * MOST_PACKED + SPARE, set())


if __name__ == "__main__":
    read_all(sys.stdin.buffer.read())
