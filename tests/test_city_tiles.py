"""Regions and their tiles: vehicles drive through a tile as they drive through the whole network."""

from __future__ import annotations

import re
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import pytest

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import cutting, scenario
from dials_mpi.domains.city.net import Net, read
from dials_mpi.domains.city.regions import RegionPlan, Roads, plan
from dials_mpi.domains.city.tiles import Cutter, Tile
from dials_mpi.domains.sumo import installation

libsumo = pytest.importorskip("libsumo")

GRID = [
    "--grid",
    "--grid.number=3",
    "--grid.length=120",
    "--grid.attach-length=200",
    "--default.lanenumber=2",
]
RANDOM = ["--rand", "--rand.iterations=60", "--rand.max-distance=150", "--rand.min-distance=40", "--seed=7"]
LIGHTS = ["--default-junction-type=traffic_light", "--no-turnarounds"]
GUESSED = ["--tls.guess", "--tls.guess.threshold=50", "--no-turnarounds=false", "--random-lanenumber"]
WALKERS = [*GRID, *LIGHTS, "--sidewalks.guess", "--crossings.guess"]
LEFT = [*GRID, *LIGHTS, "--lefthand"]


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A network that netgenerate makes with some options, made once."""
    folder = tmp_path_factory.mktemp("nets")
    made: dict[str, Net] = {}

    def generate(options: list[str]) -> Net:
        key = " ".join(options)
        if key not in made:
            path = folder / f"{len(made)}.net.xml"
            installation._run([installation.program("netgenerate"), *options, f"--output-file={path}"])
            made[key] = read(path)
        return made[key]

    return generate


def routes(region: RegionPlan, copies: list[str], path: Path) -> Path:
    """A vehicle on a path of the region every second, in every copy; nothing is random."""
    ways = [way for entry in (*region.entries, *region.fringe) for way in entry.paths]
    lines = ['<vType id="car" sigma="0" speedDev="0"/>']
    for second, way in enumerate(islice(cycle(ways), 70)):
        for copy in copies:
            edges = " ".join(copy + edge for edge in way)
            head = f'<vehicle id="{copy}{second}" type="car" depart="{second}" departLane="best">'
            lines.append(f'{head}<route edges="{edges}"/></vehicle>')
    path.write_text(f"<routes>{''.join(lines)}</routes>")
    return path


def drive(network: Path, demand: Path, seconds: int = 110) -> list[dict[str, tuple[str, float, float]]]:
    """Lane, position and speed of every vehicle in each second."""
    libsumo.start(["sumo", "-n", str(network), "-r", str(demand), "--no-step-log", "--no-warnings"])
    try:
        vehicle, seen = libsumo.vehicle, []
        for _ in range(seconds):
            libsumo.simulationStep()
            seen.append(
                {
                    name: (vehicle.getLaneID(name), vehicle.getLanePosition(name), vehicle.getSpeed(name))
                    for name in vehicle.getIDList()
                }
            )
        return seen
    finally:
        libsumo.close()


def in_copy(seen: list[dict[str, tuple[str, float, float]]], copy: str) -> list:
    """What was seen in one copy, with the city's names."""
    return [
        {
            name.removeprefix(copy): (lane.replace(copy, "", 1), *rest)
            for name, (lane, *rest) in second.items()
            if name.startswith(copy)
        }
        for second in seen
    ]


def require_same_traffic(net: Net, tile: Tile, folder: Path) -> None:
    """In every copy, each vehicle is where it is in the whole network, every second, to the last bit."""
    whole = drive(net.path, routes(tile.plan, [""], folder / "whole.rou.xml"))
    copies = [f"{copy}/" for copy in range(tile.copies)]
    parts = drive(tile.network, routes(tile.plan, copies, folder / "tile.rou.xml"))
    assert max(map(len, whole)) > 8
    for copy in copies:
        for second, (theirs, ours) in enumerate(zip(whole, in_copy(parts, copy), strict=True)):
            assert ours == {name: tuple(seen) for name, seen in theirs.items()}, (tile.plan.signals, second)


@pytest.mark.parametrize("options", [[*GRID, *LIGHTS], [*RANDOM, *GUESSED], WALKERS, LEFT])
def test_vehicles_drive_through_a_tile_as_through_the_city(options, generated, tmp_path):
    net = generated(options)
    roads, cutter = Roads(net), Cutter(net)
    regions = [plan(net, [name], roads=roads) for name in net.agents]
    busiest = sorted(regions, key=lambda region: -len(region.edges))[:2]
    for region in busiest:
        require_same_traffic(net, cutter.tile(region, 2), tmp_path)


@pytest.mark.skipif(find_spec("sumo_rl") is None, reason="sumo-rl is not installed")
@pytest.mark.parametrize("name", ["cologne3", "ingolstadt7"])
def test_vehicles_drive_through_tiles_of_known_maps_as_through_them(name, tmp_path):
    net = read(scenario.find(f"resco:{name}").network)
    cutter = Cutter(net)
    for signal in net.agents:
        require_same_traffic(net, cutter.tile(plan(net, [signal]), 1), tmp_path)


def test_copies_are_the_city_lane_for_lane_and_phase_for_phase(generated):
    import sumolib

    net = generated([*RANDOM, *GUESSED])
    region = max((plan(net, [name]) for name in net.agents), key=lambda found: len(found.edges))
    tile = Cutter(net).tile(region, 3)
    city, part = (
        sumolib.net.readNet(str(p), withInternal=True, withPrograms=True) for p in (net.path, tile.network)
    )
    assert {e.getID() for e in part.getEdges(withInternal=False)} == {
        tile.name(copy, edge) for copy in range(3) for edge in region.edges
    }
    checked = 0
    for lane in (lane for edge in city.getEdges() for lane in edge.getLanes()):
        for copy in range(3):
            if part.hasEdge(tile.name(copy, lane.getEdge().getID())):
                same = part.getLane(tile.name(copy, lane.getID()))
                assert (same.getLength(), same.getSpeed()) == (lane.getLength(), lane.getSpeed())
                assert same.getShape() == lane.getShape()
                checked += 1
    assert checked > 3 * len(region.edges)
    for name in region.signals:
        for copy in range(3):
            programs = [city.getTLS(name).getPrograms(), part.getTLS(tile.name(copy, name)).getPrograms()]
            theirs, ours = ([(p.state, p.duration) for p in program["0"].getPhases()] for program in programs)
            assert ours == theirs


def test_a_neighbours_state_can_be_shown_at_an_exit_as_it_is(generated):
    net = generated([*GRID, *LIGHTS])
    tile = Cutter(net).tile(plan(net, ["B1"]), 2)
    out = next(out for out in tile.plan.exits if out.signal == "C1")
    state = net.signals["C1"].phases[0][0]
    libsumo.start(["sumo", "-n", str(tile.network), "--no-step-log", "--no-warnings"])
    try:
        libsumo.trafficlight.setRedYellowGreenState(tile.name(1, "C1"), state)
        links = libsumo.trafficlight.getControlledLinks(tile.name(1, "C1"))
        for index in out.links:
            theirs = {
                (tile.name(1, link.from_lane), tile.name(1, link.to_lane))
                for link in net.signals["C1"].links[index]
            }
            assert {pair[:2] for pair in links[index]} == theirs
    finally:
        libsumo.close()


def test_the_region_in_the_middle_of_a_grid(generated):
    net = generated([*GRID, *LIGHTS])
    region = plan(net, ["B1"])
    assert {entry.edge for entry in region.entries} == {"A1B1", "C1B1", "B0B1", "B2B1"}
    assert {entry.edge: entry.distance for entry in region.entries}["A1B1"] == net.edges["A1B1"].length
    assert {(out.edge, out.signal) for out in region.exits} == {
        ("B1A1", "A1"),
        ("B1C1", "C1"),
        ("B1B0", "B0"),
        ("B1B2", "B2"),
    }
    exit_of = {out.edge: out for out in region.exits}
    assert set(exit_of["B1C1"].behind) == {"C1C0", "C1C2", "C1right1"}
    (west,) = (entry for entry in region.entries if entry.edge == "A1B1")
    assert {path[1] for path in west.paths} == {"B1C1", "B1B0", "B1B2"}
    assert len(west.paths) == 9
    assert all(path[-1] in exit_of[path[1]].behind for path in west.paths)


def test_a_region_at_the_rim_and_one_of_two_signals(generated):
    net = generated([*GRID, *LIGHTS])
    corner = plan(net, ["A0"])
    assert {entry.edge for entry in corner.fringe} == {"left0A0", "bottom0A0"}
    assert {entry.edge for entry in corner.entries} == {"B0A0", "A1A0"}
    assert {out.edge for out in corner.exits if out.signal is None} == {"A0left0", "A0bottom0"}
    both = plan(net, ["A0", "B0"])
    assert {"A0B0", "B0A0"} <= both.edges
    assert not {"A0B0", "B0A0"} & {entry.edge for entry in both.entries}
    assert {entry.edge for entry in both.entries} == {"A1A0", "B1B0", "C0B0"}


def test_inner_destinations_get_paths(generated):
    net = generated([*GRID, *LIGHTS])
    region = plan(net, ["A0", "B0"], own_destinations=["A0B0", "C2C1"])
    ends = {path[-1] for entry in region.entries for path in entry.paths}
    assert "A0B0" in ends
    assert "C2C1" not in ends


def test_reach_passes_junctions_without_signals(generated):
    options = [*GRID, "--tls.set=B1"]
    near, far = (plan(generated(options), ["B1"], reach) for reach in (50, 150))
    assert {e.edge for e in near.entries} == {"A1B1", "C1B1", "B0B1", "B2B1"}
    assert {e.edge for e in far.entries} >= {"A0A1", "A2A1"}
    assert all(entry.distance >= 150 for entry in far.entries if entry.distance)


def test_a_short_road_behind_another_signal_is_no_entry(tmp_path):
    """B is 8 m behind the signal A: the entry is the road after it."""
    nodes = "".join(
        f'<node id="{n}" x="{x}" y="{y}" type="{kind}"/>'
        for n, x, y, kind in [
            *(("W", -300, 0, "dead_end"), ("A", 0, 0, "traffic_light"), ("B", 25, 0, "priority")),
            *(("C", 110, 0, "traffic_light"), ("E", 300, 0, "dead_end"), ("S", 0, -200, "dead_end")),
            *(("N", 25, 200, "dead_end"), ("T", 110, -200, "dead_end")),
        ]
    )
    ways = ["WA", "AB", "BC", "CE", "SA", "NB", "TC"]
    edges = "".join(f'<edge id="{w}" from="{w[0]}" to="{w[1]}" numLanes="1" speed="13.9"/>' for w in ways)
    (tmp_path / "n.nod.xml").write_text(f"<nodes>{nodes}</nodes>")
    (tmp_path / "n.edg.xml").write_text(f"<edges>{edges}</edges>")
    path = tmp_path / "n.net.xml"
    given = [f"--node-files={tmp_path}/n.nod.xml", f"--edge-files={tmp_path}/n.edg.xml", "--no-warnings"]
    installation.netconvert([*given, f"--output-file={path}"])
    net = read(path)
    assert net.edges["AB"].length < 15
    region = plan(net, ["C"])
    assert {entry.edge for entry in region.entries} == {"BC"}
    assert not any("AB" in way for entry in (*region.entries, *region.fringe) for way in entry.paths)


def test_a_tile_is_cut_once_and_again_if_it_is_damaged(generated, monkeypatch, capsys):
    net = generated([*GRID, *LIGHTS])
    region = plan(net, ["A1"])
    first = Cutter(net).tile(region, 2)
    content = first.network.read_bytes()
    monkeypatch.setattr(cutting, "cut", lambda sheet, roads: pytest.fail("cut again"))
    assert Cutter(net).tile(region, 2).network == first.network
    monkeypatch.undo()
    first.network.write_bytes(content[:1000])
    assert Cutter(net).tile(region, 2).network.read_bytes() == content


def test_without_a_cache_a_tile_is_cut_once_into_a_temporary_folder(generated, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    net = generated([*GRID, *LIGHTS])
    first = Cutter(net).tile(plan(net, ["A2"]), 1)
    assert not first.network.is_relative_to(tmp_path)
    assert {"0/A2", "0/A1", "0/B2"} <= set(read(first.network).signals)
    monkeypatch.setattr(cutting, "cut", lambda sheet, roads: pytest.fail("cut again"))
    assert Cutter(net).tile(plan(net, ["A2"]), 1).network == first.network


def test_a_signal_that_is_not_cut_exactly_is_named(generated, monkeypatch):
    net = generated([*GRID, *LIGHTS])
    whole = cutting.cut
    monkeypatch.setattr(cutting, "cut", lambda sheet, roads: whole(sheet, set(roads) - {"B1C1"}))
    with pytest.raises(BadInput, match=r"signal 'B1' cannot be cut out of .*link .* connections"):
        Cutter(net).tile(plan(net, ["B1"]), 1)


@pytest.mark.parametrize(
    ("pattern", "new", "message"),
    [
        (r'(<connection from="A0A1"[^>]* via=)"[^"]*"', r'\1":A1_77_0"', "leads over lane ':A1_77_0'"),
        (r'(<junction id="A1"[^>]* incLanes=)"[^"]*"', r'\1"A0A1_0"', "rules of priority of junction 'A1'"),
        (r'(<junction id="A1".*?response=)"\d*"', r'\1"01"', "rules of priority of junction 'A1'"),
    ],
)
def test_a_junction_that_does_not_fit_its_roads_is_named(pattern, new, message, generated, tmp_path):
    text = generated([*GRID, *LIGHTS]).path.read_text()
    path = tmp_path / "broken.net.xml"
    path.write_text(re.sub(pattern, new, text, count=1, flags=re.S))
    assert path.read_text() != text
    with pytest.raises(BadInput, match=message):
        cutting.cut(cutting.read(path), {"A0A1", "A1B1"})


def test_no_such_signal(generated):
    with pytest.raises(BadInput, match="has no signal 'Z9'"):
        plan(generated([*GRID, *LIGHTS]), ["Z9"])
