"""Where the trips of a city end, as its route files say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element

from dials_mpi.domains.city.xml_files import elements


def destinations(files: Iterable[Path]) -> frozenset[str]:
    """The last edges of all trips and routes in SUMO's files. BadInput: a file cannot be read."""
    found: set[str] = set()
    for path in files:
        for element in elements(path):
            for each in element.iter():
                found.update(_last(each))
    return frozenset(found)


def _last(element: Element) -> list[str]:
    if element.tag in ("trip", "flow", "vehicle") and element.get("to"):
        return [element.get("to", "")]
    if element.tag == "route":
        return element.get("edges", "").split()[-1:]
    return []
