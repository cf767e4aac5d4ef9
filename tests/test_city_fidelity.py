"""The comparison of a city's local simulators with its global one."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from city_common import busy, resco
from conftest import launch

from dials_mpi.domains.city import City, CityConfig, scenario
from dials_mpi.domains.city.fidelity import Came, Measured, Recording, Variant, _mixed, joined, record, replay
from dials_mpi.domains.city.net import read
from dials_mpi.domains.city.regions import plan
from dials_mpi.fidelity.city import differing

SECONDS = 150

PREDICTABLE = '<vType id="DEFAULT_VEHTYPE" sigma="0" speedDev="0"/>'
"""Without random numbers."""


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def city(kind: str = PREDICTABLE, seconds: int = SECONDS, **settings) -> City:
    given = busy()
    routes = given.network.with_name(f"fidelity-{len(kind)}.rou.xml")
    routes.write_text(given.routes[0].read_text().replace("<routes>", f"<routes>{kind}"))
    config = CityConfig(
        scenario="", network=str(given.network), routes=(str(routes),), begin=100, horizon=seconds, **settings
    )
    return City(config)


def at_random(simulator):
    """Each signal shows another green every 10 s or the same one again."""
    rng, shown = np.random.default_rng(4), []

    def act(observations):
        if len(shown) % 10 == 0:
            greens = [len(signal.greens) for signal in simulator.approaches.signals]
            shown.append(rng.integers(greens)[:, None])
        else:
            shown.append(shown[-1])
        return shown[-1]

    return act


@cache
def recording(block: str = "") -> tuple[City, Recording]:
    domain = city(block=block)
    return domain, record(domain, np.random.default_rng(1), at_random)


@cache
def exact(block: str) -> Measured:
    return replay(*recording(block))


@pytest.mark.parametrize("block", ["", "A0+B0"])
def test_without_random_numbers_the_replay_is_nearly_exact(block):
    (_, truth), local = recording(block), exact(block)
    assert truth.measured.queue.mean(0).min() > 1  # there is something to compare
    differences, correlations = differing(truth.measured, local)
    assert np.abs(differences).max() < 0.02 and correlations.min() > 0.99
    np.testing.assert_allclose(local.flow, truth.measured.flow, rtol=0.03)
    np.testing.assert_allclose(local.speed, truth.measured.speed, rtol=0.03)
    np.testing.assert_allclose(local.reward, truth.measured.reward, rtol=0.03)


@pytest.mark.parametrize("variant", [Variant(exits=False), Variant(turns=False), Variant(drawn=True)])
def test_with_less_told_the_replay_is_worse(variant):
    domain, truth = recording()
    full, less = (
        differing(truth.measured, local)[1].sum() for local in (exact(""), replay(domain, truth, variant))
    )
    assert less < full - 0.001


def test_turns_are_exchanged_on_a_lane_only():
    def came(second, lane, run, own=False):
        return Came(second, lane, 5.0, 10.0, "car", 1.0, run, own)

    rng = np.random.default_rng(0)
    before = [came(t, f"a_{t % 2}", ("a", str(t))) for t in range(40)]
    before += [came(t, "a_0", ("a", "home"), own=True) for t in range(5)]
    after = _mixed(before, rng)
    assert after != before and after[40:] == before[40:]
    assert [each._replace(run=()) for each in after] == [each._replace(run=()) for each in before]
    for lane in ("a_0", "a_1"):
        ways = [sorted(each.run for each in seen[:40] if each.lane == lane) for seen in (before, after)]
        assert ways[0] == ways[1]


def test_the_flow_counts_each_vehicle_once_at_each_signal_that_it_passes():
    domain = city(seconds=300)
    config = domain.config
    lone = '<trip id="x" depart="101" from="left0A0" via="B0B1" to="B1top1"/>'
    routes = domain.scenario.routes[0].with_name("lone.rou.xml")
    routes.write_text(f"<routes>{lone}{lone.replace('x', 'y').replace('101', '103')}</routes>")
    domain = City(CityConfig(**{**vars(config), "routes": (str(routes),)}))
    found = record(domain, np.random.default_rng(1), at_random)
    names = [signal.name for signal in domain.signals]
    passed = dict(zip(names, (found.measured.flow / 12).round(6).tolist(), strict=True))
    assert passed == {"A0": 2, "A1": 0, "B0": 2, "B1": 2}
    # Both come into each region that they pass, once, one of them by departing there.
    assert [len(came) for came in found.came] == [2, 0, 2, 2]
    assert [sum(each.own for each in came) for came in found.came] == [2, 0, 0, 0]
    together = joined([found.measured, found.measured])
    assert together.queue.shape == (600, 4) and np.allclose(together.flow, found.measured.flow)


def settings() -> list[str]:
    given = busy()
    files = [f"city.network={given.network}", f"city.routes=[{given.routes[0]}]", 'city.scenario=""']
    return ["domain=city", *files, "city.begin=100", "city.horizon=60", "dataset_size=120"]


def test_the_program_prints_a_row_for_each_signal_and_how_many_are_accurate():
    result = launch("-m", "dials_mpi.fidelity", *settings(), timeout=250)
    assert (result.code, result.stderr) == (0, "")
    for signal in ("A0", "A1", "B0", "B1"):
        row = next(line for line in result.stdout.splitlines() if re.match(rf"\W*{signal}\b", line))
        assert len(re.findall(r"-?\d+\.\d+|\d+", row.replace(signal, ""))) >= 9, row
    assert re.search(r"correlation of at least 0.95: \d of 4 signals", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--policy", "native"), "choose random, "),
        (("--independent", "0.5"), "for domain traffic only"),
        (("--drawn", "--no-turns"), "exclude each other"),
        (("--episodes", "0"), "at least 1"),
        (("--no-exits",), "for domain city only"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, part):
    given = ["domain=traffic", "dataset_size=9900"] if arguments == ("--no-exits",) else settings()
    result = launch("-m", "dials_mpi.fidelity", *given, *arguments)
    assert result.code == 2 and result.stdout == ""
    assert part in result.stderr and len(result.stderr.splitlines()) == 1


@resco
def test_the_roads_before_all_stop_lines_are_inside():
    """Also those on no shortest path: two carriageways leave one road there, and lead to one signal."""
    net = read(scenario.find("resco:ingolstadt21").network)
    [name] = [name for name in net.agents if name.startswith("cluster_1427494838")]
    before = {lane.rpartition("_")[0] for lane in net.signals[name].incoming}
    assert before <= plan(net, [name]).inside
