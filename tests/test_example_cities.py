"""The example that trains on sumo-rl's environment: what it computes without Stable-Baselines3."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path

import pytest

from dials_mpi.core.errors import BadInput

FILE = Path(__file__).parents[1] / "examples/cities/sumo_rl_sb3.py"
NUMBERS = ("depart", "departDelay", "arrival", "duration", "waitingTime", "waitingCount", "timeLoss")
TRIPS = {
    "arrived": (10, 2, 50, 40, 0, 0, 8),
    "on its way": (30, 0, -1, 30, 0, 0, 20),
    "never departed": (-1, 40, -1, 0, 0, 0, 0),
    "after the window": (-1, -5, -1, 0, 0, 0, 0),
}


@pytest.fixture(scope="module")
def example():
    """The example, imported as its command is."""
    specification = spec_from_file_location("sumo_rl_sb3", FILE)
    module = module_from_spec(specification)
    sys.modules[specification.name] = module  # where dataclasses look for it
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture
def city(example, tmp_path):
    """A city with two signals and a window of 65 s, not of whole decisions."""
    signals = '<tlLogic id="a"/><tlLogic id="a"/><tlLogic id="b"/>'  # two programs of one signal
    (tmp_path / "c.net.xml").write_text(f"<net>{signals}</net>")
    (tmp_path / "c.rou.xml").write_text('<routes><trip id="t"/></routes>')
    (tmp_path / "c.add.xml").write_text('<additional><vType id="v"/></additional>')
    files = ("net-file", "c.net.xml"), ("route-files", "c.rou.xml"), ("additional-files", "c.add.xml")
    options = "".join(f'<{name} value="{value}"/>' for name, value in (*files, ("begin", 100), ("end", 165)))
    (tmp_path / "c.sumocfg").write_text(f"<configuration>{options}</configuration>")
    return example.City.named(str(tmp_path / "c.sumocfg"))


def test_the_city_gets_its_window_its_times_and_its_files(city, example, tmp_path):
    """The window begins at its begin, and arterial4x4 decides every 5 s."""
    wanted = {"begin_time": 100, "num_seconds": 65, "delta_time": 10, "yellow_time": 3, "min_green": 5}
    assert wanted.items() <= city.arguments().items()
    assert (city.signals, city.episode, city.steps(0.5)) == (2, 7, 180)
    words = city.options(tmp_path / "trips.xml").split()
    assert words[words.index("-a") + 1] == str(tmp_path / "c.add.xml")
    assert words[words.index("--tripinfo-output") + 1] == str(tmp_path / "trips.xml")
    assert "--tripinfo-output" not in city.options(None)
    fast = example.City(city.scenario, 5, 2).arguments()
    assert fast["min_green"] + fast["yellow_time"] <= fast["delta_time"]


def test_a_map_that_there_is_not_is_refused(example):
    """With the sentence of this package."""
    with pytest.raises(BadInput, match="RESCO has no map"):
        example.City.named("resco:cologne9")


def test_the_delay_counts_all_vehicles_of_the_window(city, tmp_path):
    """8 + 2, 20, and 40 s, in the window of 7 decisions."""
    trips = (zip(NUMBERS, values, strict=True) for values in TRIPS.values())
    rows = (" ".join(f'{name}="{value}"' for name, value in trip) for trip in trips)
    written = "".join(f'<tripinfo id="{k}" {row}/>' for k, row in zip(TRIPS, rows, strict=True))
    (tmp_path / "trips.xml").write_text(f"<tripinfos>{written}</tripinfos>")
    assert city.delay(tmp_path / "trips.xml") == pytest.approx((10 + 20 + 40) / 3)


def test_episodes_differ_and_can_be_repeated(example):
    """Seeds of training and of evaluation come from different streams."""
    training, again, evaluation = (
        list(islice(example.episode_seeds(3, kind), 5))
        for kind in (example.TRAINING, example.TRAINING, example.EVALUATION)
    )
    assert training == again
    assert len({*training, *evaluation}) == 10


def test_the_file_is_complete_after_each_evaluation(example, city, tmp_path, monkeypatch):
    """With delays that are given here: those of drawn actions come first, their mean is the delay."""
    out = tmp_path / "new" / "file.json"
    options = example.parsed(["m", "--episodes", "2", "--greedy", "1", "--out", str(out)])
    training = example.Training(options, city)
    monkeypatch.setattr(example, "version", lambda name: "1")
    for step in (0, 360):
        training.step = step
        monkeypatch.setattr(training, "_delays", lambda step=step: [10.0 + step, 20.0 + step, 99.0])
        training.evaluate()
        found = json.loads(out.read_text())
        assert found["evaluations"][-1]["hours"] == step / 360
        assert found["evaluations"][-1]["delay"] == 15 + step
        assert found["evaluations"][-1]["delays_deterministic"] == [99]
    assert [one["delay"] for one in found["evaluations"]] == [15, 375]
