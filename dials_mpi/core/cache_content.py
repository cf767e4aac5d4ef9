"""What the cache holds, by kind; and cleaning it while other processes, also of other users, use it.

A process has machine code and recordings in its memory once it has read them, so these files can be removed
at any time. SUMO reads networks and demands in place, so a process holds their folders (``cache.hold``), and
they stay until it has ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

KINDS = {
    "kernels": "machine code of the inner loops",
    "networks": "road networks of grids",
    "platoons": "recorded platoons of grids",
    "city": "recorded vehicles of cities",
    "tiles": "regions cut out of cities",
    "trips": "random trips in cities",
}
"""The folders of the cache, up to a hyphen, and what is in them."""

IN_PLACE = ("networks", "tiles", "trips")
"""Folders of folders that other processes may be reading."""


class Content(NamedTuple):
    """A folder of the cache: kind, a key of KINDS or "others"; number of files, and bytes in them."""

    kind: str
    folder: Path
    files: int
    size: int


class Cleaned(NamedTuple):
    """Bytes that were removed; folders that stay since a process uses them, or since they belong to another
    user."""

    removed: int
    in_use: int
    of_others: int


def content(place: Path) -> list[Content]:
    """The folders in the cache, in the order of KINDS; nothing if there is no cache."""
    found = []
    for folder in sorted(_folders(place)):
        kind = folder.name.partition("-")[0]
        sizes = list(_sizes(folder))
        found.append(Content(kind if kind in KINDS else "others", folder, len(sizes), sum(sizes)))
    order = [*KINDS, "others"]
    return sorted(found, key=lambda one: order.index(one.kind))


def clean(contents: list[Content]) -> Cleaned:
    """Remove these folders, but for those that are in use, belong to other users or are of no known kind."""
    removed = in_use = of_others = 0
    for one in contents:
        if one.kind not in KINDS:
            continue
        parts = list(_folders(one.folder)) if one.kind in IN_PLACE else [one.folder]
        for part in parts:
            if part.stat().st_uid != os.geteuid():
                of_others += 1
                continue
            with _unused(part) as free:
                if free or one.kind not in IN_PLACE:
                    before = sum(_sizes(part))
                    shutil.rmtree(part, ignore_errors=True)
                    removed += before - sum(_sizes(part))
                else:
                    in_use += 1
        if one.kind in IN_PLACE:
            with suppress(OSError):  # something is left in it
                one.folder.rmdir()
    return Cleaned(removed, in_use, of_others)


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no process holds the folder; none can hold it inside. False on a file system without locks."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(opened)


def _folders(place: Path) -> Iterator[Path]:
    """The folders in a folder; links are left alone."""
    with suppress(OSError):
        yield from (path for path in place.iterdir() if path.is_dir() and not path.is_symlink())


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of each file in a folder, at any depth; files that vanish do not count."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                yield path.stat().st_size
