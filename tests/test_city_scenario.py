"""Cities by name and by file: the same files and window as SUMO itself finds in them."""

from __future__ import annotations

import gzip
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import scenario, trips
from dials_mpi.domains.city.net import read
from dials_mpi.domains.city.scenario import find
from dials_mpi.domains.city.survey import survey
from dials_mpi.domains.city.xml_files import elements
from dials_mpi.domains.sumo import installation

resco = pytest.mark.skipif(find_spec("sumo_rl") is None, reason="sumo-rl is not installed")
experiments = pytest.mark.skipif(find_spec("sumo_experiments") is None, reason="no sumo-experiments")

TRIP = '<trip id="t{0}" depart="{0}" from="A0B0" to="B1A1"/>'
TABLE = {
    "grid4x4": (16, 1473),
    "arterial4x4": (16, 2484),
    "cologne1": (1, 2015),
    "cologne3": (3, 2856),
    "cologne8": (8, 2046),
    "ingolstadt1": (1, 1716),
    "ingolstadt7": (7, 3031),
    "ingolstadt21": (21, 4281),
}
"""Signals and vehicles in the window, as the benchmark's authors count them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a network, as netgenerate writes it."""
    folder = tmp_path_factory.mktemp("city")
    options = ["--grid", "--grid.number=2", "--grid.attach-length=200"]
    options += ["--default-junction-type=traffic_light"]
    output = f"--output-file={folder}/city.net.xml"
    installation._run([installation.program("netgenerate"), *options, output])
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """The network, five trips, and an additional file with a vehicle type, in a folder of the test's own."""
    shutil.copy(made / "city.net.xml", tmp_path)
    (tmp_path / "city.rou.xml").write_text(f"<routes>{''.join(map(TRIP.format, range(5)))}</routes>")
    (tmp_path / "types.add.xml").write_text('<additional><vType id="van" length="6"/></additional>')
    return tmp_path


def sumocfg(folder: Path, text: str) -> Path:
    path = folder / "city.sumocfg"
    path.write_text(f"<configuration>{text}</configuration>")
    return path


FULL = """
<input>
<net-file value="city.net.xml"/><route-files value="city.rou.xml, more.rou.xml"/><a v="types.add.xml"/>
</input>
<time><b value="00:01:40"/><end value="1:00:01:40"/></time>
<processing><lateral-resolution value="0.8"/></processing>
<output><tripinfo-output value="trips.xml"/></output>
"""


def test_a_configuration_is_read_as_sumo_reads_it(folder):
    libsumo = pytest.importorskip("libsumo")
    shutil.copy(folder / "city.rou.xml", folder / "more.rou.xml")
    (folder / "more.rou.xml").write_text(f"<routes>{TRIP.format(7)}</routes>")
    path = sumocfg(folder, FULL.replace(", more", ",more"))
    libsumo.start(["sumo", "-c", str(path), "--no-step-log", "--no-warnings"])
    option = libsumo.simulation.getOption
    theirs = {name: option(name) for name in ("net-file", "route-files", "additional-files")}
    window = libsumo.simulation.getTime(), libsumo.simulation.getEndTime()
    libsumo.close()
    found = find(str(path))
    ours = [[found.network], found.routes, found.additional]
    for name, files in zip(theirs, ours, strict=True):
        assert [Path(part).resolve() for part in theirs[name].split(",")] == [f.resolve() for f in files]
    assert (found.begin, found.end) == window == (100, 86500)
    assert found.unused == ("lateral-resolution",)


def test_the_settings_replace_the_window_of_the_configuration(folder):
    (folder / "more.rou.xml").write_text("<routes/>")
    found = find(str(sumocfg(folder, FULL)), begin=10, end=20)
    assert (found.begin, found.end) == (10, 20)
    assert found.routes == (folder / "city.rou.xml", folder / "more.rou.xml")


def test_network_and_routes_gzipped_with_an_additional_file_among_them(folder):
    for name in ("city.net.xml", "city.rou.xml"):
        with gzip.open(folder / f"{name}.gz", "wb") as stream:
            stream.write((folder / name).read_bytes())
    given = [str(folder / name) for name in ("types.add.xml", "city.rou.xml.gz", "city.rou.xml")]
    found = find(network=str(folder / "city.net.xml.gz"), routes=given, end=60)
    assert found.network.name == "city.net.xml.gz"
    assert [path.name for path in found.routes] == ["city.rou.xml.gz", "city.rou.xml"]
    assert [path.name for path in found.additional] == ["types.add.xml"]
    assert (found.begin, found.end) == (0, 60)
    assert sum(element.tag == "trip" for element in elements(found.routes[0])) == 5


def test_detectors_are_left_out_and_named(folder):
    text = '<additional><e1Detector id="d" lane="A0B0_0" pos="1" file="out.xml"/></additional>'
    (folder / "detectors.add.xml").write_text(text)
    path = sumocfg(folder, FULL.replace("types.add.xml", "types.add.xml,detectors.add.xml"))
    (folder / "more.rou.xml").write_text("<routes/>")
    found = find(str(path))
    assert [path.name for path in found.additional] == ["types.add.xml"]
    assert [path.name for path in found.detectors] == ["detectors.add.xml"]


def test_random_trips_depart_in_the_window_and_are_made_once(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    path = trips.random_trips(folder / "city.net.xml", 30, 100, 160)
    departures = [float(e.get("depart")) for e in elements(path) if e.tag == "vehicle"]
    assert 25 <= len(departures) <= 30
    assert min(departures) >= 100
    assert max(departures) < 160
    monkeypatch.setattr(installation, "tool", None)
    assert trips.random_trips(folder / "city.net.xml", 30, 100, 160) == path


@resco
@pytest.mark.parametrize("name", TABLE)
def test_the_maps_of_the_benchmark(name):
    found = find(f"resco:{name}")
    signals, vehicles = TABLE[name]
    assert len({e.get("id") for e in elements(found.network) if e.tag == "tlLogic"}) == signals
    demand = [e for path in found.routes for e in elements(path) if e.tag in ("trip", "vehicle")]
    assert sum(found.begin <= float(e.get("depart")) < found.end for e in demand) == vehicles
    assert found.end - found.begin == 3600


@experiments
def test_the_files_of_bologna_are_complete():
    found = find("bologna")
    files = (found.network, *found.routes, *found.additional)
    assert sum(len(list(elements(path))) for path in files) > 9000  # each to its end
    assert not any("detectors" in path.name for path in files)  # SUMO would write into the package
    assert (found.begin, found.end) == (0, 3600)


@pytest.mark.parametrize(
    ("name", "extra"), [("resco:cologne1", "cities"), ("lille", "lille"), ("bologna", "lille")]
)
def test_a_missing_package_is_named_with_the_extra(name, extra, monkeypatch):
    monkeypatch.setattr(scenario, "package_folder", lambda module: None)
    with pytest.raises(BadInput, match=rf"pip install 'dials_mpi\[{extra}\]'"):
        find(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names 0 networks"),
        ('<net-file value="no.net.xml"/>', "no.net.xml, which does not exist"),
        ('<net-file value="city.net.xml"/>', "names no vehicles"),
        (
            '<net-file value="city.net.xml"/><route-files value="no.rou.xml"/>',
            "no.rou.xml, which does not exist",
        ),
        (
            '<net-file value="city.rou.xml"/><route-files value="city.rou.xml"/>',
            "is a <routes>, not a network",
        ),
        (FULL.replace(",types", ""), "more.rou.xml, which does not exist"),
        (
            FULL.replace(", more.rou.xml", "").replace("00:01:40", "soon"),
            "sets begin to 'soon': give seconds",
        ),
        (FULL.replace(", more.rou.xml", "").replace("1:00:01:40", "1:2"), "sets end to '1:2': give seconds"),
        (FULL.replace(", more.rou.xml", "").replace("1:00:01:40", "100"), "the window is empty"),
        (FULL.replace(", more.rou.xml", "").replace("1:00:01:40", "-1"), "no end: set city.end"),
        (FULL.replace(", more.rou.xml", "") + '<step-length value="0.5"/>', "sets step-length to 0.5"),
        ("<net-file", "is not complete XML"),
    ],
)
def test_a_broken_configuration(text, message, folder):
    with pytest.raises(BadInput, match=message) as caught:
        find(str(sumocfg(folder, text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither is set"),
        ({"scenario": "lille", "network": "x"}, "both are set"),
        ({"scenario": "lille", "routes": ["x"]}, "city.routes belongs to city.network"),
        ({"scenario": "resco:cologne2"}, "RESCO has no map 'cologne2': choose grid4x4"),
        ({"scenario": "atlantis"}, "city.scenario is 'atlantis': give a .sumocfg"),
        ({"scenario": "no.sumocfg"}, "no.sumocfg, which does not exist"),
        ({"scenario": "city.net.xml"}, "is a <net>, not a configuration"),
        ({"network": "."}, "which is a folder"),
        ({"network": "city.net.xml"}, "city.routes is empty"),
        (
            {"network": "city.net.xml", "routes": ["city.net.xml"]},
            "is a <net> of SUMO: name files with vehicles",
        ),
        ({"network": "city.net.xml", "routes": ["city.rou.xml"]}, "no end: set city.end"),
        (
            {"network": "city.net.xml", "routes": ["city.rou.xml"], "begin": 9, "end": 9},
            "the window is empty",
        ),
        (
            {"network": "city.net.xml", "routes": ["city.rou.xml"], "begin": 0.5, "end": 9},
            "city.begin is 0.5",
        ),
        ({"network": "city.net.xml", "routes": ["city.rou.xml"], "end": float("nan")}, "no end"),
        ({"network": "packed.net.xml.gz", "routes": ["city.rou.xml"], "end": 9}, "is damaged"),
        ({"network": "empty.net.xml", "routes": ["city.rou.xml"], "end": 9}, "is not complete XML"),
    ],
)
def test_settings_that_cannot_be_used(settings, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("packed.net.xml.gz").write_bytes(
        gzip.compress(Path("city.net.xml").read_bytes())[:300][:12] + b"x" * 9
    )
    Path("empty.net.xml").touch()
    with pytest.raises(BadInput, match=message) as caught:
        find(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("", 300), ('<time-to-teleport value="120"/>', 120), ('<time-to-teleport value="-1"/>', 0)],
)
def test_vehicles_that_would_teleport_are_told(folder, option, seconds):
    """SUMO's default is 300 s; its own run of the same file is asked."""
    libsumo = pytest.importorskip("libsumo")
    path = sumocfg(
        folder, FULL.replace(", more.rou.xml", "").replace("<processing>", f"<processing>{option}")
    )
    libsumo.start(["sumo", "-c", str(path), "--no-step-log", "--no-warnings"])
    theirs = float(libsumo.simulation.getOption("time-to-teleport"))
    libsumo.close()
    found = find(str(path), begin=0, end=100)
    assert found.teleports == max(theirs, 0) == seconds
    lines = survey(found, read(found.network), []).warnings
    assert any(f"wait for {seconds} s teleport" in line for line in lines) == (seconds > 0)
