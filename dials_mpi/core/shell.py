"""Command lines to paste into a shell."""

from __future__ import annotations

import os
import shlex
import sys


def program(name: str) -> str:
    """How to start a command of this package: as this process was started, by ``dials`` or by its module."""
    return f"dials {name}" if os.path.basename(sys.argv[0]) == "dials" else f"python -m dials_mpi.{name}"


def command(name: str, *paths: str | os.PathLike[str]) -> str:
    """A command line to paste into a shell: a command of this package and its files or directories."""
    return " ".join([program(name), *(_quoted(os.fspath(path)) for path in paths)])


def _quoted(path: str) -> str:
    """A path as one word on one line, which the shell reads neither as an option nor as a home folder."""
    path = f"./{path}" if path.startswith(("-", "~")) else path
    if path.isprintable():
        return shlex.quote(path)
    # $'...' is the shell syntax for bytes that cannot be printed.
    plain = (char if char.isprintable() and char not in "'\\" else _escaped(char) for char in path)
    return f"$'{''.join(plain)}'"


def _escaped(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
