"""Exceptions whose messages are for the user, how they are printed, and the exit codes."""

from __future__ import annotations

import sys
from contextlib import suppress

DONE, CRASHED, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes: finished; unexpected error; bad input; stopped before the end (EX_TEMPFAIL of sysexits.h)."""


PREFIX = "dials_mpi: "
"""What lines on stderr begin with."""


class BadInput(Exception):
    """The user's input cannot be used; the message is one sentence: what is wrong, where, what to do."""


class Unwritable(Exception):
    """A file of a run cannot be written; the message is one sentence: which file, why, what to do."""


class StopAtOnce(BaseException):
    """A signal requests that the program ends now. Not an Exception, which some code catches."""


def refuse(reason: object) -> int:
    """Print on stderr, in one line, what is wrong with the input; returns the exit code for it."""
    print_error(reason)
    return REFUSED


def print_error(text: object) -> None:
    """Print a line on stderr, prefixed with the program's name; if nobody can read it, nothing happens."""
    with suppress(OSError):
        print(f"{PREFIX}{text}", file=sys.stderr, flush=True)
