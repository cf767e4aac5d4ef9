"""The interface to SUMO and the road networks, against what SUMO's own reader and its simulation say."""

import functools
import importlib
import os
import pickle
import re
import sys
import tempfile
import textwrap
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Program, generators, launch

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.simulation import Insertion, Simulation
from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.network import PHASES, SIDES, Network

installation.version()  # makes SUMO's Python modules importable
sumolib = importlib.import_module("sumolib")

FROM = {(-1, 0): "west", (0, -1): "south", (1, 0): "east", (0, 1): "north"}
"""The side on which an end of an edge lies, by where it is from the junction."""

ACROSS = {"west": "east", "south": "north", "east": "west", "north": "south"}


WITH_TESTS = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
"""PYTHONPATH of a process that imports this file."""


# --- the network, as SUMO's own reader sees it ---

NETWORKS = [
    Network(1, 1, 3, 100.0, 10.0),
    Network(2, 3, 2, 100.0, 10.0),
    Network(3, 2, 1, 80.0, 13.9),
]


@functools.cache
def read_net(network):
    return sumolib.net.readNet(str(network.files()[0]))


def side_of(junction, node):
    (x, y), (a, b) = junction.getCoord(), node.getCoord()
    return FROM[np.sign(a - x), np.sign(b - y)]


@pytest.mark.quick
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_edges_are_alike_and_as_many_as_a_grid_has(network):
    edges = read_net(network).getEdges()
    rows, columns = network.rows, network.columns
    assert len(edges) == network.copies * 2 * (rows * (columns + 1) + columns * (rows + 1))
    assert {(e.getLength(), e.getSpeed(), e.getLaneNumber()) for e in edges} == {
        (network.edge_length, network.speed_limit, 1)
    }
    ends = np.array([[e.getFromNode().getCoord(), e.getToNode().getCoord()] for e in edges])
    assert np.abs(ends[:, 0] - ends[:, 1]).sum(1) == pytest.approx(network.edge_length)


@pytest.mark.quick
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_junctions_are_lights_in_rows_from_north_to_south(network):
    net = read_net(network)
    assert {light.getID() for light in net.getTrafficLights()} == set(network.junctions)
    types = {node.getID(): node.getType() for node in net.getNodes()}
    assert {name for name, kind in types.items() if kind == "traffic_light"} == set(network.junctions)
    assert {kind for name, kind in types.items() if name not in network.junctions} == {"dead_end"}
    shape = network.copies, network.rows, network.columns, 2
    places = np.array([net.getNode(name).getCoord() for name in network.junctions]).reshape(shape)
    assert np.allclose(np.diff(places, axis=1), [0, -network.edge_length])
    assert np.allclose(np.diff(places, axis=2), [network.edge_length, 0])


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_links_lead_straight_on_from_north_east_south_and_west(network):
    for light in read_net(network).getTrafficLights():
        links = sorted(light.getConnections(), key=lambda link: link[2])
        junction = links[0][0].getEdge().getToNode()
        assert [number for _, _, number in links] == [0, 1, 2, 3]
        for (into, out, _), side in zip(links, ("north", "east", "south", "west"), strict=True):
            assert into.getEdge().getToNode() is out.getEdge().getFromNode() is junction
            assert side_of(junction, into.getEdge().getFromNode()) == side
            assert side_of(junction, out.getEdge().getToNode()) == ACROSS[side]
            assert [c.getDirection() for c in into.getOutgoing()] == ["s"]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_lanes_come_from_west_south_east_and_north(network):
    net = read_net(network)
    assert len(network.lanes) == 4 * len(network.junctions) == len(set(network.lanes))
    for i, name in enumerate(network.lanes):
        edge, junction = net.getLane(name).getEdge(), net.getNode(network.junctions[i // 4])
        assert edge.getToNode() is junction
        assert side_of(junction, edge.getFromNode()) == ("west", "south", "east", "north")[i % 4]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_entry_edges_begin_where_the_road_ends(network):
    net = read_net(network)
    ends = [net.getLane(name).getEdge().getFromNode().getType() == "dead_end" for name in network.lanes]
    by_copy = np.array(ends).reshape(network.copies, -1, 4)
    assert (by_copy == network.entry_mask()).all()
    assert by_copy[0].sum() == 2 * (network.rows + network.columns)
    places = np.argwhere(by_copy[0].reshape(network.rows, network.columns, 4)).tolist()
    assert network.entry_edges == [(SIDES[m], row, column) for row, column, m in places]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_routes_go_straight_to_the_opposite_side(network):
    net = read_net(network)
    routes = {
        element.get("id"): element.get("edges").split()
        for element in ElementTree.parse(network.files()[1]).iter("route")
    }
    assert len(routes) == network.copies * len(network.entry_edges)
    for k in range(network.copies):
        for side, row, column in network.entry_edges:
            edges = [net.getEdge(name) for name in routes[network.route(k, side, row, column)]]
            first = edges[0].getToNode()
            assert first.getID() == f"{k}_{row}_{column}"
            assert side_of(first, edges[0].getFromNode()) == side
            for edge, following in pairwise(edges):
                assert list(edge.getOutgoing()) == [following]
                assert side_of(edge.getToNode(), following.getToNode()) == ACROSS[side]
            assert edges[-1].getToNode().getType() == "dead_end"
            assert len(edges) - 1 == network.route_length(side)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_copies_are_not_connected(network):
    net = read_net(network)
    assert len({node.getCoord() for node in net.getNodes()}) == len(net.getNodes())
    for k in range(network.copies):
        reached, frontier = set(), {net.getNode(f"{k}_0_0")}
        while frontier:
            reached |= frontier
            neighbours = {other for node in frontier for other in node.getNeighboringNodes()}
            frontier = neighbours - reached
        lights = {node.getID() for node in reached if node.getType() == "traffic_light"}
        assert lights == {f"{k}_{r}_{c}" for r in range(network.rows) for c in range(network.columns)}


@pytest.mark.parametrize(("phase", "served"), [(0, {"south", "north"}), (2, {"west", "east"})])
def test_a_green_serves_two_opposite_ways(phase, served):
    network = Network(1, 1, 1, 100.0, 10.0)
    simulation = Simulation(*start_of(network))
    simulation.set_lights([("0_0_0", PHASES[phase])])
    simulation.insert([Insertion(side, "car", network.route(0, side, 0, 0), 5.1, 10.0) for side in SIDES])
    arrived = set()
    for _ in range(40):
        simulation.step()
        arrived |= set(simulation.arrived())
    assert arrived == served
    assert set(simulation.vehicles()) == set(SIDES) - served


def start_of(network, backend="libsumo"):
    net, routes, _ = network.files()
    return net, [routes], network.lanes, backend


# --- the cache ---


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_network_is_built_once(empty_cache, monkeypatch):
    first = Network(1, 2, 1, 100.0, 10.0).files()
    assert all(empty_cache in file.parents and file.is_file() for file in first)

    def refuse(arguments):
        raise AssertionError("built again")

    monkeypatch.setattr(installation, "netconvert", refuse)
    assert Network(1, 2, 1, 100.0, 10.0).files() == first
    with pytest.raises(AssertionError, match="built again"):
        Network(1, 2, 2, 100.0, 10.0).files()


@pytest.mark.parametrize("other", [(1, 2, 1, 100.0, 12.0), (1, 2, 1, 90.0, 10.0), (1, 2, 2, 100.0, 10.0)])
def test_another_network_has_other_files(other, empty_cache):
    network = Network(*other)
    assert not set(network.files()) & set(Network(1, 2, 1, 100.0, 10.0).files())
    net = sumolib.net.readNet(str(network.files()[0]))
    found = {(e.getLength(), e.getSpeed()) for e in net.getEdges()}
    assert found == {other[3:]} and len(net.getTrafficLights()) == 2 * other[2]


def test_another_sumo_builds_its_own_files(empty_cache, monkeypatch):
    first = Network(1, 1, 1, 100.0, 10.0).files()
    monkeypatch.setattr(installation, "version", lambda: "99.9.9")
    assert not set(first) & set(Network(1, 1, 1, 100.0, 10.0).files())


def test_a_network_that_could_not_be_built_leaves_nothing_behind(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(installation, "program", lambda name: "false")
        with pytest.raises(RuntimeError, match=r"^false --node-files=.* failed"):
            Network(1, 1, 1, 100.0, 10.0).files()
    assert not empty_cache.exists()
    assert all(file.is_file() for file in Network(1, 1, 1, 100.0, 10.0).files())
    assert list((tmp_path / "temporary").iterdir()) == []


def test_two_processes_build_the_same_network_at_the_same_time(tmp_path):
    """Each waits, having built, for the other: both then move their files to the same place."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import os, pathlib, time\n"
        "from dials_mpi.domains.sumo import installation\n"
        "from dials_mpi.domains.traffic.network import Network\n"
        "build = installation.netconvert\n"
        "def together(arguments):\n"
        "    build(arguments)\n"
        "    pathlib.Path(f'built-{os.getpid()}').touch()\n"
        "    limit = time.monotonic() + 30\n"
        "    while len(list(pathlib.Path().glob('built-*'))) < 2 and time.monotonic() < limit:\n"
        "        time.sleep(0.001)\n"
        "installation.netconvert = together\n"
        "print(*Network(1, 2, 1, 100.0, 10.0).files())\n"
    )
    how = {"cwd": tmp_path, "environment": {"XDG_CACHE_HOME": str(tmp_path / "cache")}}
    both = [program.wait() for program in [Program(str(driver), **how) for _ in range(2)]]
    assert [(done.code, done.stderr) for done in both] == [(0, "")] * 2
    assert len(list(tmp_path.glob("built-*"))) == 2
    assert both[0].stdout == both[1].stdout
    net = Path(both[0].stdout.split()[0])
    assert len(sumolib.net.readNet(str(net)).getTrafficLights()) == 2
    assert [path.name for path in (tmp_path / "cache" / "dials_mpi" / "networks").iterdir()] == [
        net.parent.name
    ]


# --- one simulation at a time, or several, and what becomes of it when SUMO fails ---


def test_only_one_simulation_runs():
    domain = Traffic(TrafficConfig(grid=(1, 2)))
    first, second = domain.global_simulator(generators(1)), domain.global_simulator(generators(1))
    first.reset()
    first.step(np.zeros((2, 1), int))
    second.reset()
    with pytest.raises(RuntimeError, match="this SUMO simulation has ended"):
        first.step(np.zeros((2, 1), int))
    first.junctions.simulation.close()
    second.step(np.zeros((2, 1), int))
    first.reset()
    first.step(np.zeros((2, 1), int))
    with pytest.raises(RuntimeError, match="this SUMO simulation has ended"):
        second.step(np.zeros((2, 1), int))


def test_with_traci_several_simulations_run_side_by_side():
    """Each is what it is alone; its process ends with the last reference to it, or when it starts again."""
    made = [
        Traffic(TrafficConfig(grid=(1, columns), sumo="traci")).global_simulator(generators(1))
        for columns in (1, 2)
    ]
    actions = [np.zeros((columns, 1), int) for columns in (1, 2)]
    alone = []
    for simulator, chosen in zip(made, actions, strict=True):
        simulator.reset()
        alone.append([simulator.step(chosen).state.inputs.copy() for _ in range(30)])
    assert all(inputs[-1].any() for inputs in alone)
    made = [
        Traffic(TrafficConfig(grid=(1, columns), sumo="traci")).global_simulator(generators(1))
        for columns in (1, 2)
    ]
    for simulator in made:
        simulator.reset()
    for step in range(30):
        for simulator, chosen, expected in zip(made, actions, alone, strict=True):
            np.testing.assert_array_equal(simulator.step(chosen).state.inputs, expected[step])
    first, second = (simulator.junctions.simulation._backend._process for simulator in made)
    made[0].reset()
    assert first.poll() is not None and second.poll() is None
    made[0].step(actions[0])
    simulator = None
    made.clear()
    assert second.poll() is not None


def break_step(simulation, monkeypatch):
    libsumo = importlib.import_module("libsumo")

    def fail():
        raise libsumo.TraCIException("the road is gone")

    monkeypatch.setattr(libsumo, "simulationStep", fail)
    simulation.step()


BREAKS = {
    "SUMO failed in step: the road is gone": break_step,
    "SUMO failed in insert: .*'nowhere'": lambda simulation, _: simulation.insert(
        [Insertion("lost", "car", "nowhere", 5.1, 10.0)]
    ),
    "SUMO failed in remove: .*'nobody'": lambda simulation, _: simulation.remove(["nobody"]),
    "SUMO failed in set_lights: .*'none'": lambda simulation, _: simulation.set_lights([("none", "GrGr")]),
}


@pytest.mark.parametrize("message", BREAKS)
def test_what_sumo_refuses_is_a_failure_that_a_reset_mends(message, monkeypatch):
    simulator = Traffic(TrafficConfig(grid=(1, 1))).global_simulator(generators(2))
    simulator.reset()
    simulator.step(np.zeros((1, 2), int))
    with pytest.raises(SimulatorFailure, match=message):
        BREAKS[message](simulator.junctions.simulation, monkeypatch)
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="this SUMO simulation has ended"):
        simulator.step(np.zeros((1, 2), int))
    assert not simulator.reset().inputs.any()
    assert not simulator.junctions.simulation.vehicles()
    for _ in range(40):
        seen = simulator.step(np.zeros((1, 2), int)).state.inputs
    assert seen.any()


def test_a_simulation_that_does_not_start_is_a_failure(tmp_path, capfd):
    net, *rest = start_of(NETWORKS[0])
    (tmp_path / "net.xml").write_text(net.read_text()[:5000])
    with pytest.raises(SimulatorFailure, match="SUMO does not start"):
        Simulation(tmp_path / "net.xml", *rest)
    assert "net.xml" in capfd.readouterr().err  # SUMO says itself what is wrong
    simulation = Simulation(net, *rest)
    simulation.step()


RUNS = [((2, 2), "global"), ((1, 2), "local")]


def played(config, kind):
    """Two episodes side by side, the second restarted on the way: all that is seen."""
    domain, rng = Traffic(config), np.random.default_rng(4)
    n = len(domain.regions)
    if kind == "global":
        simulator = domain.global_simulator(generators(2))
    else:
        simulator = domain.local_simulator(range(n), 2, generators(n))
    state = simulator.reset()
    seen, paid = [state.observations.copy()], []
    for t in range(80):
        actions, sources = rng.random((n, 2)) < 0.1, rng.random((n, 2, 4)) < 0.3
        step = simulator.step(actions, *([sources] if kind == "local" else []))
        seen.append(step.state.observations.copy())
        paid.append(step.rewards)
        if kind == "global":
            seen.append(step.sources)
        if t == 50:
            seen.append(simulator.reset(np.array([False, True])).observations)
    values = simulator.statistics() if kind == "global" else {}
    return seen, paid, {name: str(array) for name, array in values.items()}


def test_traci_shows_the_same_as_libsumo(tmp_path):
    """Its Python module in a process without libsumo, which replaces parts of it."""
    expected = [played(TrafficConfig(grid=grid, sumo="libsumo"), kind) for grid, kind in RUNS]
    in_traci(
        """
        import pickle
        from test_sumo import RUNS, played
        both = [played(TrafficConfig(grid=grid, sumo="traci"), kind) for grid, kind in RUNS]
        Path("seen").write_bytes(pickle.dumps(both))
        assert "libsumo" not in sys.modules
        """,
        tmp_path,
    )
    shown_by_traci = pickle.loads((tmp_path / "seen").read_bytes())
    for (seen, paid, statistics), shown in zip(expected, shown_by_traci, strict=True):
        assert all(map(np.array_equal, shown[0], seen)) and len(shown[0]) == len(seen)
        assert np.array_equal(shown[1], paid) and np.count_nonzero(paid) > 100
        assert shown[2] == statistics and len(statistics) in (0, 8)


def test_a_killed_sumo_is_a_failure_at_once_and_a_reset_goes_on(tmp_path):
    in_traci(
        """
        for _ in range(2):
            simulator.reset()
            for _ in range(10):
                simulator.step(actions)
            [victim] = sumos()
            os.kill(victim, signal.SIGKILL)
            start = time.monotonic()
            try:
                simulator.step(actions)
                raise SystemExit("nobody noticed")
            except SimulatorFailure as failure:
                assert str(failure).startswith("SUMO failed in "), failure
            assert time.monotonic() - start < 5
            assert not any(map(alive, sumos()))
        observations = simulator.reset().observations
        assert observations.sum() == observations.shape[1] and victim not in filter(alive, sumos())
        for _ in range(40):
            state = simulator.step(actions).state
        assert state.inputs.any()
        """,
        tmp_path,
    )


def test_traci_says_what_sumo_refuses(tmp_path):
    in_traci(
        """
        simulator.reset()
        try:
            simulator.junctions.simulation.remove(["nobody"])
            raise SystemExit("nobody noticed")
        except SimulatorFailure as failure:
            assert "'nobody'" in str(failure), failure
        assert not any(map(alive, sumos()))
        simulator.reset()
        simulator.step(actions)
        """,
        tmp_path,
    )


def test_a_killed_sumo_that_a_reset_finds_is_replaced(tmp_path):
    in_traci(
        """
        for _ in range(2):
            simulator.reset()
            simulator.step(actions)
            [victim] = [pid for pid in sumos() if alive(pid)]
            os.kill(victim, signal.SIGKILL)
        simulator.reset()
        simulator.step(actions)
        assert [pid for pid in sumos() if alive(pid)] not in ([], [victim])
        """,
        tmp_path,
    )


def test_a_start_that_fails_in_traci_does_not_spoil_the_next(tmp_path):
    in_traci(
        """
        from dials_mpi.domains.sumo.simulation import Simulation
        try:
            Simulation(Path("nowhere.xml"), [Path("nowhere.xml")], ["0_0_0_west_0"], "traci")
            raise SystemExit("it starts")
        except SimulatorFailure as failure:
            assert str(failure).startswith("SUMO does not start"), failure
        simulator.reset()
        simulator.step(actions)
        """,
        tmp_path,
    )


PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.traffic import Traffic, TrafficConfig

def sumos():
    "The processes of SUMO that this one has started."
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == "sumo" and int(rest.split()[1]) == os.getpid():
            found.append(int(entry.name))
    return found

def alive(pid):
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()

domain = Traffic(TrafficConfig(grid=(1, 1), sumo="traci"))
simulator = domain.global_simulator([np.random.default_rng(7)])
actions = np.zeros((1, 1), int)
"""


def in_traci(code, tmp_path):
    """Run what stands above and then the code, in a process of its own."""
    (tmp_path / "driver.py").write_text(PREAMBLE + textwrap.dedent(code))
    environment = {"PYTHONPATH": WITH_TESTS}
    done = launch(str(tmp_path / "driver.py"), cwd=tmp_path, environment=environment)
    assert (done.code, done.left_over) == (0, []), done.stderr


# --- finding SUMO ---

WITHOUT = """
import importlib.metadata, os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {missing}:
            raise ImportError(f"no {{name}} here")

sys.meta_path.insert(0, Missing())
if "sumo" in {missing}:
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)
    importlib.metadata.distribution = missing
os.environ["PATH"] = {path!r}
from dials_mpi.domains.sumo import installation
from dials_mpi.core.errors import BadInput

try:
    print(installation.versions({backend!r}))
except BadInput as refusal:
    print("refused:", refusal)
"""


def versions_without(missing, path, backend, tmp_path):
    (tmp_path / "driver.py").write_text(WITHOUT.format(missing=missing, path=path, backend=backend))
    home = {"SUMO_HOME"} & set(os.environ)
    saved = {name: os.environ.pop(name) for name in home}  # importing SUMO's modules has set it
    try:
        done = launch(str(tmp_path / "driver.py"), cwd=tmp_path)
    finally:
        os.environ.update(saved)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("backend", ["auto", "libsumo", "traci"])
def test_a_missing_sumo_is_refused_with_how_to_install_it(backend, tmp_path):
    said = versions_without(["sumo", "libsumo", "traci"], "", backend, tmp_path)
    assert said.startswith("refused: SUMO's program netconvert is not found: ")
    assert said.endswith("install it with pip install 'dials_mpi[traffic]'\n")


def test_programs_on_the_path_do_without_the_wheel_but_not_without_a_module(tmp_path):
    programs = str(Path(installation.program("netconvert")).parent)
    for backend, named in (("auto", "libsumo"), ("libsumo", "libsumo"), ("traci", "traci")):
        said = versions_without(["sumo", "libsumo", "traci"], programs, backend, tmp_path)
        assert said.startswith(f"refused: SUMO's Python module {named} cannot be loaded (no {named} here): ")
        assert said.endswith("install it with pip install 'dials_mpi[traffic]'\n")
    assert (
        versions_without(["sumo"], programs, "traci", tmp_path) == repr(installation.versions("traci")) + "\n"
    )


@pytest.mark.parametrize(("backend", "module"), [("auto", "traci"), ("traci", "traci")])
def test_without_libsumo_traci_is_taken(backend, module, tmp_path):
    said = versions_without(["libsumo"], "", backend, tmp_path)
    assert said == repr({**installation.versions("traci"), "sumo_module": module}) + "\n"


def test_libsumo_is_taken_where_it_is(tmp_path):
    for backend in ("auto", "libsumo"):
        assert "'sumo_module': 'libsumo'" in versions_without([], "", backend, tmp_path)


@pytest.fixture
def forgetful():
    """Of the version that was found, before and after."""
    found = (installation.version, installation.simulator_version)
    for one in found:
        one.cache_clear()
    yield
    for one in found:
        one.cache_clear()


def test_a_sumo_that_is_too_old_is_refused_with_both_versions(forgetful, monkeypatch):
    found = installation.version()
    installation.version.cache_clear()
    monkeypatch.setattr(installation, "OLDEST", (99, 0))
    with pytest.raises(BadInput, match=rf"SUMO is {found} \(.*netconvert\), older than 99\.0.*: install it"):
        installation.versions()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("said", "taken"),
    [("1.9.2", False), ("1.19.0", False), ("1.20.0", True), ("1.100.0", True), ("2.0.0", True)],
)
def test_versions_are_compared_by_number(said, taken, forgetful, tmp_path, monkeypatch):
    """SUMO before 1.20 is refused."""
    program = tmp_path / "netconvert"
    program.write_text(f"#!/bin/sh\necho 'Eclipse SUMO netconvert Version {said}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(installation, "program", lambda name: str(program))
    if taken:
        assert installation.version() == said
    else:
        with pytest.raises(BadInput, match=rf"SUMO is {said} .*older than 1\.20"):
            installation.version()


def libsumo_of(version, monkeypatch):
    """A libsumo of another version than SUMO's programs have."""
    module = SimpleNamespace(__name__="libsumo", __file__="x/libsumo.py", getVersion=lambda: (20, version))
    monkeypatch.setattr(installation, "module", lambda backend, gui: module)


def test_the_version_is_of_the_libsumo_that_simulates(forgetful, monkeypatch):
    netconvert = installation.version()
    libsumo_of("SUMO 1.20.0", monkeypatch)
    assert installation.versions("libsumo") == {
        "sumo": "1.20.0",
        "sumo_module": "libsumo",
        "netconvert": netconvert,
    }


@pytest.mark.parametrize("said", ["SUMO 1.19.0", "SUMO v1_19_0+0123-abcdef"])
def test_a_libsumo_that_is_too_old_is_refused_beside_new_programs(said, forgetful, monkeypatch):
    libsumo_of(said, monkeypatch)
    with pytest.raises(BadInput, match=r"x/libsumo\.py\b.*older than 1\.20.*install it"):
        installation.versions()


def test_the_version_is_of_the_program_that_traci_talks_to(forgetful, tmp_path, monkeypatch):
    for name, version in (("netconvert", "1.28.0"), ("sumo", "1.21.0"), ("sumo-gui", "1.22.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'Eclipse SUMO {name} {version}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(installation, "program", lambda name: str(tmp_path / name))
    found = installation.versions("traci")
    assert found == {"sumo": "1.21.0", "sumo_module": "traci", "netconvert": "1.28.0"}
    assert installation.simulator_version("traci", False) == "1.21.0"


def test_libsumo_tells_the_version_that_it_writes_into_its_output(forgetful, tmp_path):
    """Beside what it says when it is asked: the comment at the head of a file that it writes."""
    (tmp_path / "driver.py").write_text(
        "import libsumo, sys\n"
        "from pathlib import Path\n"
        "from dials_mpi.domains.traffic import Traffic, TrafficConfig\n"
        "from dials_mpi.domains.sumo import installation\n"
        "net, *_ = Traffic(TrafficConfig(grid=(1, 1)))._network(1, 1, 1).files()\n"
        "libsumo.start(['sumo', '-n', str(net), '--summary-output', 'summary.xml', '--no-step-log'])\n"
        "libsumo.close()\n"
        "print(installation.versions('libsumo')['sumo'])\n"
    )
    done = launch(str(tmp_path / "driver.py"), cwd=tmp_path)
    assert done.code == 0, done.stderr
    version = done.stdout.split()[-1]
    head = (tmp_path / "summary.xml").read_text()[:400]
    assert version.replace(".", "") in re.sub(r"[._]", "", head), head


def test_libsumo_has_no_window():
    with pytest.raises(BadInput, match="gui=true needs sumo=traci"):
        Traffic(TrafficConfig(sumo="libsumo", gui=True)).versions()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_a_window_needs_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    installation.module.cache_clear()
    with pytest.raises(BadInput, match=r"gui=true needs a screen.*leave gui out"):
        Traffic(TrafficConfig(gui=True)).versions()


def test_traci_restarts_episodes_without_a_word(tmp_path):
    (tmp_path / "driver.py").write_text(
        "from test_sumo import played\n"
        "from dials_mpi.domains.traffic import TrafficConfig\n"
        "played(TrafficConfig(grid=(1, 1), inflow=0.5, sumo='traci'), 'global')\n"
    )
    environment = {"PYTHONPATH": WITH_TESTS}
    done = launch(str(tmp_path / "driver.py"), cwd=tmp_path, environment=environment)
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
