"""The trained runs that come with the package, by names such as ``trained/warehouse``.

They are archived copies with policies in the package's folder ``trained``; its README says what made them.
"""

from __future__ import annotations

import os
from pathlib import Path

import dials_mpi

FOLDER = Path(dials_mpi.__file__).with_name("trained")
NAME = "run.h5"


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(f"{FOLDER.name}/{path.parent.name}" for path in FOLDER.glob(f"*/{NAME}"))


def located(directory: str | os.PathLike[str]) -> Path:
    """Where the run is that a user gave: in this directory if it has one, else that of the package by this
    name.

    Anything else is returned as it is.
    """
    given = Path(directory)
    if given.as_posix() in names() and not (given / NAME).exists():
        return FOLDER / given.name
    return given
