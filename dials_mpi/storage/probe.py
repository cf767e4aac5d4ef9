"""Whether the HDF5 file on stdin can be read from end to end: then the exit code is 0.

A program of its own, without the rest of the package: on some damaged files the HDF5 library hangs or ends
the process.
"""

from __future__ import annotations

import io
import sys

import h5py

MOST_PACKED, SPARE = 64, 1 << 30
"""A dataset has at most so many times the bytes of the file, and these in addition."""


def read(group: h5py.Group, most: int, seen: set[int]) -> None:
    """All attributes and datasets, other than those of other files. h5py's exceptions: they are damaged."""
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


def main() -> None:
    """The program."""
    content = sys.stdin.buffer.read()
    with h5py.File(io.BytesIO(content), "r") as file:
        read(file, len(content) * MOST_PACKED + SPARE, set())


if __name__ == "__main__":
    main()
