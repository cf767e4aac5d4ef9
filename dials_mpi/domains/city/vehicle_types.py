"""The vehicle types of a city and SUMO's class of each, for the local simulators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, tostring

from dials_mpi.domains.city.xml_files import elements

DEFAULTS = {
    "DEFAULT_VEHTYPE": "passenger",
    "DEFAULT_BIKETYPE": "bicycle",
    "DEFAULT_TAXITYPE": "taxi",
    "DEFAULT_RAILTYPE": "rail",
}
"""SUMO's class of the types that it knows without a definition."""


class VehicleTypes(NamedTuple):
    """The vehicle types in SUMO's files.

    xml: the vTypes, also those in distributions, each once, in the order of the files. classes: SUMO's class
    (passenger, bus, …) by type: of these and of SUMO's own. driving: the classes that vehicles of the demand
    may have: those of these types, passenger, and those of SUMO's own types that a vehicle names.
    """

    xml: list[str]
    classes: Mapping[str, str]
    driving: frozenset[str]


def read(files: Iterable[Path]) -> VehicleTypes:
    """The vehicle types in these files. BadInput: a file cannot be read."""
    found: dict[str, Element] = {}
    named: set[str] = set()
    for element in chain.from_iterable(map(elements, files)):
        named.add(element.get("type", ""))
        for kind in _types(element):
            kind.attrib.pop("probability", None)  # of a distribution
            found.setdefault(kind.get("id", ""), kind)
    classes = DEFAULTS | {name: kind.get("vClass", "passenger") for name, kind in found.items()}
    used = (kind for kind in classes if kind not in DEFAULTS or kind in named)
    return VehicleTypes(
        [tostring(kind, "unicode").strip() for kind in found.values()],
        classes,
        frozenset({"passenger", *(classes[kind] for kind in used)}),
    )


def _types(element: Element) -> Iterator[Element]:
    if element.tag in ("vType", "vTypeDistribution"):
        yield from element.iter("vType")
