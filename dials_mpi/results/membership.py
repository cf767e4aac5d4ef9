"""Which study a run belongs to, and the name of its method there: ``study.json`` in the run's directory.

A study writes it; reports take the method's name from it. A run without it is described by its settings.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dials_mpi.core.errors import Unwritable
from dials_mpi.storage.files import replacing

NAME = "study.json"
LARGEST = 10_000
"""Bytes; a larger file is none that a study has written."""


class Membership(NamedTuple):
    """A run's place in a study; order: of the method in the study file, from 0."""

    study: str
    system: str
    method: str
    order: int


def write(directory: str | os.PathLike[str], membership: Membership) -> None:
    """Record it, if it is not recorded; a run is complete without, so errors of the disk are ignored."""
    if read(directory) == membership:
        return
    with suppress(OSError, Unwritable), replacing(Path(directory) / NAME) as file:
        file.write((json.dumps(membership._asdict()) + "\n").encode())


def read(directory: str | os.PathLike[str]) -> Membership | None:
    """What ``write`` has recorded; None if it has not, or if the file has another content."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        text = (Path(directory) / NAME).read_bytes()
        if len(text) <= LARGEST:
            found = Membership(**json.loads(text))
            if tuple(map(type, found)) == (str, str, str, int) and found.method.isprintable():
                return found
    return None
