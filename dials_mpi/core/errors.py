"""The exceptions that a user is meant to read, how they are read out, and the exit codes."""

from __future__ import annotations

import sys

DONE, CRASHED, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes: finished; a fault; bad input; stopped with work left (EX_TEMPFAIL of sysexits.h)."""


class BadInput(Exception):
    """The user's input cannot be used; the message is one sentence: what is wrong, where, what to do."""


class Unwritable(Exception):
    """The disk takes no more, amid a run; the message is one sentence: which file, why, what to do."""


class StopAtOnce(BaseException):
    """A signal asks the program to end now. Not an Exception: nothing on the way may keep it."""


def refuse(reason: object) -> int:
    """Say on stderr, in one line, what is wrong with the input; the exit code for it."""
    print_error(reason)
    return REFUSED


def print_error(text: object) -> None:
    """A line of ours on stderr."""
    print(f"dials_mpi: {text}", file=sys.stderr, flush=True)
