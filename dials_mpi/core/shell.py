"""Command lines to paste into a shell, and options as the user gives them: in a shell or in Python."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FLAGS = ("resume", "unchecked")
"""Options without a value."""

_commands: list[str] = []
"""The command that this process runs, if it is one of this package."""


@contextmanager
def running_command(name: str) -> Iterator[None]:
    """Inside, the user has started this process as a command, not called a function in Python."""
    _commands.append(name)
    try:
        yield
    finally:
        _commands.pop()


def option(name: str) -> str:
    """An option for a message: ``--resume`` for a user of a command, ``resume=True`` for one of Python.

    An option with a value is ``--output`` or ``the argument output``.
    """
    if _commands:
        return f"--{name}"
    return f"{name}=True" if name in FLAGS else f"the argument {name}"


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
