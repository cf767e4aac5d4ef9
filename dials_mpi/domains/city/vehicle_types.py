"""The vehicle types of a city, for the local simulators, and SUMO's class of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring, tostring

from dials_mpi.domains.city.xml_files import elements

DEFAULTS = {
    "DEFAULT_VEHTYPE": "passenger",
    "DEFAULT_BIKETYPE": "bicycle",
    "DEFAULT_TAXITYPE": "taxi",
    "DEFAULT_RAILTYPE": "rail",
}
"""SUMO's class of the types that it knows without a definition."""


def vehicle_types(files: Iterable[Path]) -> list[str]:
    """The vTypes in SUMO's files, also those in distributions: XML, each once, in the order of the files."""
    found: dict[str, str] = {}
    for path in files:
        for element in elements(path):
            for kind in _types(element):
                kind.attrib.pop("probability", None)  # of a distribution
                found.setdefault(kind.get("id", ""), tostring(kind, "unicode").strip())
    return list(found.values())


def vehicle_classes(types: Iterable[str]) -> Mapping[str, str]:
    """SUMO's class (passenger, bus, …) by vehicle type: of these vTypes, as XML, and of SUMO's own."""
    found = map(fromstring, types)
    return {**DEFAULTS, **{kind.get("id", ""): kind.get("vClass", "passenger") for kind in found}}


def demand_classes(files: Iterable[Path], classes: Mapping[str, str]) -> frozenset[str]:
    """The classes that vehicles of the demand may have: those of ``classes``, of its types, and passenger.

    One of SUMO's own types counts where a vehicle names it.
    """
    named = {element.get("type", "") for path in files for element in elements(path)}
    used = (kind for kind in classes if kind not in DEFAULTS or kind in named)
    return frozenset({"passenger", *(classes[kind] for kind in used)})


def _types(element: Element) -> Iterator[Element]:
    if element.tag in ("vType", "vTypeDistribution"):
        yield from element.iter("vType")
