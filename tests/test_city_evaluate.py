"""What evaluate says about a city, against SUMO's own files; and the table of all policies, of any domain."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from city_common import busy, settings

from dials_mpi.algorithm.evaluation import Evaluation, evaluate_scripted
from dials_mpi.config import load
from dials_mpi.core.seeding import OTHER_EPISODES
from dials_mpi.domains import create
from dials_mpi.domains.city.net import read
from dials_mpi.domains.city.statistics import STATISTICS, SignalDelay, approach, delay_table
from dials_mpi.evaluate import main

END = 200.0
POLICIES = ["trained", "random", "native", "actuated", "max-pressure", "max-wave", "longest-queue"]
FOUR = ("warehouse.grid=[2,2]", "warehouse.horizon=20")


@pytest.fixture
def evaluate(in_process):
    """The command in this process: exit code, stdout, stderr."""
    return in_process(main)


@pytest.fixture
def run(trained):
    return trained(*settings())


def delay(folder: Path) -> float:
    """Of all vehicles of the window, from SUMO's tripinfo and the route file."""
    wanted = {t.get("id"): float(t.get("depart")) for t in ElementTree.parse(busy().routes[0]).getroot()}
    delays = {name: END - depart for name, depart in wanted.items() if depart < END}
    for trip in ElementTree.parse(folder / "tripinfo.xml").getroot():
        if float(trip.get("depart")) >= 0:
            delays[trip.get("id")] = float(trip.get("timeLoss")) + float(trip.get("departDelay"))
    return float(np.mean(list(delays.values())))


@pytest.mark.parametrize("policy", ["trained", "actuated"])
def test_sumos_files_stay_and_the_delay_is_theirs(evaluate, run, tmp_path, policy):
    arguments = (run, "--policy", policy, "--episodes", 2)
    code, stdout, stderr = evaluate(*arguments, "--tripinfo", tmp_path / "x", "--json", tmp_path / "x.json")
    assert (code, stderr) == (0, "")
    figures = json.loads((tmp_path / "x.json").read_text())
    episodes = [tmp_path / "x" / policy / f"episode-{k}" for k in range(2)]
    assert sorted((tmp_path / "x" / policy).iterdir()) == episodes
    delays = [delay(folder) for folder in episodes]
    assert delays[0] != delays[1]
    assert figures["delay"] == pytest.approx(np.mean(delays), abs=0.01)
    error = abs(delays[0] - delays[1]) / 2
    assert figures["standard_errors"]["delay"] == pytest.approx(error, abs=0.01)
    (printed,) = re.findall(r"^delay: (\S+) \+- (\S+) s \(", stdout, re.MULTILINE)
    assert printed == (f"{figures['delay']:.1f}", f"{figures['standard_errors']['delay']:.1f}")
    arrived = [
        float(list(ElementTree.parse(folder / "summary.xml").getroot())[-1].get("arrived"))
        for folder in episodes
    ]
    assert figures["throughput"] == np.mean(arrived) > 5
    assert all(
        ElementTree.parse(folder / "statistics.xml").find("teleports") is not None for folder in episodes
    )
    assert evaluate(*arguments)[1] == stdout  # the files change nothing


def test_the_delay_at_each_signal_over_the_episodes(evaluate, run, tmp_path):
    """From SUMO's mean values of the lanes, which --tripinfo leaves, too."""
    code, stdout, _ = evaluate(
        *(run, "--policy", "max-wave", "--episodes", 2),
        *("--tripinfo", tmp_path / "x", "--json", tmp_path / "x.json"),
    )
    assert code == 0
    found, net = json.loads((tmp_path / "x.json").read_text())["signals"], read(busy().network)
    lanes = [
        {lane.get("id"): lane for lane in ElementTree.parse(path).iter("lane")}
        for path in sorted(tmp_path.rglob("lanes.xml"))
    ]
    assert len(lanes) == 2 and [row["signal"] for row in found] == list(net.signals)
    for row, signal in zip(found, net.signals.values(), strict=True):
        number = sum(
            float(seen[lane].get("left", 0)) for seen in lanes for lane in signal.incoming if lane in seen
        )
        edges = [edge for edge in approach(net, signal) if edge in net.edges]
        own = [lane for edge in edges for lane in net.edges[edge].lanes]
        lost = sum(float(seen[lane].get("timeLoss")) for seen in lanes for lane in own if lane in seen)
        assert row["vehicles"] == number / 2 > 5
        assert row["delay"] == pytest.approx(lost / number) and row["delay"] > 1
        line = next(line for line in stdout.splitlines() if f" {signal.name} " in line)
        assert f" {row['delay']:.1f} " in line and f" {row['level_of_service']} " in line


def test_the_level_is_that_of_the_mean_over_vehicles():
    """Ten vehicles with 8 s and one with 52 s: 12 s; nobody at the other signal in an episode, or in both."""
    nobody = SignalDelay("b", 0, math.nan, "")
    episodes = [
        [SignalDelay("a", 10, 8.0, "A"), nobody, nobody],
        [SignalDelay("a", 1, 52.0, "D"), SignalDelay("b", 4, 81.0, "F"), nobody],
    ]
    rows = delay_table(episodes).rows
    assert rows == (("a", 5.5, 12.0, "B"), ("b", 2.0, 81.0, "F"), ("b", 0.0, None, None))


def rows_of(stdout: str) -> list[list[str]]:
    """The cells of a printed table, without its head."""
    lines = [line for line in stdout.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_all_policies_of_a_city_in_one_table(evaluate, run, tmp_path):
    code, stdout, stderr = evaluate(
        *(run, "--policy", "all", "--episodes", 2, "--json", tmp_path / "all.json"),
        *("--tripinfo", tmp_path / "files"),
    )
    assert (code, stderr) == (0, "")
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["episodes"] == 2 and list(written["policies"]) == POLICIES
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == sorted(POLICIES)
    table = rows_of(stdout)
    assert [row[0] for row in table] == POLICIES and stdout.count("┏") == 1
    for row in table:
        figures = written["policies"][row[0]]
        assert row[1] == f"{figures['mean_return']:.3f} +- {figures['standard_error']:.3f}"
        known = [statistic.name for statistic in STATISTICS if statistic.name != "co2"]  # not computed
        for name, cell in zip(known, row[3:], strict=True):
            mean, error = figures[name], figures["standard_errors"][name]
            assert cell == ("-" if mean is None else f"{mean:.1f} +- {error:.1f}")
        assert figures["co2"] is None
        assert len(figures["signals"]) == 4
        found = [delay(tmp_path / "files" / row[0] / f"episode-{k}") for k in range(2)]
        assert figures["delay"] == pytest.approx(np.mean(found), abs=0.01)
    for policy in ("trained", "native"):  # alone: the same figures
        evaluate(run, "--policy", policy, "--episodes", 2, "--json", tmp_path / "one.json")
        assert json.loads((tmp_path / "one.json").read_text()) == written["policies"][policy]


def test_all_policies_of_another_domain(evaluate, tmp_path):
    """Of a configuration, which has no trained ones; one episode has no error."""
    code, stdout, _ = evaluate(*FOUR, "--policy", "all", "--episodes", 3, "--json", tmp_path / "all.json")
    table, written = rows_of(stdout), json.loads((tmp_path / "all.json").read_text())["policies"]
    assert code == 0 and [row[0] for row in table] == ["random", "oldest", "closest"] == list(written)
    config = load(None, FOUR)
    domain = create(config.domain, config.domain_section)
    for policy, cell, _ in table:
        returns = evaluate_scripted(config, domain, policy, 3, OTHER_EPISODES).returns.mean(axis=1)
        assert cell == f"{returns.mean():.3f} +- {returns.std(ddof=1) / math.sqrt(3):.3f}"
        assert "signals" not in written[policy]
    _, stdout, _ = evaluate(*FOUR, "--policy", "all", "--episodes", 1)
    assert all(re.fullmatch(r"-?\d+\.\d{3}", cell) for _, cell, _ in rows_of(stdout))


def test_the_error_of_a_statistic_is_over_the_episodes_that_have_it():
    result = Evaluation(np.zeros((4, 1)), {"x": np.array([1.0, np.nan, 4.0, 7.0]), "y": np.full(4, np.nan)})
    assert result.statistic("x") == 4 and result.statistic_error("x") == pytest.approx(3 / math.sqrt(3))
    assert result.statistic("y") is None and math.isnan(result.statistic_error("y"))


def test_what_is_refused(evaluate, run, tmp_path):
    """In one sentence, before anything is played."""
    (tmp_path / "full/trained").mkdir(parents=True)
    (tmp_path / "full/trained/mine.txt").write_text("kept")
    for arguments, words in (
        (
            (*FOUR, "--policy", "random", "--tripinfo", tmp_path / "x"),
            "the domain warehouse has no such files",
        ),
        ((run, "--tripinfo", tmp_path / "full"), "has files already: choose another --tripinfo"),
        ((run, "--tripinfo", tmp_path / "full/trained/mine.txt"), "cannot be made"),
        ((run, "--tripinfo", tmp_path / "a,b"), "has a comma"),
        ((run, "--policy", "clever"), "longest-queue, all"),
        ((*FOUR, "--policy", "all", "--checkpoint", "best"), "--checkpoint is given"),
    ):
        code, stdout, stderr = evaluate(*arguments)
        assert (code, stdout) == (2, "") and words in stderr and stderr.count("\n") == 1, stderr
    assert not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "full").rglob("*")] == ["trained", "mine.txt"]
