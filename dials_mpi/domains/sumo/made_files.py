"""Files that are made once for SUMO and kept in the cache: cut networks, demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dials_mpi.core import cache

_temporary: dict[str, TemporaryDirectory[str]] = {}
"""Folders of files that could not be written to the cache; they are removed when the process ends."""


def folder(name: str, files: Sequence[str], make: Callable[[], Mapping[str, bytes]]) -> Path:
    """The folder that holds these files: the one of this name in the cache, else a temporary one.

    make: returns the content of each file; it is called if a file is missing or damaged. The name contains a
    key of all that the content depends on.
    """
    if name in _temporary:
        return Path(_temporary[name].name)
    place = cache.folder(name)
    if place:
        cache.hold(place)
    if place and all(cache.read(place / file) is not None for file in files):
        return place
    made = make()
    if place and all(cache.write(place / file, content) for file, content in made.items()):
        cache.hold(place)
        return place
    _temporary[name] = TemporaryDirectory(prefix="dials_mpi-")
    for file, content in made.items():
        Path(_temporary[name].name, file).write_bytes(content)
    return Path(_temporary[name].name)
