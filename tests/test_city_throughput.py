"""The reference of a city's speed, SUMO alone with the same vehicles and signals; and what is read."""

from __future__ import annotations

import numpy as np
import pytest
from city_common import busy, network

from dials_mpi.domains.city import City, CityConfig, CityGlobalSimulator, throughput
from dials_mpi.domains.city.influence import CELL, CELLS, HOURS
from dials_mpi.domains.city.net import read
from dials_mpi.domains.sumo.command_log import replayed


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def domain() -> City:
    given = busy()
    return City(
        CityConfig(
            scenario="", network=str(given.network), routes=(str(given.routes[0]),), begin=100, horizon=120
        )
    )


def where(simulation) -> dict[str, tuple[str, float]]:
    names = simulation.vehicles()
    lanes, positions = (simulation.ask("vehicle", q, names) for q in ("getLaneID", "getLanePosition"))
    return dict(zip(names, zip(lanes, positions, strict=True), strict=True))


def test_sumo_alone_ends_where_the_global_simulator_does(domain, monkeypatch):
    logged, logs = throughput._logging(domain)
    ends = []
    monkeypatch.setattr(CityGlobalSimulator, "close", lambda self: ends.append(where(self.simulation)))
    throughput._collect(logged, 0)
    alone = replayed(logs[0].commands, lambda: throughput._bare(domain)).simulation
    assert where(alone) == ends[0] and len(ends[0]) > 20
    # Without the changes of lights it ends elsewhere: the comparison would notice.
    logs[0].commands = [command for command in logs[0].commands if command[0] == "step"]
    assert where(replayed(logs[0].commands, lambda: throughput._bare(domain)).simulation) != ends[0]


def test_the_ratios_are_on_the_right_side_of_one(domain):
    assert 1 < throughput.collect_ratio(domain, 60, repeats=1) < 20
    assert 0.05 < throughput.local_share(domain, 60, repeats=1) < 1


def test_inputs_show_the_vehicles_on_the_lanes_that_the_predictor_sees(domain):
    """Against plain questions about each lane, region by region."""
    simulator = domain.global_simulator([np.random.default_rng(3)])
    simulator.reset(elapsed=np.array([60]))
    checked = 0
    for second in range(40):
        state = simulator.step(np.zeros((4, 1), int)).state
        places = where(simulator.simulation).values()
        for influence, row in zip(domain.influences, state.inputs, strict=True):
            cells = np.zeros((len(influence.seen_lanes), CELLS), np.uint8)
            for number, (seen, start) in enumerate(influence.seen_lanes):
                for lane, position in places:
                    if lane == seen and start <= position < start + CELLS * CELL:
                        cells[number, int((position - start) / CELL)] = 1
            assert np.array_equal(row[0, : cells.size], cells.ravel())
            hours = row[0, -HOURS:]
            assert hours.sum() == 1 and hours.argmax() == (61 + second) * HOURS // 120
            checked += cells.sum()
    simulator.close()
    assert checked > 20


def test_no_vehicle_is_lost_that_is_too_fast_for_the_road_ahead(tmp_path):
    """SUMO drops such vehicles by default, and says so on stderr only."""
    lights = ("--tls.guess", "--tls.guess.threshold=50", "--random-lanenumber", "--seed=7")
    sizes = ("--rand.iterations=60", "--rand.max-distance=150", "--rand.min-distance=40")
    routes = tmp_path / "none.rou.xml"
    path = network("--rand", *sizes, *lights)
    edges = sorted(read(path).edges)
    routes.write_text(f'<routes><trip id="a" depart="0" from="{edges[0]}" to="{edges[0]}"/></routes>')
    domain = City(CityConfig(scenario="", network=str(path), routes=(str(routes),), begin=0, horizon=60))
    for k in range(len(domain.regions)):
        inserted, seen = fast_entries(domain, k)
        assert seen >= inserted > 0, domain.signals[k].name


def fast_entries(domain: City, k: int) -> tuple[int, int]:
    """Vehicles that enter a region fast, just before the end of the entry; and those that SUMO has."""
    simulator = domain.local_simulator([k], 1, [np.random.default_rng(0)])
    lanes = [source.lane for source in domain.influences[k].entries]
    for lane in lanes:
        simulator.insertions._seen.entries[lane] = [(domain.net.lengths[lane] - 1, 13.0, "DEFAULT_VEHTYPE")]
    simulator.reset()
    given, inserted, seen = np.zeros((1, len(domain.regions[k].source_classes)), int), 0, set()
    for second in range(40):
        given[0, : len(lanes)] = second % 20 == 0
        inserted += int((given[0, : len(lanes)] > 0).sum())
        simulator.step(np.zeros((1, 1), int), [given])
        seen |= {*simulator.simulation.vehicles(), *simulator.simulation.waiting()}
    simulator.close()
    return inserted, len(seen)
