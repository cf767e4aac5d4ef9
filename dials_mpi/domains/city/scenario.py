"""Which files of SUMO make up a city, and which window of time: named by the user, or by a known scenario.

Known scenarios are read from installed packages: the maps of RESCO from ``sumo-rl``, Lille and Bologna from
``sumo-experiments``. Neither package is imported.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from xml.etree.ElementTree import Element

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import package_folder
from dials_mpi.core.text import shown as shown_value
from dials_mpi.domains.city import trips
from dials_mpi.domains.city.xml_files import elements, root, seconds, shown

EXTRAS = {"sumo-rl": "cities", "sumo-experiments": "lille"}
"""The extra that installs a package of maps."""

RESCO = {
    **dict.fromkeys(("grid4x4", "arterial4x4"), (0.0, 3600.0)),
    **dict.fromkeys(("cologne1", "cologne3", "cologne8"), (25200.0, 28800.0)),
    **dict.fromkeys(("ingolstadt1", "ingolstadt7", "ingolstadt21"), (57600.0, 61200.0)),
}
"""The maps of the benchmark RESCO and their windows, seconds of the day."""

HOUR = (0.0, 3600.0)
"""The window of Lille and of Bologna, seconds."""

LILLE_TRIPS = 4000
"""Random trips of Lille in its hour; its package brings no route file."""

_BOLOGNA = (
    "acosta_buslanes.net.xml",
    *("acosta.rou.xml", "acosta_busses.rou.xml"),
    *("acosta_vtypes.add.xml", "acosta_bus_stops.add.xml"),
)

_DETECTORS = re.compile(
    r"e\d\w*|\w*Detector|detector|inductionLoop|instantInductionLoop|edgeData|laneData|timedEvent|vTypeProbe"
)
_FILES = ("net-file", "route-files", "additional-files")
_TIMES = {"begin": "0", "end": "-1", "step-length": "1"}
"""The options of a .sumocfg that are times, and SUMO's defaults; a negative end is none."""
SUMO_TELEPORTS = "300"
"""SUMO's default of time-to-teleport, seconds."""

_SYNONYMS = {
    **{"net": "net-file", "n": "net-file", "r": "route-files", "routes": "route-files"},
    **{"a": "additional-files", "additional": "additional-files", "b": "begin", "e": "end"},
}
_WITHOUT_EFFECT = re.compile(
    r".*(output|log|gui|report|verbose|warnings|xml-validation|delay|start|quit|message|duration|seed|random)"
    r".*|remote-port|time-to-teleport|num-clients|threads|device\.rerouting\.threads"
)
"""Options of a .sumocfg that write or show something, or that this program sets itself."""


@dataclass(frozen=True)
class Scenario:
    """A road network, its demand, and the window that is simulated.

    routes: files of vehicles, trips, flows, routes or vehicle types, in SUMO's order; additional: files that
    SUMO reads before them. begin, end: whole seconds. unused: options of the .sumocfg that have no effect
    here; detectors: additional files that are left out because they only measure and write files. teleports:
    seconds after which the .sumocfg lets a waiting vehicle teleport, which it never does here; 0: never.
    """

    network: Path
    routes: tuple[Path, ...]
    additional: tuple[Path, ...]
    begin: float
    end: float
    unused: tuple[str, ...] = ()
    detectors: tuple[Path, ...] = ()
    teleports: float = 0.0

    def options(self, seed: int, begin: float | None = None) -> list[str]:
        """SUMO's options that simulate it; begin: seconds, in place of the window's."""
        routes = ("-r", ",".join(map(str, self.routes))) if self.routes else ()
        return [*routes, "--begin", f"{self.begin if begin is None else begin:.0f}", "--seed", str(seed)]

    @cached_property
    def listed_vehicles(self) -> frozenset[str]:
        """The names of the vehicles that the route files contain as <vehicle>, not as <trip> or <flow>."""
        found = (element for path in self.routes for element in elements(path))
        return frozenset(element.get("id", "") for element in found if element.tag == "vehicle")


def find(
    scenario: str = "",
    network: str = "",
    routes: Sequence[str] = (),
    begin: float | None = None,
    end: float | None = None,
) -> Scenario:
    """The files and the window of a city.

    scenario: a .sumocfg, ``resco:NAME``, ``lille`` or ``bologna``; or else network and routes: SUMO's files,
    with relative paths from the working folder; additional files may be among the routes. begin, end:
    seconds, in place of the scenario's own. BadInput: a file is missing or not of its kind, a package is not
    installed, or the window is empty.
    """
    if bool(scenario) == bool(network):
        both = "both are set" if scenario else "neither is set"
        raise BadInput(f"a city needs either city.scenario or city.network, and {both}: set one of them")
    if scenario and routes:
        raise BadInput("city.routes belongs to city.network, and city.scenario is set: remove one of them")
    found = _named(scenario) if scenario else _of_files(Path(network), [Path(name) for name in routes])
    return _with_window(found, begin, end)


def _with_window(found: Scenario, begin: float | None, end: float | None) -> Scenario:
    begin = found.begin if begin is None else begin
    end = found.end if end is None else end
    if end < 0 or not math.isfinite(end):
        raise BadInput("the window of the city has no end: set city.end, in seconds")
    for name, value in (("city.begin", begin), ("city.end", end)):
        if not math.isfinite(value) or value < 0 or value != int(value):
            raise BadInput(f"{name} is {shown_value(value)}: give a whole number of seconds, 0 or more")
    if begin >= end:
        raise BadInput(f"city.begin ({begin:g}) is not before city.end ({end:g}): the window is empty")
    return replace(found, begin=begin, end=end)


def _named(scenario: str) -> Scenario:
    if scenario.startswith("resco:"):
        return _resco(scenario.removeprefix("resco:"))
    if scenario == "lille":
        return _lille()
    if scenario == "bologna":
        return _bologna()
    if scenario.endswith(".sumocfg") or Path(scenario).is_file():
        return _of_configuration(Path(scenario))
    known = ", ".join([*(f"resco:{name}" for name in RESCO), "lille", "bologna"])
    raise BadInput(
        f"city.scenario is {shown_value(scenario)}: give a .sumocfg that exists, or one of {known}"
    )


def _resco(name: str) -> Scenario:
    if name not in RESCO:
        raise BadInput(f"RESCO has no map {shown_value(name)}: choose {', '.join(RESCO)}")
    folder = _package("sumo_rl", "sumo-rl") / "nets" / "RESCO" / name
    begin, end = RESCO[name]
    return _with_window(_of_configuration(folder / f"{name}.sumocfg"), begin, end)


def _lille() -> Scenario:
    network = _package("sumo_experiments", "sumo-experiments") / "preset_networks/lille/lille.net.xml"
    _require_file(network, "the network of Lille")
    return Scenario(network, (trips.random_trips(network, LILLE_TRIPS, *HOUR),), (), *HOUR)


def _bologna() -> Scenario:
    """Its .sumocfg names a route file whose end is missing, so the files are named here."""
    folder = _package("sumo_experiments", "sumo-experiments") / "preset_networks/bologna/acosta"
    network, *demand = (folder / name for name in _BOLOGNA)
    for path in (network, *demand):
        _require_file(path, "a file of Bologna")
    vehicles, buses, types, stops = demand
    return Scenario(network, (vehicles, buses), (types, stops), *HOUR)


def _package(module: str, distribution: str) -> Path:
    """The folder of an installed package; it is not imported: sumo-rl's import fails with new libraries."""
    folder = package_folder(module)
    if folder:
        return folder
    raise BadInput(
        f"the scenario needs the package {distribution}, which is not installed: install it with "
        f"pip install 'dials_mpi[{EXTRAS[distribution]}]'"
    )


def _of_files(network: Path, given: Sequence[Path]) -> Scenario:
    _require_file(network, "city.network")
    _require_root(network, "net", "a network of SUMO (.net.xml)")
    for path in given:
        _require_file(path, "city.routes")
    if not given:
        raise BadInput("city.routes is empty: name the files with the vehicles, such as city.rou.xml")
    kinds = {path: root(path).tag for path in given}
    for path, kind in kinds.items():
        if kind in ("net", "configuration"):
            raise BadInput(f"{shown(path)} in city.routes is a <{kind}> of SUMO: name files with vehicles")
    additional = tuple(path for path in given if kinds[path] in ("additional", "add"))
    return _scenario(network, [path for path in given if path not in additional], additional)


def _scenario(
    network: Path,
    routes: Iterable[Path],
    additional: Iterable[Path],
    begin: float = 0.0,
    end: float = -1.0,
    unused: Iterable[str] = (),
) -> Scenario:
    additional = tuple(additional)
    detectors = tuple(path for path in additional if _only_detectors(path))
    kept = tuple(path for path in additional if path not in detectors)
    return Scenario(network, tuple(routes), kept, begin, end, tuple(unused), detectors)


def _only_detectors(path: Path) -> bool:
    """Whether an additional file only measures: SUMO would write its output beside it."""
    _, *content = (element.tag for element in elements(path))
    return bool(content) and all(_DETECTORS.fullmatch(tag) for tag in content)


def _of_configuration(path: Path) -> Scenario:
    """What a .sumocfg names, relative to its folder. BadInput: it or one of its files cannot be used."""
    _require_file(path, "city.scenario")
    options = _options(path)
    networks, routes, additional = (
        [path.parent / name.strip() for name in options.get(kind, "").split(",") if name.strip()]
        for kind in _FILES
    )
    if len(networks) != 1:
        raise BadInput(f"{shown(path)} names {len(networks)} networks: it needs one <net-file value=.../>")
    for file in (*networks, *routes, *additional):
        _require_file(file, f"a file in {shown(path)}")
    _require_root(networks[0], "net", "a network of SUMO (.net.xml)")
    if not routes and not additional:
        raise BadInput(f"{shown(path)} names no vehicles: it needs <route-files value=.../>")
    begin, end, step = (_seconds(path, name, options.get(name, default)) for name, default in _TIMES.items())
    if step != 1:
        raise BadInput(
            f"{shown(path)} sets step-length to {step:g}: a city is simulated in steps of 1 s, so remove it"
        )
    used = {*_FILES, *_TIMES}
    unused = [name for name in options if name not in used and not _WITHOUT_EFFECT.fullmatch(name)]
    found = _scenario(networks[0], routes, additional, max(begin, 0.0), end, unused)
    limit = _seconds(path, "time-to-teleport", options.get("time-to-teleport", SUMO_TELEPORTS))
    return replace(found, teleports=max(limit, 0.0))


def _options(path: Path) -> dict[str, str]:
    """The options of a .sumocfg by their long names; sections do not matter to SUMO."""
    top, *sections = elements(path)
    if top.tag not in ("configuration", "sumoConfiguration"):
        raise BadInput(f"{shown(path)} is a <{top.tag}>, not a configuration of SUMO (.sumocfg)")

    def option(element: Element) -> tuple[str, str]:
        value = element.get("value", element.get("v", (element.text or "").strip()))
        return _SYNONYMS.get(element.tag, element.tag), os.path.expandvars(value)

    inner = (part for section in sections for part in section.iter() if len(part) == 0)
    return dict(option(part) for part in inner)


def _seconds(path: Path, name: str, text: str) -> float:
    """A time of a .sumocfg."""
    try:
        return seconds(text)
    except ValueError:
        raise BadInput(f"{shown(path)} sets {name} to {shown_value(text)}: give seconds") from None


def _require_file(path: Path, what: str) -> None:
    if path.is_dir():
        raise BadInput(f"{what} is {shown(path)}, which is a folder: name a file")
    if not path.is_file():
        raise BadInput(f"{what} is {shown(path)}, which does not exist")


def _require_root(path: Path, tag: str, what: str) -> None:
    found = root(path).tag
    if found != tag:
        raise BadInput(f"{shown(path)} is a <{found}>, not {what}")
