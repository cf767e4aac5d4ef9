"""Neighbouring signals that share a region."""

from __future__ import annotations

import numpy as np
import pytest
from city_common import busy, grid

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import City, CityConfig
from dials_mpi.domains.city.blocks import groups
from dials_mpi.domains.city.net import read


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def city(block: str) -> City:
    given = busy()
    config = CityConfig(
        scenario="", network=str(given.network), routes=(str(given.routes[0]),), begin=100, horizon=60,
        block=block,
    )  # fmt: skip
    return City(config)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("", [("A0",), ("A1",), ("B0",), ("B1",)]),
        ("auto:1", [("A0",), ("A1",), ("B0",), ("B1",)]),
        ("auto:2", [("A0", "A1"), ("B0", "B1")]),
        ("auto: 3", [("A0", "A1", "B0"), ("B1",)]),
        ("auto:99", [("A0", "A1", "B0", "B1")]),
        ("B1+A0", [("A0", "B1"), ("A1",), ("B0",)]),
        ("B0 + B1, A1+A0", [("A0", "A1"), ("B0", "B1")]),
    ],
)
def test_the_signals_of_each_region(block, expected):
    assert groups(read(grid()), block) == expected


def test_automatic_groups_are_neighbours_and_have_every_signal_once():
    net = read(grid("--grid.x-number=4", "--grid.y-number=2"))
    found = groups(net, "auto:2")
    assert sorted(name for names in found for name in names) == sorted(net.agents)
    for one, other in found:
        distance = np.subtract(net.junctions[one][1], net.junctions[other][1])
        assert np.hypot(*distance) == pytest.approx(150, abs=1)


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ("auto", "auto:4"),
        ("auto:0", "auto:4"),
        ("auto:x", "auto:4"),
        ("A0+Z9", "'Z9', which is no signal"),
        ("A0+A1,", "'', which is no signal"),
        ("A0+A1, A1+B1", "'A1' twice"),
        ("A0+A0", "'A0' twice"),
    ],
)
def test_other_settings_are_refused(block, part):
    with pytest.raises(BadInput, match=r"city\.block") as refusal:
        city(block)
    assert part in str(refusal.value)


def test_a_block_is_one_region_with_several_agents():
    domain = city("B1+A1")
    assert [region.agents for region in domain.regions] == [(0,), (1, 3), (2,)]
    block = domain.influences[1]
    # The road between the two is inside: neither an entry nor an exit, unlike in regions of one signal each.
    rim = {*(entry.edge for entry in block.plan.entries), *(out.edge for out in block.plan.exits)}
    assert {"A1B1", "B1A1"} <= block.plan.edges and not {"A1B1", "B1A1"} & rim
    assert {out.signal for out in block.plan.exits if out.signal} == {"A0", "B0"}


def test_a_block_of_all_signals_has_no_signal_outside():
    [region], [influence] = city("auto:4").regions, city("auto:4").influences
    assert region.agents == (0, 1, 2, 3)
    assert not influence.exits and not influence.entries and region.source_classes == (2,)


def test_a_tile_that_has_gone_from_the_cache_is_cut_again(tmp_path, monkeypatch):
    """As if somebody had removed the cache while a run trains."""
    domain = city("B1+A1")
    simulator = domain.local_simulator([1], 2, np.random.default_rng(0).spawn(1))
    before = simulator.reset()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    after = simulator.reset()
    assert len(list((tmp_path / "elsewhere").rglob("tile.net.xml"))) == 1
    assert all(map(np.array_equal, before.observations, after.observations))
    simulator.close()


def test_the_local_simulator_of_a_block_has_its_agents_in_order():
    domain = city("B1+A1")
    simulator = domain.local_simulator([1], 2, np.random.default_rng(0).spawn(1))
    state = simulator.reset()
    assert [rows.shape for rows in state.observations] == [
        (2, domain.agents[i].observation_size) for i in (1, 3)
    ]
    sources = [np.zeros((2, len(domain.regions[1].source_classes)), int)]
    for _ in range(10):
        step = simulator.step(np.array([[0, 1], [1, 0]]), sources)
    assert step.rewards.shape == (2, 2) and step.state.inputs[0].shape == (2, domain.regions[1].input_size)
    # A decision for green 1 is shown by that agent in that environment only.
    green = [rows[:, :2].argmax(1).tolist() for rows in step.state.observations]
    assert green == [[0, 1], [1, 0]]
    simulator.close()
