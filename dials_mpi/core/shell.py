"""Command lines to paste into a shell."""

from __future__ import annotations

import os
import shlex


def command(program: str, *paths: str | os.PathLike[str]) -> str:
    """A command line to paste into a shell: a program of this package and its files or directories."""
    return " ".join([f"python -m dials_mpi.{program}", *(_quoted(os.fspath(path)) for path in paths)])


def _quoted(path: str) -> str:
    """A path as one word of a command line, on one line, which is neither an option nor in the home."""
    path = f"./{path}" if path.startswith(("-", "~")) else path
    if path.isprintable():
        return shlex.quote(path)
    # $'...' is the shells' way to write bytes that cannot be shown.
    plain = (char if char.isprintable() and char not in "'\\" else _escaped(char) for char in path)
    return f"$'{''.join(plain)}'"


def _escaped(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
