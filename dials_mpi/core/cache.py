"""Files that save the next start some work: $XDG_CACHE_HOME/dials_mpi, or ~/.cache/dials_mpi.

No run needs them. What is missing, damaged or unreadable is made anew, and what cannot be written is not
kept; a problem is said once, by root. A file ends with the checksum of all before it, as an XML comment, so
that SUMO can read its files in place.

Stored machine code is executed. So a file is read only if nobody but this user, root and the members of the
group in DIALS_MPI_TRUST_GROUP can have written it, put it there or renamed a folder above it.
"""

from __future__ import annotations

import grp
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG, S_ISVTX, S_IWGRP, S_IWOTH

from dials_mpi.core.errors import print_error
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.logging import LOG
from dials_mpi.core.text import printable

GROUP = "DIALS_MPI_TRUST_GROUP"
"""The environment variable with the name of a group whose members may write what this user executes."""

_ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own"
_said: set[str] = set()


def folder(name: str) -> Path | None:
    """The folder of this name in the cache, without symbolic links; it may not exist.

    None: the home folder is unknown.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG Base Directory Specification: a relative path is to be ignored.
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry of this user in the password database
        base = Path()
    if not base.is_absolute():
        _say("home", f"nothing is cached, for the home folder is unknown: {_ELSEWHERE}")
        return None
    return Path(os.path.realpath(base / "dials_mpi" / name))


def key(*content: str) -> str:
    """A name for what is made from this content."""
    return sha256("\0".join(content).encode()).hexdigest()[:24]


def read(path: Path) -> bytes | None:
    """The content of a file of the cache; None where there is none that can be used."""
    try:
        # O_NONBLOCK: a named pipe is opened, too, and then found to be no file.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not _trusted(path.parent) or _refused(path, status, below=False):
                return None
            sealed = stream.read() if S_ISREG(status.st_mode) else b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _say("access", f"{_shown(path)} cannot be read ({error.strerror}): the run goes on without it")
        return None
    content = sealed[: -len(_seal(b""))]
    if sealed != content + _seal(content):
        damaged(path)
        return None
    return content


def write(path: Path, content: bytes) -> bool:
    """Keep a file, whole or not at all; whether it could be written, and may be read again.

    Folders and files get the permissions that the umask leaves, but no one else may write them; the group
    may where one is trusted.
    """
    shared = S_IWGRP if _group() is not None else 0
    building = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _make(path.parent, 0o755 | shared)
        if not _trusted(path.parent):
            return False
        with open(building, "xb", opener=lambda name, flags: os.open(name, flags, 0o644 | shared)) as stream:
            stream.write(content + _seal(content))
        os.replace(building, path)
    except OSError as error:
        _say(
            "access",
            f"{_shown(path.parent)} cannot be written ({error.strerror}), so that every start does the same "
            f"work anew: {_ELSEWHERE}, with room on its disk",
        )
        return False
    finally:
        with suppress(OSError):
            building.unlink(missing_ok=True)
    return True


def damaged(path: Path) -> None:
    """Say that a file is not what was written; it is to be made anew."""
    _say("damaged", f"{_shown(path)} is damaged: it is made anew, as is all that is damaged in the cache")


def _seal(content: bytes) -> bytes:
    return f"\n<!-- sha256 {sha256(content).hexdigest()} -->\n".encode()


def _make(folder: Path, mode: int) -> None:
    """With the folders above it; they keep the group's permission to write, too, unlike with makedirs."""
    if not folder.is_dir():
        _make(folder.parent, mode)
        with suppress(FileExistsError):
            folder.mkdir(mode)


def _trusted(folder: Path) -> bool:
    """Whether no one else can write there, or put another folder in its place; it need not exist."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            if _refused(place, place.stat(), below=place != folder):
                return False
    return True


def _refused(place: Path, status: os.stat_result, below: bool) -> bool:
    """Whether others than those who are trusted own it or may write it, which is said.

    below: it is the folders in it that count, which a sticky folder like /tmp keeps for their owners.
    """
    trusted = status.st_gid == _group()
    kept = below and status.st_mode & S_ISVTX
    if status.st_uid not in (0, os.geteuid()) and not trusted:
        why, remedy = "belongs to another user", ""
    elif status.st_mode & S_IWOTH and not kept:
        why, remedy = "may be written by everybody", "take that permission away (chmod o-w), or "
    elif status.st_mode & S_IWGRP and not kept and not trusted:
        why, remedy = "may be written by its group", "take that permission away (chmod g-w), or "
    else:
        return False
    _say(
        "trust",
        f"{_shown(place)} {why}, and what others may have written is not executed, so that the cache is not "
        f"used: {remedy}trust the group with {GROUP}=NAME, or {_ELSEWHERE}",
    )
    return True


def _group() -> int | None:
    name = os.environ.get(GROUP)
    return _group_id(name) if name else None


@lru_cache
def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        _say("group", f"{GROUP} is {printable(name)}, and there is no such group: none is trusted")
        return None


def _shown(path: Path) -> str:
    return printable(str(path))


def _say(kind: str, text: str) -> None:
    """One line for all problems of a kind: a cache has dozens of files."""
    if kind not in _said:
        _said.add(kind)
        LOG.warning(text)
        if launched_as_root():
            print_error(text)
