"""The import report agrees with what SUMO does; inputs that cannot be used give one clear sentence each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import net as net_files
from dials_mpi.domains.city import scenario
from dials_mpi.domains.city.regions import Roads, plan
from dials_mpi.domains.city.survey import Survey, survey
from dials_mpi.domains.sumo import installation

libsumo = pytest.importorskip("libsumo")

CAR = '<vehicle id="{0}" depart="{1}"><route edges="{2}"/></vehicle>'
VEHICLES = [
    CAR.format("a", 0, "left0A0 A0B0 B0B1 B1A1"),
    CAR.format("b", 3, "left0A0 A0A1 A1B1"),
    '<trip id="d" depart="4" from="left1A1" to="B1right1"/>',
    '<flow id="e" begin="5" end="60" number="6"><route edges="left0A0 A0B0 B0right0"/></flow>',
    CAR.format("c", 200, "bottom1B0 B0B1 B1top1"),
]
ROUTES = "".join(VEHICLES)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """The network of 2 x 2 signals, as netgenerate writes it."""
    path = tmp_path_factory.mktemp("grid") / "city.net.xml"
    options = ["--grid", "--grid.number=2", "--grid.length=150", "--grid.attach-length=150"]
    options += ["--tls.set=A0,A1,B0,B1", "--no-turnarounds", f"--output-file={path}"]
    installation._run([installation.program("netgenerate"), *options])
    return path


@pytest.fixture
def folder(grid, tmp_path, monkeypatch) -> Path:
    shutil.copy(grid, tmp_path)
    (tmp_path / "city.rou.xml").write_text(f"<routes>{ROUTES}</routes>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(end: float = 100, **settings: object) -> Survey:
    """What ``check`` does: the files, the network, the regions, the report."""
    given = {"network": "city.net.xml", "routes": ["city.rou.xml"], "end": end, **settings}
    found = scenario.find(**given)
    network = net_files.read(found.network)
    roads = Roads(network)
    return survey(found, network, [plan(network, [name], roads=roads) for name in network.agents])


def passed_in_sumo(end: float) -> dict[str, set[str]]:
    """The vehicles that SUMO drives over each signal's links, among those that depart before ``end``."""
    libsumo.start(["sumo", "-n", "city.net.xml", "-r", "city.rou.xml", "--no-step-log", "--no-warnings"])
    try:
        lights, vehicle = libsumo.trafficlight, libsumo.vehicle
        before = {
            lane.rpartition("_")[0]: name
            for name in lights.getIDList()
            for lane in lights.getControlledLanes(name)
        }
        passed: dict[str, set[str]] = {name: set() for name in lights.getIDList()}
        last: dict[str, str] = {}
        for _ in range(int(end) + 400):
            libsumo.simulation.step()
            for name in vehicle.getIDList():
                road = vehicle.getRoadID(name)
                if not road.startswith(":") and vehicle.getDeparture(name) < end:
                    if last.get(name, road) != road and last[name] in before:
                        passed[before[last[name]]].add(name)
                    last[name] = road
        return passed
    finally:
        libsumo.close()


def test_vehicles_per_signal_are_those_that_sumo_drives_there(folder):
    found = report()
    theirs = passed_in_sumo(100)
    assert {row.signal: row.vehicles for row in found.rows} == {
        name: len(cars) for name, cars in theirs.items()
    }
    assert found.vehicles == 9
    assert sum(map(len, theirs.values())) > 10
    assert any(line.startswith("1 vehicles depart outside the window") for line in found.warnings)


def test_vehicles_that_sumo_skips_are_not_counted(folder):
    Path("city.rou.xml").write_text(
        f"<routes>{''.join([*VEHICLES[:2], *VEHICLES[4:], *VEHICLES[2:4]])}</routes>"
    )
    found = report()
    theirs = passed_in_sumo(100)
    assert {row.signal: row.vehicles for row in found.rows} == {
        name: len(cars) for name, cars in theirs.items()
    }
    assert found.vehicles == 2
    assert any(line.startswith("2 vehicles or flows come after later ones") for line in found.warnings)


def test_a_row_of_the_report(folder):
    row = next(row for row in report().rows if row.signal == "A0")
    assert row.agent
    assert (row.junctions, row.lanes, row.entries, row.rim, row.exits) == (1, 4, 2, 2, 4)
    # The lanes from two other signals, and what these signals show to the roads that lead to them.
    assert row.sources == 4
    # No vehicle, two exits to the rim, and three turns behind the signal of the other exit.
    assert row.classes[:2] == (1 + 2 + 3, 1 + 2 + 3)
    assert row.approach[0] > 100


@pytest.mark.skipif(find_spec("sumo_rl") is None, reason="sumo-rl is not installed")
@pytest.mark.parametrize(("name", "signals", "vehicles"), [("cologne8", 8, 2046), ("ingolstadt7", 7, 3031)])
def test_known_maps(name, signals, vehicles):
    found = report(None, scenario=f"resco:{name}", network="", routes=[])
    assert (len(found.rows), found.vehicles) == (signals, vehicles)
    assert all(row.agent and row.vehicles and row.exits and row.entries + row.rim for row in found.rows)


def edited(path: str, change: Callable[[str], str]) -> None:
    text = Path(path).read_text()
    new = change(text)
    assert new != text, "the test changes nothing"
    Path(path).write_text(new)


def net(pattern: str, new: str, count: int = 1) -> Callable[[], None]:
    return lambda: edited("city.net.xml", lambda text: re.sub(pattern, new, text, count=count, flags=re.S))


def demand(text: str) -> Callable[[], None]:
    return lambda: edited(
        "city.rou.xml", lambda _: text if text.startswith("<!") else f"<routes>{text}</routes>"
    )


PHASES = r'(<tlLogic id="A0".*?>).*?(</tlLogic>)'


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            net(PHASES, r'\1<phase duration="9" state="GGGGGGGGGGGG"/>\2'),
            "signal 'A0' has 1 green phase: it stays on",
        ),
        (
            net(
                PHASES,
                r'\1<phase duration="9" state="GGGrrrrrrrrr"/><phase duration="9" state="rrrGGGrrrrrr"/>\2',
            ),
            "signal 'A0' never gives green to link 6, 7",
        ),
        (
            net(
                PHASES,
                r'\1<phase duration="9" state="GGGGGGrrrrrr"/><phase duration="9" state="rrrrrrGGGrrr"/>'
                r'<phase duration="9" state="yyrrrrrrrGGG"/>\2',
            ),
            "1 phase added to its choices",
        ),
        (
            demand("".join(CAR.format(f"x{t}", t, "left0A0 A0B0") for t in (1, 300, 2))),
            "come after later ones in a file and are skipped",
        ),
        (
            demand(CAR.format("y", 1, "left0A0 A0B0") + '<person id="p" depart="1"/>'),
            "1 persons are in the demand",
        ),
        (demand(CAR.format("y", 1, "left0A0 A0B0")), "signal 'B1': no vehicle of the demand passes it"),
        (
            demand('<trip id="t" depart="1" fromJunction="left0" toJunction="B0"/>'),
            "1 trips begin or end at junctions",
        ),
        (demand(CAR.format("y", 1, "left0A0 A0B0") + '<tlLogic id="A0"/>'), "has programs of signals"),
    ],
)
def test_a_warning_names_what_stands_in_the_way(change, warning, folder):
    change()
    warnings = report().warnings
    assert any(warning in line for line in warnings), warnings
    assert all("\n" not in line for line in warnings)


BROKEN = {
    "network missing": (lambda: Path("city.net.xml").unlink(), "which does not exist"),
    "network a folder": (
        lambda: (Path("city.net.xml").unlink(), Path("city.net.xml").mkdir()),
        "which is a folder",
    ),
    "network empty": (lambda: Path("city.net.xml").write_text(""), "is not complete XML"),
    "network cut off": (lambda: edited("city.net.xml", lambda text: text[: len(text) // 2]), "city.net.xml"),
    "network binary": (lambda: Path("city.net.xml").write_bytes(bytes(range(256))), "city.net.xml"),
    "network with a broken gzip": (
        lambda: Path("city.net.xml").write_bytes(b"\x1f\x8b\x08" + b"x" * 99),
        "is damaged",
    ),
    "network is a route file": (
        lambda: shutil.copy("city.rou.xml", "city.net.xml"),
        "is a <routes>, not a network",
    ),
    "network without roads": (
        lambda: Path("city.net.xml").write_text('<net version="1.20"/>'),
        "has no roads",
    ),
    "network of SUMO 0.19": (net(r'<net version="[\d.]+"', '<net version="0.13"'), "older than SUMO 1.0"),
    "network without version": (net(r'<net version="[\d.]+"', "<net"), "network of version ''"),
    "network of version x": (net(r'<net version="[\d.]+"', '<net version="x"'), "network of version 'x'"),
    "edge twice": (net(r'(<edge id="A0B0".*?</edge>)', r"\1\1"), "2 edge elements with the id 'A0B0'"),
    "junction twice": (
        net(r'(<junction id="left0"[^>]*?/>|<junction id="left0".*?</junction>)', r"\1\1"),
        "2 junction elements with the id 'left0'",
    ),
    "program twice": (
        net(r'(<tlLogic id="A0".*?</tlLogic>)', r"\1\1"),
        "2 tlLogic elements with the id 'A0 0'",
    ),
    "connection to no edge": (net(r'(<connection from="left0A0" to=)"\w+"', r'\1"Z9"'), "Z9"),
    "connection to no lane": (net(r'(<connection from="left0A0" [^>]*toLane=)"0"', r'\1"7"'), "city.net.xml"),
    "edge without end": (net(r'(<edge id="A0B0" from="A0") to="B0"', r"\1"), "city.net.xml"),
    "edge from nowhere": (net(r'(<edge id="A0B0" from=)"A0"', r'\1"Z9"'), "city.net.xml"),
    "lane without length": (net(r'(<lane id="A0B0_0"[^>]*) length="[\d.]+"', r"\1"), "city.net.xml"),
    "no signal": (
        lambda: (net(r"<tlLogic.*?</tlLogic>", "", 0)(), net(r' tl="\w+" linkIndex="\d+"', "", 0)()),
        "has no traffic signal",
    ),
    "one green everywhere": (
        net(r"(<tlLogic [^>]*>).*?(</tlLogic>)", r'\1<phase duration="9" state="GGGGGGGGGGGG"/>\2', 0),
        "no signal with two green",
    ),
    "program missing": (net(r'<tlLogic id="A0".*?</tlLogic>', ""), "signal 'A0' .* no program"),
    "program without phases": (net(PHASES, r"\1\2"), "signal 'A0' .* without phases"),
    "phases too short": (
        net(PHASES, r'\1<phase duration="9" state="Gr"/><phase duration="9" state="rG"/>\2'),
        "'A0'|A0",
    ),
    "phases of different length": (
        net(
            PHASES,
            r'\1<phase duration="9" state="GGGGGGGGGGGG"/>'
            r'<phase duration="9" state="rrrrrrrrrrrrr"/>\2',
        ),
        "different lengths",
    ),
    "unknown letter": (net(r'state="G', 'state="x'), "the letter 'x'"),
    "duration not a number": (
        net(r'<phase duration="\d+"', '<phase duration="soon"'),
        "city.net.xml|seconds",
    ),
    "negative duration": (net(r'<phase duration="\d+"', '<phase duration="-3"'), "a phase of '-3' seconds"),
    "link index not a number": (net(r'linkIndex="0"', 'linkIndex="x"'), "city.net.xml"),
    "routes missing": (lambda: Path("city.rou.xml").unlink(), "city.rou.xml, which does not exist"),
    "routes a folder": (
        lambda: (Path("city.rou.xml").unlink(), Path("city.rou.xml").mkdir()),
        "which is a folder",
    ),
    "routes cut off": (
        lambda: edited("city.rou.xml", lambda text: text[:-30]),
        "city.rou.xml is not complete XML",
    ),
    "routes empty": (lambda: Path("city.rou.xml").write_text(""), "is not complete XML"),
    "routes a network": (lambda: shutil.copy("city.net.xml", "city.rou.xml"), "name files with vehicles"),
    "routes of another encoding": (
        lambda: Path("city.rou.xml").write_text('<?xml version="1.0" encoding="x-9"?><routes/>'),
        "city.rou.xml",
    ),
    "no vehicles": (demand(""), "it has no vehicles"),
    "all outside the window": (demand(CAR.format("x", 500, "left0A0 A0B0")), "1 depart at other times"),
    "all skipped": (
        demand(CAR.format("x", 300, "left0A0 A0B0") + CAR.format("y", 1, "left0A0 A0B0")),
        "1 depart at other times, and 1 come after later ones",
    ),
    "edge that does not exist": (demand(CAR.format("x", 1, "left0A0 Z9")), "vehicle 'x' .* uses edge 'Z9'"),
    "edges not connected": (demand(CAR.format("x", 1, "left0A0 B0right0")), "which are not connected"),
    "route without edges": (demand(CAR.format("x", 1, "")), "a route without edges"),
    "vehicle without route": (demand('<vehicle id="x" depart="1"/>'), "has no route"),
    "vehicle without id": (demand('<vehicle depart="1"/>'), "a vehicle in .* has no id"),
    "vehicle without departure": (
        demand('<vehicle id="x"><route edges="left0A0"/></vehicle>'),
        "no departure time",
    ),
    "departure not a number": (demand(CAR.format("x", "soon", "left0A0")), "depart 'soon', which is no time"),
    "departure before 0": (demand(CAR.format("x", -5, "left0A0")), "depart '-5', which is no time"),
    "vehicle twice": (demand(CAR.format("x", 1, "left0A0") * 2), "has the id of another one"),
    "unknown type": (
        demand('<trip id="x" type="bus" depart="1" from="left0A0" to="A0B0"/>'),
        "has the type 'bus'",
    ),
    "unknown route": (demand('<vehicle id="x" depart="1" route="r"/>'), "has the route 'r'"),
    "trip without destination": (demand('<trip id="x" depart="1" from="left0A0"/>'), "not both from and to"),
    "trip without a way": (
        demand('<trip id="x" depart="1" from="A0left0" to="A0B0"/>'),
        "has no way from edge",
    ),
    "trip via no edge": (
        demand('<trip id="x" depart="1" from="left0A0" via="Z9" to="A0B0"/>'),
        "uses edge 'Z9'",
    ),
    "lane that does not exist": (
        demand('<trip id="x" departLane="4" depart="1" from="left0A0" to="A0B0"/>'),
        "departs on lane 4 of edge 'left0A0', which has 1",
    ),
    "flow without rate": (
        demand('<flow id="x" begin="0" end="9" from="left0A0" to="A0B0"/>'),
        "neither number",
    ),
    "flow backwards": (
        demand('<flow id="x" begin="9" end="1" number="2" from="left0A0" to="A0B0"/>'),
        "ends before",
    ),
    "flow of x vehicles": (demand('<flow id="x" number="many" from="left0A0" to="A0B0"/>'), "number 'many'"),
    "flow of period exp": (
        demand('<flow id="x" period="exp(x)" from="left0A0" to="A0B0"/>'),
        r"period 'exp\(x\)'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_input_gives_one_sentence(name, folder):
    change, message = BROKEN[name]
    change()
    with pytest.raises(BadInput, match=message) as caught:
        report()
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_locked_file(folder, monkeypatch):
    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dials_mpi.domains.city.xml_files._opened", locked)
    with pytest.raises(BadInput, match=r"city.net.xml cannot be read: Permission denied"):
        report()


def test_left_hand_traffic_is_no_fault(folder):
    options = ["--grid", "--grid.number=2", "--lefthand", "--grid.attach-length=150", "--tls.set=A0,B1"]
    installation._run([installation.program("netgenerate"), *options, "--output-file=city.net.xml"])
    assert [row.signal for row in report().rows if row.agent] == ["A0", "B1"]


def test_a_long_id_is_shown_whole(folder):
    name = "cluster_" + "1234567890_" * 20
    edited("city.net.xml", lambda text: re.sub(r'(<tlLogic id|tl)="A0"', rf'\1="{name}"', text))
    edited(
        "city.net.xml",
        lambda text: re.sub(
            rf'(<tlLogic id="{name}".*?>).*?(</tlLogic>)',
            r'\1<phase duration="9" state="GGGGGGGGGGGG"/>\2',
            text,
            flags=re.S,
        ),
    )
    assert f"signal '{name}' has 1 green phase: it stays on its own program" in report().warnings
