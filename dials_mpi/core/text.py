"""Text of messages: short, printable, on one line."""

from __future__ import annotations

import reprlib
from typing import Any


def shown(value: Any) -> str:
    """A value for a message: short, printable, on one line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return printable(short.repr(value))
    except ValueError:  # an int of thousands of digits
        return "a value too long to show"


def heading(name: str, unit: str) -> str:
    """Of a column of figures: the name in words, and below it the unit, "" for none."""
    return name.replace("_", " ") + (f"\n{unit}" if unit else "")


def printable(text: str) -> str:
    """The text for a one-line message: unprintable characters are escaped."""
    return text if text.isprintable() else ascii(text)


def told(error: BaseException, most: int = 300) -> str:
    """An exception on one line, its type and its message, cut to so many characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:most]
