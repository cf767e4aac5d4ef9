"""Exceptions with messages for the user, how these are printed, and the exit codes."""

from __future__ import annotations

import sys

DONE, CRASHED, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes: finished; failed; bad input; stopped with work left (EX_TEMPFAIL of sysexits.h)."""


class BadInput(Exception):
    """The user's input cannot be used; the message is one sentence: what is wrong, where, what to do."""


class Unwritable(Exception):
    """A file cannot be written during a run; the message is one sentence: which file, why, what to do."""


class StopAtOnce(BaseException):
    """A signal asks the program to end now. Not an Exception, so that no handler of these catches it."""


def refuse(reason: object) -> int:
    """Print on stderr, in one line, why the input is refused; the exit code for it."""
    print_error(reason)
    return REFUSED


def print_error(text: object) -> None:
    """Print a line of this program on stderr."""
    print(f"dials_mpi: {text}", file=sys.stderr, flush=True)
