"""The cache of compiled code and road networks: $XDG_CACHE_HOME/dials_mpi, or ~/.cache/dials_mpi.

The cache is optional. Missing, damaged and unreadable files are made again, and files that cannot be written
are not kept; root warns once of each kind of problem. A file ends with the checksum of its content, as an XML
comment, so that SUMO can read its files in place.

Stored machine code is executed. A file is therefore read only if only this user, root and the members of the
group in DIALS_MPI_TRUST_GROUP have permission to write or replace it or to rename a folder above it.
"""

from __future__ import annotations

import fcntl
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
"""The environment variable that names a group whose members may write code that this user executes."""

_ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own"
_warned: set[str] = set()
_held: dict[tuple[int, int], int] = {}


def folder(name: str) -> Path | None:
    """The folder of this name in the cache, without symbolic links; it may not exist.

    None: the home folder is unknown.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG Base Directory Specification requires that a relative path is ignored.
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry of this user in the password database
        base = Path()
    if not base.is_absolute():
        _warn_once("home", f"nothing is cached, because the home folder is unknown: {_ELSEWHERE}")
        return None
    return Path(os.path.realpath(base / "dials_mpi" / name))


def key(*content: str) -> str:
    """A file name for what is made from this content: a digest of it."""
    return sha256("\0".join(content).encode()).hexdigest()[:24]


def read(path: Path) -> bytes | None:
    """The content of a file of the cache; None if it is missing, damaged, unreadable or not trusted."""
    try:
        # O_NONBLOCK: opening a named pipe returns at once; S_ISREG rejects it below.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not _trusted(path.parent) or _untrusted(path, status, below=False):
                return None
            stored = stream.read() if S_ISREG(status.st_mode) else b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn_once(
            "access", f"{_shown(path)} cannot be read ({error.strerror}): the run continues without it"
        )
        return None
    content = stored[: -len(_checksum_line(b""))]
    if stored != content + _checksum_line(content):
        warn_damaged(path)
        return None
    return content


def write(path: Path, content: bytes) -> bool:
    """Write a file in one step; False: it could not be written, or would not be read again.

    Folders and files get the permissions that the umask allows, without write permission for others; the
    group may write only if a group is trusted.
    """
    shared = S_IWGRP if _group() is not None else 0
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _make(path.parent, 0o755 | shared)
        if not _trusted(path.parent):
            return False
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o644 | shared)) as stream:
            stream.write(content + _checksum_line(content))
        os.replace(temporary, path)
    except OSError as error:
        _warn_once(
            "access",
            f"{_shown(path.parent)} cannot be written ({error.strerror}), so every start repeats "
            f"the work: {_ELSEWHERE}, on a disk with free space",
        )
        return False
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def hold(place: Path) -> None:
    """Keep a folder of the cache, whose files another library reads in place, until this process ends.

    Cleaning leaves folders alone that a process holds. Without such a folder nothing happens.
    """
    with suppress(OSError):  # it is missing, or the file system has no locks
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        identity = os.fstat(opened).st_dev, os.fstat(opened).st_ino
        if identity in _held:
            os.close(opened)
        else:
            _held[identity] = opened
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)


def warn_damaged(path: Path) -> None:
    """Warn that a file has changed since it was written; the caller makes it again."""
    _warn_once("damaged", f"{_shown(path)} is damaged: it is made again, like all damaged files of the cache")


def _checksum_line(content: bytes) -> bytes:
    return f"\n<!-- sha256 {sha256(content).hexdigest()} -->\n".encode()


def _make(folder: Path, mode: int) -> None:
    """Make a folder and its parents, all with ``mode``; os.makedirs would not apply it to the parents."""
    if not folder.is_dir():
        _make(folder.parent, mode)
        with suppress(FileExistsError):
            folder.mkdir(mode)


def _trusted(folder: Path) -> bool:
    """Whether only trusted users can write to a folder or replace it; it need not exist."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            if _untrusted(place, place.stat(), below=place != folder):
                return False
    return True


def _untrusted(place: Path, status: os.stat_result, below: bool) -> bool:
    """Whether a user who is not trusted owns a file or folder or may write to it; warns if so.

    below: only the folders in it matter; in a sticky folder such as /tmp only their owners can rename them.
    """
    trusted = status.st_gid == _group()
    sticky = below and status.st_mode & S_ISVTX
    if status.st_uid not in (0, os.geteuid()) and not trusted:
        why, remedy = "belongs to another user", ""
    elif status.st_mode & S_IWOTH and not sticky:
        why, remedy = "can be written by everybody", "remove that permission (chmod o-w), or "
    elif status.st_mode & S_IWGRP and not sticky and not trusted:
        why, remedy = "can be written by its group", "remove that permission (chmod g-w), or "
    else:
        return False
    _warn_once(
        "trust",
        f"{_shown(place)} {why}, and code that others may have written is not executed, so the cache is not "
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
        _warn_once("group", f"{GROUP} is {printable(name)}, and there is no such group: no group is trusted")
        return None


def _shown(path: Path) -> str:
    return printable(str(path))


def _warn_once(kind: str, text: str) -> None:
    """Warn of the first problem of each kind only: a cache has dozens of files."""
    if kind not in _warned:
        _warned.add(kind)
        LOG.warning(text)
        if launched_as_root():
            print_error(text)
