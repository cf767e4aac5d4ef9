"""What is read from a network file, against what SUMO says when it runs the network."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from city_common import grid, network, resco

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import scenario
from dials_mpi.domains.city.net import PASSABLE, read
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.simulation import Simulation

RANDOM = ("--rand", "--rand.iterations=30", "--seed=4", "--default.lanenumber=2", "--crossings.guess=true")
CROSSINGS = (*RANDOM, "--sidewalks.guess=true", "--default-junction-type=traffic_light")


def compare_with_sumo(path, additional=()):
    """Every signal's links, lanes and phases, and every lane, are SUMO's own."""
    net = read(path)
    simulation = Simulation(path, additional, (), "libsumo")
    api = simulation._api
    assert set(api.trafficlight.getIDList()) == set(net.signals)
    for name, signal in net.signals.items():
        links = [sorted((a, b) for a, b, _ in entry) for entry in api.trafficlight.getControlledLinks(name)]
        own = [sorted((link.from_lane, link.to_lane) for link in entry) for entry in signal.links]
        assert own[: len(links)] == links and not any(own[len(links) :])  # SUMO leaves out the last gaps
        assert signal.incoming == tuple(dict.fromkeys(api.trafficlight.getControlledLanes(name)))
        program = api.trafficlight.getProgram(name)
        (active,) = (p for p in api.trafficlight.getAllProgramLogics(name) if p.programID == program)
        assert signal.phases == tuple((phase.state, phase.duration) for phase in active.phases)
    assert set(net.lane_edge) == set(api.lane.getIDList())
    for lane, edge in net.lane_edge.items():
        assert api.lane.getEdgeID(lane) == edge
        assert net.lengths[lane] == pytest.approx(api.lane.getLength(lane))
        assert net.speeds[lane] == pytest.approx(api.lane.getMaxSpeed(lane))
        if edge in net.edges:
            ways = {(c.to_lane, c.via, c.direction) for c in net.connections[edge] if c.from_lane == lane}
            sumos = api.lane.getLinks(lane)  # without the ways of pedestrians
            assert ways >= {(link[0], link[4], link[6]) for link in sumos}
    simulation.close()
    return net


def test_a_grid_is_read_as_sumo_reads_it():
    net = compare_with_sumo(grid())
    assert len(net.signals) == len(net.agents) == 4
    assert all(len(signal.junctions) == 1 for signal in net.signals.values())
    assert {junction for s in net.signals.values() for junction in s.junctions} <= set(net.junctions)
    for edge in net.edges.values():
        assert edge.drivable == edge.lanes and edge.function == ""
        assert set(net.before.get(edge.name, ())) == {
            other
            for other in net.edges
            for c in net.connections[other]
            if net.lane_edge[c.to_lane] == edge.name
        }


def test_an_irregular_network_with_pedestrian_crossings_is_read_as_sumo_reads_it():
    net = compare_with_sumo(network(*CROSSINGS))
    functions = {edge.function for edge in net.inner.values()}
    assert {"internal", "crossing", "walkingarea"} <= functions
    assert any(0 < len(edge.drivable) < len(edge.lanes) for edge in net.edges.values())


@resco
@pytest.mark.parametrize("name", ["arterial4x4", "cologne8", "ingolstadt1", "ingolstadt7"])
def test_maps_of_resco_are_read_as_sumo_reads_them(name):
    net = compare_with_sumo(scenario.find(f"resco:{name}").network)
    assert list(net.agents) == list(net.signals)
    assert not any(signal.added or signal.never_green for signal in net.signals.values())
    for signal in net.signals.values():
        stops = np.array([net.shapes[lane][-1] for lane in signal.incoming])
        centre = np.array(net.centre(signal))
        assert (stops.min(axis=0) - 5 < centre).all() and (centre < stops.max(axis=0) + 5).all()  # metres


@pytest.mark.skipif(find_spec("sumo_experiments") is None, reason="no sumo-experiments")
def test_lille_has_gaps_signals_over_several_junctions_and_links_that_are_never_green():
    (folder,) = find_spec("sumo_experiments").submodule_search_locations
    net = compare_with_sumo(next(Path(folder).rglob("lille.net.xml")))
    signals = net.signals.values()
    assert sum(any(not links for links in signal.links) for signal in signals) == 86
    assert sum(len(signal.junctions) > 1 for signal in signals) == 18
    never = {s.name: s.never_green for s in signals if s.never_green}
    assert len(never) == 2
    for name, links in never.items():
        states = [state for state, _ in net.signals[name].phases]
        assert not {state[i] for state in states for i in links} & PASSABLE


# --- greens ---


def with_phases(tmp_path, *states, seconds=10):
    """The grid whose first signal has these phases."""
    signal = next(iter(read(grid()).signals))
    phases = "".join(f'<phase duration="{seconds}" state="{state}"/>' for state in states)
    text = grid().read_text()
    begin = text.index(f'<tlLogic id="{signal}"')
    head = text[begin : text.index(">", begin) + 1]
    end = text.index("</tlLogic>", begin)
    path = tmp_path / "changed.net.xml"
    path.write_text(text[:begin] + head + phases + text[end:])
    return read(path).signals[signal]


def states_of(letters):
    """States of the first signal's length: letters for its first links, and for all the others."""
    length = len(next(iter(read(grid()).signals.values())).links)
    return [begin + rest * (length - len(begin)) for begin, rest in letters]


def test_greens_are_the_phases_without_yellow_in_order_each_once(tmp_path):
    a, b, yellow, red = states_of([("GG", "r"), ("rr", "g"), ("yy", "r"), ("rr", "r")])
    signal = with_phases(tmp_path, a, yellow, red, b, a, yellow)
    assert signal.greens == (a, b) and signal.added == () and signal.never_green == ()


def test_a_link_that_is_green_beside_yellow_alone_adds_that_phase_with_red_for_yellow(tmp_path):
    a, b, mixed, lasting = states_of([("rrr", "G"), ("rGG", "r"), ("Gyu", "r"), ("Grr", "r")])
    signal = with_phases(tmp_path, a, b, mixed)
    assert signal.greens == (a, b, lasting) and signal.added == (lasting,)
    assert signal.never_green == ()


def test_a_link_that_is_never_green_is_named(tmp_path):
    a, b, yellow = states_of([("rrr", "G"), ("rGG", "r"), ("yrr", "r")])
    signal = with_phases(tmp_path, a, b, yellow)
    assert signal.greens == (a, b) and signal.never_green == (0,)


def test_a_signal_with_one_green_is_no_agent(tmp_path):
    a, yellow = states_of([("", "G"), ("", "y")])
    name = with_phases(tmp_path, a, yellow).name
    net = read(tmp_path / "changed.net.xml")
    assert name in net.signals and name not in net.agents and len(net.agents) == 3


def test_the_last_program_of_a_file_is_the_active_one(tmp_path):
    """Of several; also without the attributes that SUMO does not need."""
    name, first = next(iter(read(grid()).signals.items()))
    state = "G" * len(first.links)
    phase = f'<phase duration="7" state="{state}"/>'
    other = f'<tlLogic id="{name}" programID="other" type="static">{phase}</tlLogic>'
    text = grid().read_text()
    path = tmp_path / "two.net.xml"
    path.write_text(text.replace("</tlLogic>", "</tlLogic>" + other, 1))
    net = compare_with_sumo(path)
    assert net.signals[name].phases == ((state, 7.0),) and net.signals[name].offset == 0


# --- files ---


def test_a_gzipped_network_is_the_same(tmp_path):
    path = tmp_path / "grid.net.xml.gz"
    path.write_bytes(gzip.compress(grid().read_bytes()))
    one, other = read(path), read(grid())
    assert one.signals == other.signals and one.edges == other.edges and one.connections == other.connections


BROKEN = {
    "missing": None,
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "no XML": lambda text: "speed = 3",
    "no roads": lambda text: '<net version="1.20"></net>',
    "an edge to nowhere": lambda text: text.replace('to="B1A1', 'to="nowhere', 1).replace(
        ' to="', ' to="x', 1
    ),
    "a lane too many": lambda text: text.replace('fromLane="0"', 'fromLane="9"', 1),
    "a duration that is no number": lambda text: text.replace('duration="', 'duration="x', 1),
    "a folder": "folder",
}


@pytest.mark.parametrize("change", BROKEN)
def test_what_cannot_be_read_is_refused_in_one_sentence(change, tmp_path):
    path = tmp_path / "broken.net.xml"
    how = BROKEN[change]
    if how == "folder":
        path.mkdir()
    elif how:
        path.write_text(how(grid().read_text()))
    with pytest.raises(BadInput) as refused:
        read(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "grid.net.xml.gz"
    path.write_bytes(gzip.compress(grid().read_bytes())[:-3000])
    with pytest.raises(BadInput, match="damaged"):
        read(path)


def test_sumos_reader_is_found_where_sumo_is():
    assert installation.read_net(grid()).getEdges()
