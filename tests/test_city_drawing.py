"""Pictures of cities: what is drawn against SUMO's state; maps of regions and of delays."""

import city_common
import numpy as np
import pytest
from conftest import generators
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from PIL import Image

from dials_mpi.domains.city import City, CityConfig
from dials_mpi.domains.city import drawing as drawings
from dials_mpi.domains.city.statistics import level_of_service
from dials_mpi.watch.__main__ import main

COLOURS = {"G": "#009E73", "g": "#009E73", "y": "#F0E442", "r": "#D55E00"}


@pytest.fixture(scope="module")
def city() -> City:
    busy = city_common.busy()
    section = CityConfig(
        scenario="", network=str(busy.network), routes=(str(busy.routes[0]),), begin=100, horizon=120
    )
    return City(section)


def fresh_axes(width: float):
    return Figure((width, width)).add_axes((0, 0, 1, 1))


def played(city: City, steps: int, axes=None):
    """The global simulator and its drawing after some steps of random actions."""
    simulator = city.global_simulator(generators(1))
    simulator.reset()
    drawing = city.drawing(simulator, axes or fresh_axes(20), None)
    chance = np.random.default_rng(3)
    for step in range(steps):
        if step % 10 == 0:
            actions = np.array([[chance.integers(agent.actions)] for agent in city.agents])
        simulator.step(actions)
    return simulator, drawing


def test_roads_are_drawn_in_the_order_of_the_file(city):
    """A region keeps its roads in a set, whose order differs between processes."""
    influence = city.influences[0]
    net, kept = influence.net, sorted(influence.plan.edges)
    drawn = [drawings.Roads(net, roads, kept, fresh_axes(2)) for roads in (kept, kept[::-1])]
    assert list(drawn[0].inner) == list(drawn[1].inner) and drawn[0].lanes == drawn[1].lanes
    assert len(drawn[0].inner) > 3


def test_cars_are_where_sumo_has_them(city):
    simulator, drawing = played(city, 60)
    drawing.update(None)
    api = simulator.simulation._api
    names = api.vehicle.getIDList()
    outlines = [path.vertices[:-1] for path in drawing.cars.get_paths()]
    assert len(outlines) == len(names) > 20
    for name, outline in zip(names, outlines, strict=True):
        np.testing.assert_allclose(outline[[0, 5]].mean(axis=0), api.vehicle.getPosition(name), atol=1e-6)
        back = outline[[2, 3]].mean(axis=0) - outline[[0, 5]].mean(axis=0)
        assert np.hypot(*back) == pytest.approx(api.vehicle.getLength(name))
        angle = np.deg2rad(api.vehicle.getAngle(name))
        np.testing.assert_allclose(-back / np.hypot(*back), [np.sin(angle), np.cos(angle)], atol=1e-6)
    speeds = [api.vehicle.getSpeed(name) for name in names]
    assert drawing.cars.get_array().tolist() == pytest.approx(speeds)


def test_lights_stand_at_the_stop_lines_and_show_each_link(city):
    simulator, drawing = played(city, 31)
    api, seen = simulator.simulation._api, set()
    for _ in range(4):
        simulator.step(np.zeros((4, 1), int))
        drawing.update(None)
        wanted = []
        for name in api.trafficlight.getIDList():
            state = api.trafficlight.getRedYellowGreenState(name)
            for link, ends in zip(state, api.trafficlight.getControlledLinks(name), strict=True):
                wanted += [(api.lane.getShape(end[0])[-1], link) for end in ends]
        bars = list(drawing.lights.get_segments())
        assert len(bars) == len(wanted) > 30
        left = list(zip([bar.mean(axis=0) for bar in bars], drawing.lights.get_color(), strict=True))
        for place, link in wanted:  # each has a bar of its own within half a lane of the stop line's middle
            near = [
                k
                for k, (middle, colour) in enumerate(left)
                if np.hypot(*(middle - place)) < 1.6 and tuple(colour) == to_rgba(COLOURS[link])
            ]
            assert near, (place, link)
            left.pop(near[0])
            seen.add(link.upper())
    assert seen == {"G", "Y", "R"}


def test_in_a_small_picture_roads_are_wider_and_directions_stay_apart(city):
    simulator, drawing = played(city, 60, fresh_axes(1.5))
    drawing.update(None)
    roads = drawing._roads
    assert roads.widening > 1.2
    api = simulator.simulation._api
    for name, path in zip(api.vehicle.getIDList(), drawing.cars.get_paths(), strict=True):
        lane = api.vehicle.getLaneID(name)
        if lane.startswith(":"):
            continue
        number = int(lane.rpartition("_")[2])
        from_left = city.net.edges[api.vehicle.getRoadID(name)].lanes[::-1].index(lane) + 0.5
        assert number + from_left == len(city.net.edges[api.vehicle.getRoadID(name)].lanes) - 0.5
        moved = path.vertices[[0, 5]].mean(axis=0) - api.vehicle.getPosition(name)
        angle = np.deg2rad(api.vehicle.getAngle(name))
        right = np.array([np.cos(angle), -np.sin(angle)])
        np.testing.assert_allclose(moved, (roads.widening - 1) * 3.2 * from_left * right, atol=1e-6)


def test_of_a_local_simulator_one_copy_is_drawn_with_what_enters(city):
    local = city.local_simulator([0], 3, generators(1))
    local.reset()
    drawing = city.drawing(local, fresh_axes(20), 0)
    chance, entered = np.random.default_rng(1), 0
    influence = city.influences[0]
    for _ in range(40):
        sources = np.stack([chance.integers(city.regions[0].source_classes) for _ in range(3)])
        sources[:, : len(influence.entries)] *= chance.random((3, len(influence.entries))) < 0.2
        local.step(np.zeros((1, 3), int), [sources])
        drawing.update(sources[0])
        names = [name for name in local.simulation.vehicles() if name.startswith("0/")]
        assert len(drawing.cars.get_paths()) == len(names) < len(local.simulation.vehicles()) + 1
        wanted = [
            influence.net.shapes[source.lane][0]
            for source, entering in zip(influence.entries, sources[0], strict=False)
            if entering
        ]
        arrows = [path.vertices[0] for path in drawing.entering.get_paths()]
        assert len(arrows) == len(wanted)
        for tip, start in zip(arrows, wanted, strict=True):
            assert np.hypot(*(tip - start)) < 2
        entered += len(wanted)
    assert entered > 5 and len(names) > 3
    own = local.simulation.lights(["0/A0"])[0]
    shown = {tuple(colour) for colour in drawing.lights.get_color()}
    assert {to_rgba(COLOURS[letter]) for letter in own} <= shown


def test_regions_have_their_roads_and_neighbours_other_colours(city):
    owners = drawings.owner_of_roads(city.net, city.influences)
    for k, signal in enumerate(city.signals):
        assert {owners[city.net.lane_edge[lane]] for lane in signal.incoming} == {k}
    chosen = drawings.neighbours_differ(city.influences)
    for k, one in enumerate(city.influences):
        for j, other in enumerate(city.influences[:k]):
            assert chosen[j] != chosen[k] or not one.inside & other.inside
    axes = fresh_axes(5)
    city.draw_map(axes)
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "3"]
    drawn = [c for lines in axes.collections if isinstance(lines, LineCollection) for c in lines.get_color()]
    assert {to_hex(colour).upper() for colour in drawn} >= {colour.upper() for colour in chosen}


def test_a_map_of_delays_has_those_of_the_episode(city):
    simulator, _ = played(city, 120)
    axes = fresh_axes(5)
    city.draw_scores(axes, simulator)
    delays = simulator.signal_delays()
    assert [text.get_text() for text in axes.texts] == [f"{found.delay:.0f}" for found in delays]
    drawn = {to_hex(c).upper() for lines in axes.collections for c in lines.get_color()}
    levels = {level_of_service(found.delay) for found in delays}
    assert {drawings.LEVEL_COLOURS[level].upper() for level in levels} == drawn - {"#D4D4D4"}


def test_the_command_draws_pictures_films_and_two_maps(tmp_path, capsys):
    busy = city_common.busy()
    settings = [
        *(
            "domain=city",
            "city.scenario=''",
            f"city.network={busy.network}",
            f"city.routes=[{busy.routes[0]}]",
        ),
        *("city.begin=100", "city.horizon=60", "dataset_size=6000"),
    ]
    for out, more in (("a.gif", []), ("b.png", ["--before", "native"])):
        with pytest.raises(SystemExit) as leaving:
            words = ["--policy", "max-pressure", "--steps", "20", "--out", str(tmp_path / out)]
            main([*settings, *words, *more])
        assert leaving.value.code == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "native, delay " in said and "max-pressure, delay " in said
    with Image.open(tmp_path / "a.gif") as movie, Image.open(tmp_path / "b.png") as maps:
        assert movie.n_frames == 21
        assert maps.width / maps.height > 1.5 > movie.width / movie.height
    for wrong in (["--before", "nothing"], ["--before", "native", "--region", "0"]):
        with pytest.raises(SystemExit) as leaving:
            main([*settings, "--policy", "native", "--out", str(tmp_path / "c.png"), *wrong])
        assert leaving.value.code == 2 and "--before" in capsys.readouterr().err
