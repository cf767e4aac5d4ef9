"""The one exception that a user is meant to read, and how it is read out."""

from __future__ import annotations

import sys


class BadInput(Exception):
    """The user's input cannot be used; the message is one sentence: what is wrong, where, what to do."""


def refuse(reason: object) -> int:
    """Say on stderr, in one line, what is wrong with the input; the exit code for it."""
    print(f"dials_mpi: {reason}", file=sys.stderr, flush=True)
    return 2
