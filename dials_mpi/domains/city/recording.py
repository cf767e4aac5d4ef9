"""The city under its own programs, recorded once: how vehicles enter regions, and who departs there.

The local simulators insert vehicles as they were seen to enter in this recording: at the same places of a
lane, with the same speeds and types. Vehicles that depart in a region are its own demand; they depart at the
recorded times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from dials_mpi.core import cache, first_start
from dials_mpi.domains.city import influence, regions, tracking
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.city.tracking import Tracker, Visit
from dials_mpi.domains.city.xml_files import elements
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.simulation import Simulation

KEPT = 200
"""The largest number of entries that are kept for each lane."""

SEED = 2022
"""Of the recorded simulation."""

Entered = tuple[float, float, str]
"""How a vehicle entered: position, metres; speed, m/s; type."""

_VEHICLES = ("vehicle", "trip", "flow")
_DEPART = {"departLane": "first", "departPos": "base", "departSpeed": "0"}
"""How a vehicle departs, and SUMO's defaults."""


@dataclass(frozen=True)
class Departure:
    """A vehicle of a region's own demand.

    second: when it is due, since the window's begin. run: its edges in the region and the one after. type:
    its vehicle type. lane, position, speed: as in SUMO's attributes departLane, departPos, departSpeed.
    """

    second: float
    run: tuple[str, ...]
    type: str
    lane: str
    position: str
    speed: str


@dataclass
class Recorded:
    """What was seen of one region.

    entries: vehicles that entered, by lane. departures: its own demand, in the order of time.
    """

    entries: dict[str, list[Entered]] = field(default_factory=dict)
    departures: list[Departure] = field(default_factory=list)


def recorded(scenario: Scenario, influences: Sequence[Influence], backend: str = "auto") -> list[Recorded]:
    """What was seen of each region; the first call simulates, and keeps the result in the cache."""
    key = _key(scenario, influences, backend)
    folder = cache.folder("city")
    stored = cache.read(folder / f"{key}.json") if folder else None
    if stored is None:
        with first_start.making("recording the vehicles of the city"):
            stored = json.dumps([asdict(each) for each in _record(scenario, influences, backend)]).encode()
        if folder:
            cache.write(folder / f"{key}.json", stored)
    return [_loaded(each) for each in json.loads(stored)]


def _loaded(stored: dict) -> Recorded:
    departures = [Departure(**{**each, "run": tuple(each["run"])}) for each in stored["departures"]]
    entries = {lane: [(p, v, kind) for p, v, kind in seen] for lane, seen in stored["entries"].items()}
    return Recorded(entries, departures)


def _key(scenario: Scenario, influences: Sequence[Influence], backend: str) -> str:
    files = (scenario.network, *scenario.routes, *scenario.additional)
    modules = [Path(str(each.__file__)) for each in (influence, regions, tracking)]
    digests = (sha256(file.read_bytes()).hexdigest() for file in (*files, Path(__file__), *modules))
    edges = (" ".join(sorted(each.inside)) for each in influences)
    window = f"{scenario.begin} {scenario.end}"
    return cache.key(window, installation.simulator_version(backend, False), *digests, *edges)


def _record(scenario: Scenario, influences: Sequence[Influence], backend: str) -> list[Recorded]:
    found = [Recorded() for _ in influences]
    attributes, tracker = _depart_attributes(scenario.routes), Tracker(influences)
    simulation = start(scenario, SEED, backend)
    for second in range(1, round(scenario.end - scenario.begin) + 1):
        simulation.step()
        for visit in tracker.second(simulation):
            seen = found[visit.region]
            if visit.own:
                run = influences[visit.region].way(visit.run, visit.following)
                seen.departures.append(_departure(simulation, visit, second, run, attributes))
            else:
                _note_entry(simulation, visit, seen)
    simulation.close()
    for seen in found:
        seen.departures.sort(key=lambda departure: departure.second)
    return found


def start(scenario: Scenario, seed: int, backend: str = "auto") -> Simulation:
    """The whole city under its own programs, from the window's begin on."""
    return Simulation(scenario.network, scenario.additional, (), backend, options=scenario.options(seed))


def _note_entry(simulation: Simulation, visit: Visit, seen: Recorded) -> None:
    if visit.road != visit.run[0]:  # it was first seen further on
        return
    questions = ("getLaneID", "getLanePosition", "getSpeed", "getTypeID")
    lane, position, speed, kind = (simulation.ask("vehicle", q, [visit.vehicle])[0] for q in questions)
    entries = seen.entries.setdefault(lane, [])
    if len(entries) < KEPT:
        entries.append((round(position, 2), round(speed, 2), kind))


def _departure(
    simulation: Simulation,
    visit: Visit,
    second: int,
    run: tuple[str, ...],
    attributes: dict[str, dict[str, str]],
) -> Departure:
    delay, kind = (simulation.ask("vehicle", q, [visit.vehicle])[0] for q in ("getDepartDelay", "getTypeID"))
    name = visit.vehicle if visit.vehicle in attributes else visit.vehicle.rpartition(".")[0]  # of a flow
    how = {**_DEPART, **attributes.get(name, {})}
    return Departure(max(0.0, second - 1 - delay), run, kind, *how.values())


def _depart_attributes(routes: Sequence[Path]) -> dict[str, dict[str, str]]:
    """How the vehicles of the route files depart, by name, where a file says so."""
    found = {}
    for path in routes:
        for element in elements(path):
            if element.tag in _VEHICLES:
                given = {name: element.get(name) for name in _DEPART}
                found[element.get("id", "")] = {name: value for name, value in given.items() if value}
    return found
