"""SUMO's XML files, plain or gzipped, read one element after another."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast
from xml.etree.ElementTree import Element, ParseError, iterparse

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable

_GZIP = b"\x1f\x8b"


def elements(path: Path) -> Iterator[Element]:
    """The elements below the root, each complete with its own; the root itself comes first, without them.

    BadInput: the file cannot be read, or is not well-formed XML.
    """
    try:
        with _opened(path) as stream:
            yield from _elements(stream)
    except ParseError as error:
        row, column = error.position
        raise BadInput(
            f"{shown(path)} is not complete XML (line {row}, column {column}): make it again"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{shown(path)} is damaged (gzip: {error}): make it again") from error
    except OSError as error:
        raise BadInput(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    except (LookupError, UnicodeError, ValueError) as error:  # an encoding that Python does not know
        raise BadInput(f"{shown(path)} cannot be read as XML ({error}): write it in UTF-8") from error


def root(path: Path) -> Element:
    """The root of a file, without the elements in it. BadInput: as ``elements``."""
    return next(elements(path))


def seconds(text: str, least: float | None = None) -> float:
    """A time of SUMO: seconds, or [days:]hours:minutes:seconds.

    least: of each part, which must then be finite. ValueError: it is no such time.
    """
    parts = [float(part) for part in text.split(":")]
    if len(parts) not in (1, 3, 4):
        raise ValueError
    if least is not None and not all(least <= part < math.inf for part in parts):
        raise ValueError
    return sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))


def shown(path: Path) -> str:
    """The path for a one-line message."""
    return printable(str(path))


def quoted(name: str) -> str:
    """The whole id of a signal or road for a one-line message; ids may be long."""
    return f"'{printable(name)}'"


def _opened(path: Path) -> IO[bytes]:
    with open(path, "rb") as stream:
        packed = stream.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path)) if packed else open(path, "rb")


def _elements(stream: IO[bytes]) -> Iterator[Element]:
    events = iterparse(stream, events=("start", "end"))
    _, top = next(events)
    yield top
    depth = 1
    for event, element in events:
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 1:
            yield element
            del top[:]
