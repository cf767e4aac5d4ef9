"""Whole runs on a small city: from an OSM extract to trained lights, at any number of ranks, and resumed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import train
from test_ranks import differing, results

from dials_mpi.domains.sumo import installation

QUICK = (
    *("domain=city", "city.horizon=120", "total_steps=96", "evaluate_every=48", "retrain_every=48"),
    *("dataset_size=240", "evaluation_episodes=1", "envs_per_region=2", "policy.architecture=fnn"),
    *("policy.hidden=[8,8]", "ppo.memory_size=48", "ppo.minibatch_size=24", "ppo.rollout_steps=12"),
    *("influence.architecture=fnn", "influence.hidden=[8,8]", "influence.epochs=2"),
)


def osm(path: Path) -> None:
    """Two crossings with lights on a road of 600 m, and side roads, as OpenStreetMap writes them."""
    places = {
        1: (0.0, 0.000), 2: (0.0, 0.002), 3: (0.0, 0.004), 4: (0.0, 0.006),
        5: (0.001, 0.002), 6: (-0.001, 0.002), 7: (0.001, 0.004), 8: (-0.001, 0.004),
    }  # fmt: skip
    lights = (2, 3)
    nodes = "".join(
        f'<node id="{name}" lat="{50 + lat}" lon="{6 + lon}" version="1">'
        + ('<tag k="highway" v="traffic_signals"/>' if name in lights else "")
        + "</node>\n"
        for name, (lat, lon) in places.items()
    )
    roads = {1: (1, 2, 3, 4), 2: (5, 2, 6), 3: (7, 3, 8)}
    ways = "".join(
        f'<way id="{name}" version="1">'
        + "".join(f'<nd ref="{node}"/>' for node in along)
        + f'<tag k="highway" v="{"primary" if name == 1 else "secondary"}"/></way>\n'
        for name, along in roads.items()
    )
    path.write_text(f'<?xml version="1.0"?>\n<osm version="0.6">\n{nodes}{ways}</osm>\n')


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> tuple[str, ...]:
    """The settings of the city of the OSM extract, made by the commands of docs/city.md."""
    folder = tmp_path_factory.mktemp("osm")
    osm(folder / "map.osm")
    net, routes = folder / "city.net.xml", folder / "city.rou.xml"
    installation.netconvert(
        ["--osm-files", str(folder / "map.osm"), "-o", str(net), "--tls.guess-signals", "--tls.join"]
    )
    words = ["-n", net, "-r", routes, "-o", folder / "trips.xml", "-e", 120, "-p", 1.5, "--seed", 1]
    installation.tool("randomTrips.py", [str(word) for word in words])
    return f"city.network={net}", f"city.routes=[{routes}]", "city.begin=0"


@pytest.fixture(scope="module")
def alone(city, trained) -> Path:
    """A finished run of one rank."""
    return trained(*QUICK, *city)


def test_lights_of_an_osm_extract_are_trained(alone):
    with h5py.File(alone / "run.h5") as file:
        assert file.attrs["finished"]
        assert np.isfinite(file["evaluation/returns"][:]).all()
        assert file["evaluation/returns"].shape[-1] == 2
        assert {"delay", "throughput"} <= set(file["evaluation_statistics"])


def test_any_number_of_ranks_gives_the_same_results(city, alone, trained):
    assert differing(results(alone), results(trained(*QUICK, *city, ranks=3))) == []


def test_a_resumed_run_gives_the_same_results(city, alone, tmp_path):
    how = (*QUICK, *city, "--output", str(tmp_path / "run"))
    assert train(*how, "total_steps=48").code == 0
    done = train(*how, "--resume", ranks=2)
    assert done.code == 0, done.stderr
    assert differing(results(alone), results(tmp_path / "run")) == []


def test_agents_train_on_the_global_simulator_in_one_episode(city, tmp_path):
    how = (*QUICK, *city, "mode=global", "--output", str(tmp_path / "run"))
    refused = train(*how)
    assert refused.code == 2 and "set envs_per_region=1" in refused.stderr
    done = train(*how, "envs_per_region=1")
    assert (done.code, done.stderr) == (0, "")
