"""What a check has to say: one line each."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """WRONG breaks the contract; NOTE is for the reader to judge."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One thing that was looked at, and what was seen."""

    what: str
    verdict: Verdict
    seen: str


def good(what: str, seen: str = "") -> Finding:
    """As it should be."""
    return Finding(what, Verdict.GOOD, seen)


def note(what: str, seen: str) -> Finding:
    """To be judged by the reader."""
    return Finding(what, Verdict.NOTE, seen)


class Breach(Exception):
    """The contract is broken: what was found where."""


def require(holds: bool, what: str) -> None:
    """Breach: it does not hold; what was found instead."""
    if not holds:
        raise Breach(what)
