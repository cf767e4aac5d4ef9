"""How domains describe observations and inputs of predictors: against the simulators and SUMO's files."""

import re
from xml.etree import ElementTree

import city_common
import numpy as np
import pytest
from conftest import generators

from dials_mpi.check.contract import _require_parts
from dials_mpi.check.findings import Breach
from dials_mpi.config import load
from dials_mpi.domains import create
from dials_mpi.domains.base import Agent, Part, Region, consecutive
from dials_mpi.learning.tables import predictor_sizes

LINE = consecutive(Part("a", 0, (2, 3), "first", ("x", "y")), Part("b", 0, (2,), "second"))


def domain(*words):
    config = load(None, list(words))
    return create(config.domain, config.domain_section)


def by_name(parts):
    return {part.name: part for part in parts}


@pytest.mark.quick
def test_a_part_is_cut_out_of_vectors_in_row_major_order():
    assert [(part.start, part.stop) for part in LINE] == [(0, 6), (6, 8)]
    x = np.arange(16).reshape(2, 8)
    assert np.array_equal(LINE[0].of(x)[1], [[8, 9, 10], [11, 12, 13]])
    assert np.array_equal(LINE[1].of(x), [[6, 7], [14, 15]])


@pytest.mark.quick
def test_without_a_description_one_part_has_all_numbers():
    (whole,) = Agent(5, 2).description
    assert (whole.start, whole.shape, whole.stop) == (0, (5,), 5)
    assert Region((0,), 4, (2,)).description[0].shape == (4,)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (LINE[:1], "end at 6, and its vector has 8"),
        ((LINE[0], LINE[1]._replace(start=5)), "part b of it starts at 5, not 6"),
        ((LINE[0]._replace(rows=("x",)), LINE[1]), "part a of it names 1 of 2 rows"),
    ],
)
def test_the_check_names_parts_that_do_not_fit(parts, said):
    _require_parts(LINE, 8, "it")
    with pytest.raises(Breach, match=said):
        _require_parts(parts, 8, "it")


def test_the_parts_of_a_warehouse_are_what_its_simulator_shows():
    warehouse = domain("warehouse.grid=[2,2]", "warehouse.block=[1,2]", "warehouse.item_probability=0.3")
    simulator = warehouse.global_simulator(generators(3))
    simulator.reset()
    state = simulator.step(np.ones((4, 3), int)).state
    parts = by_name(warehouse.agents[0].description)
    for i in range(4):
        seen = state.observations[i]
        rows, columns = np.divmod(simulator.cell[i], 5)
        place = parts["location"].of(seen)
        assert (place.sum((1, 2)) == 1).all() and place[np.arange(3), rows, columns].all()
        items = parts["items"].of(seen)
        assert np.array_equal(items, simulator.ages[i][:, 1:] > 0) and items.any()
    edge = [tuple(map(int, re.findall(r"\d", name))) for name in parts["items"].rows]
    assert len(set(edge)) == 12 and all({0, 4} & {*cell} and cell not in [(0, 0), (4, 4)] for cell in edge)
    inputs = by_name(warehouse.regions[1].description)
    for place, robot in enumerate(warehouse.regions[1].agents):
        for name in ("location", "items"):
            joint = inputs[f"{name} of robot {place}"].of(state.inputs[1])
            assert np.array_equal(joint, parts[name].of(state.observations[robot]))


@pytest.mark.parametrize("lights", [False, True])
def test_the_parts_of_the_grid_are_what_its_simulator_shows(lights):
    traffic = domain(
        *("domain=traffic", "traffic.grid=[1,2]", "traffic.block=[1,2]", "traffic.inflow=0.5"),
        *(f"traffic.predictor_sees_lights={lights}", "dataset_size=600"),
    )
    simulator = traffic.global_simulator(generators(1))
    state = simulator.reset()
    for _ in range(20):
        state = simulator.step(np.ones((2, 1), int)).state
    parts, inputs = by_name(traffic.agents[0].description), by_name(traffic.regions[0].description)
    for k in range(2):
        lanes = parts["lanes"].of(state.observations[k])[0]
        assert np.array_equal(lanes.ravel(), simulator.junctions.occupied[k])
        assert parts["phase"].of(state.observations[k])[0].argmax() == simulator.junctions.lights.phase[k]
        assert np.array_equal(inputs[f"lanes of junction {k}"].of(state.inputs[0])[0], lanes)
    assert (f"phase of junction {k}" in inputs) == lights
    assert inputs[f"lanes of junction {k}"].rows == parts["lanes"].rows == ("west", "south", "east", "north")
    simulator.close()


def greens_of_lanes(file, greens):
    """Which of a signal's greens let vehicles drive from each lane, from the connections in SUMO's file."""
    found = {}
    for link in ElementTree.parse(file).iter("connection"):
        if link.get("tl") == greens[0]:
            lane = f"{link.get('from')}_{link.get('fromLane')}"
            open_now = {k for k, state in enumerate(greens[1]) if state[int(link.get("linkIndex"))] in "Gg"}
            found[lane] = found.get(lane, set()) | open_now
    return found


@pytest.mark.parametrize("waiting", [False, True])
def test_the_parts_of_a_city_are_its_lanes_and_their_greens(waiting):
    words = city_common.settings(f"city.observe_waiting={waiting}")
    city, file = domain(*words), city_common.busy().network
    for agent, signal in zip(city.agents, city.signals, strict=True):
        _require_parts(agent.description, agent.observation_size, "it")
        parts = by_name(agent.description)
        assert list(parts) == ["green", "free", "density", "queue", *(["waiting"] if waiting else [])]
        wanted = greens_of_lanes(file, (signal.name, signal.greens))
        for name in list(parts)[2:]:
            lanes = parts[name]
            assert dict(zip(lanes.rows, map(set, lanes.actions), strict=True)) == wanted
        assert parts["green"].rows == signal.greens and len(signal.greens) == agent.actions


def test_the_parts_of_a_citys_predictors_are_what_its_simulator_shows():
    city = domain(*city_common.settings("city.observe_waiting=true"))
    simulator = city.global_simulator(generators(1))
    simulator.reset()
    for _ in range(30):
        state, *_ = simulator.step(np.ones((len(city.agents), 1), int))
    found = 0
    for region, seen, influence in zip(city.regions, state.inputs, city.influences, strict=True):
        _require_parts(region.description, predictor_sizes(region)[0], "it")
        parts = by_name(region.description)
        for name, part in parts.items():
            if name.startswith(("green of", "hour", "light of")):
                assert part.of(np.asarray(seen)).sum() == 1, name
        assert (parts["ages"].of(np.asarray(seen)).sum(-1) == 1).all()
        assert parts["ages"].rows == tuple(source.name for source in influence.sources())
        on_road = {
            simulator.simulation.ask("vehicle", "getLaneID", [car])[0]
            for car in simulator.simulation.vehicles()
        }
        occupied = parts["lanes"].of(np.asarray(seen))[0].any(1)
        assert {lane for lane, some in zip(parts["lanes"].rows, occupied, strict=True) if some} <= on_road
        found += occupied.sum()
    assert found
    simulator.close()
