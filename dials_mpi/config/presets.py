"""The configurations and studies that come with the package, by short names such as ``warehouse/fast``.

They are the files of the repository's folder ``configs``, to which ``dials_mpi/presets`` is a link; a wheel
holds copies there.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dials_mpi

FOLDER = Path(dials_mpi.__file__).with_name("presets")
SUFFIX = ".yaml"


class Preset(NamedTuple):
    """name: such as ``warehouse/fast``; first: the first line of its comment; path: the file."""

    name: str
    first: str
    path: Path


def presets() -> list[Preset]:
    """All of them, sorted by name."""
    return [Preset(_name(path), _first_line(path), path) for path in sorted(_files())]


def located(file: str, below: str = "") -> str:
    """The file to read for what a user gave: the file itself if it exists, else the preset of this name.

    A preset may be written as ``warehouse/fast``, ``warehouse/fast.yaml`` or ``configs/warehouse/fast.yaml``.
    Anything else is returned as it is. below: a folder, such as "studies/", that the name may leave out.
    """
    name = file.removeprefix("./").removeprefix("configs/").removesuffix(SUFFIX)
    found = {_name(path): str(path) for path in _files()}
    return file if _exists(file) else found.get(name, found.get(below + name, file))


def _exists(file: str) -> bool:
    try:
        return Path(file).exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def _files() -> list[Path]:
    return list(FOLDER.glob(f"*/*{SUFFIX}"))


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def _first_line(path: Path) -> str:
    """The first line of the comment, without its sign."""
    with path.open(encoding="utf-8") as stream:
        return stream.readline().lstrip("# ").strip()
