"""Lanes and roads that are closed to some classes of vehicles: nobody is inserted where SUMO refuses it."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from city_common import busy

from dials_mpi.domains.city import City, CityConfig
from dials_mpi.domains.city.net import read

pytest.importorskip("libsumo")
SECONDS = 60


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def between_signals(path) -> list[str]:
    """The roads that begin at a signal and lead to another one."""
    net = read(path)
    lit = {junction for signal in net.signals.values() for junction in signal.junctions}
    return [name for name, edge in net.edges.items() if edge.start in lit and net.connections[name]]


def city(folder, closed: set[str], *buses: str) -> City:
    """The busy grid, where only buses may use some lanes; buses: more of its route file."""
    given = busy()
    net, demand = (ElementTree.parse(path) for path in (given.network, given.routes[0]))
    for lane in net.getroot().iter("lane"):
        if lane.get("id") in closed:
            lane.set("allow", "bus")
    for number, text in enumerate(buses):
        demand.getroot().insert(number, ElementTree.fromstring(text))
    net.write(folder / "closed.net.xml")
    demand.write(folder / "closed.rou.xml")
    return City(
        CityConfig(
            scenario="",
            network=str(folder / "closed.net.xml"),
            routes=(str(folder / "closed.rou.xml"),),
            begin=100,
            horizon=SECONDS,
        )
    )


def insert_everywhere(found: City) -> int:
    """Give the sources all their classes, one after another; the number of vehicles on the road at last."""
    number = 0
    for k, influence in enumerate(found.influences):
        simulator = found.local_simulator([k], 2, [np.random.default_rng(k)])
        simulator.reset()
        counts = np.array(influence.classes)
        for second in range(SECONDS - 1):
            sources = np.tile(second % counts, (2, 1))
            simulator.step(np.zeros((len(influence.plan.signals), 2), np.int64), [sources])
        number += len(simulator.simulation.vehicles())
        simulator.close()
    return number


def test_a_lane_that_no_vehicle_of_the_demand_may_use_is_no_source(tmp_path):
    closed = {f"{between_signals(busy().network)[0]}_0"}
    found = city(tmp_path, closed)
    assert not closed & {lane for each in found.influences for lane, _ in each.entries}
    assert insert_everywhere(found)


BUS = '<vType id="coach" vClass="bus"/>'


def test_a_lane_for_buses_is_a_source_where_there_are_buses(tmp_path):
    closed = {f"{between_signals(busy().network)[0]}_0"}
    found = city(tmp_path, closed, BUS)
    assert closed & {lane for each in found.influences for lane, _ in each.entries}
    assert insert_everywhere(found)


def test_no_car_enters_to_take_a_path_for_buses(tmp_path):
    road = between_signals(busy().network)[0]
    closed = set(read(busy().network).edges[road].lanes)
    trip = f'<trip id="first" type="coach" depart="100" from="{road}" to="{road}"/>'
    found = city(tmp_path, closed, BUS, trip)
    paths = {path for each in found.influences for source in each.entries for path in source.entry.paths}
    assert any(road in path[1:] for path in paths)
    assert insert_everywhere(found)
    allowed = {
        road in path: found.net.classes(source.lane, path)
        for each in found.influences
        for source in each.entries
        for path in source.entry.paths
        if source.lane not in closed
    }
    assert "passenger" not in allowed[True] and "passenger" in allowed[False]
