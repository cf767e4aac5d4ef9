"""The vehicle types of a city, for the local simulators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from dials_mpi.domains.city.xml_files import elements


def vehicle_types(files: Iterable[Path]) -> list[str]:
    """The vTypes in SUMO's files, also those in distributions: XML, each once, in the order of the files."""
    found: dict[str, str] = {}
    for path in files:
        for element in elements(path):
            for kind in _types(element):
                kind.attrib.pop("probability", None)  # of a distribution
                found.setdefault(kind.get("id", ""), tostring(kind, "unicode").strip())
    return list(found.values())


def _types(element: Element) -> Iterator[Element]:
    if element.tag in ("vType", "vTypeDistribution"):
        yield from element.iter("vType")
