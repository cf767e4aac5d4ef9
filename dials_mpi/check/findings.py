"""The findings of the checks, one line each."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """GOOD: as the contract demands; WRONG: against it; NOTE: the reader must judge."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One check and its result; what: was checked; seen: what was found."""

    what: str
    verdict: Verdict
    seen: str


def good(what: str, seen: str = "") -> Finding:
    """A finding: as the contract demands."""
    return Finding(what, Verdict.GOOD, seen)


def note(what: str, seen: str) -> Finding:
    """A finding that the reader must judge."""
    return Finding(what, Verdict.NOTE, seen)


def wrong(what: str, seen: str) -> Finding:
    """A finding: against the contract."""
    return Finding(what, Verdict.WRONG, seen)


class Breach(Exception):
    """The domain breaks the contract; the message says what was found where."""


def require(holds: bool, what: str) -> None:
    """Breach: the condition does not hold; what: was found instead."""
    if not holds:
        raise Breach(what)
