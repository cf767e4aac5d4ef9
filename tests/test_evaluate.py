"""The evaluate command: what it prints and writes, and what it refuses."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import SMALL, Said, launch, train

from dials_mpi import evaluate as evaluation
from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import play
from dials_mpi.algorithm.evaluation import Evaluation, evaluate_scripted
from dials_mpi.algorithm.evaluation import evaluate as evaluate_trained
from dials_mpi.config import load
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream, streams
from dials_mpi.domains import create
from dials_mpi.domains.base import Statistic
from dials_mpi.evaluate import Played, _print_comparison, main
from dials_mpi.learning.tables import tables, widths
from dials_mpi.results.run import Run
from dials_mpi.storage.hdf5 import rewriting

FIRST_LINE = re.compile(r"mean return (-?\d+\.\d+)(?: \+- (\d+\.\d+))? \((1 episode|\d+ episodes)\)")
FOUR = ("warehouse.grid=[2,2]", "warehouse.horizon=20")


@pytest.fixture
def evaluate(in_process):
    """The command in this process: exit code, stdout, stderr."""
    return in_process(main)


@pytest.fixture
def run(trained):
    return trained(*SMALL, ranks=3)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of a run, to damage."""
    return shutil.copytree(run, tmp_path / "copy")


def figures(said: Said, agents: int = 4) -> tuple[float, float, int, list[float]]:
    """Mean, standard error, episodes and the returns by agent, from the printed lines."""
    assert (said.code, said.stderr) == (0, "")
    first, *rest = said.stdout.splitlines()
    mean, error, episodes = FIRST_LINE.fullmatch(first).groups()
    found = [re.fullmatch(r"agent (\d+) \(row \d, column \d\): (-?\d+\.\d+)", line).groups() for line in rest]
    assert [int(number) for number, _ in found] == list(range(agents))
    number = int(episodes.split()[0])
    return float(mean), float(error or "nan"), number, [float(value) for _, value in found]


def test_a_run_as_a_user_starts_it(run):
    """Without mpirun; the trained policies by default, on 100 episodes."""
    result = launch("-m", "dials_mpi.evaluate", str(run))
    mean, error, episodes, by_agent = figures(Said(result.code, result.stdout, result.stderr))
    assert episodes == 100
    assert np.mean(by_agent) == pytest.approx(mean, abs=2e-3)
    with h5py.File(run / "run.h5") as file:
        stored = Evaluation(file["evaluation/returns"][-1], {})
    assert abs(mean - stored.mean) < 4 * math.hypot(error, stored.standard_error)


def test_a_launcher_makes_it_no_more_than_one_program(run):
    result = launch("-m", "dials_mpi.evaluate", str(run), "--episodes", "2", ranks=3)
    assert figures(Said(result.code, result.stdout, result.stderr))[2] == 2


def test_the_same_figures_as_json(evaluate, run, tmp_path):
    said = evaluate(run, "--episodes", 5, "--json", tmp_path / "figures.json")
    mean, error, episodes, by_agent = figures(said)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["mean_return"] == pytest.approx(mean, abs=6e-4)
    assert written["standard_error"] == pytest.approx(error, abs=6e-4)
    assert written["episodes"] == episodes == 5
    assert written["returns_by_agent"] == pytest.approx(by_agent, abs=6e-4)
    assert len(written["cross_entropy_by_region"]) == 4


@pytest.mark.quick
def test_it_repeats_and_leaves_the_run_as_it_is(evaluate, run):
    before = (run / "run.h5").read_bytes()
    assert evaluate(run, "--episodes", 3) == evaluate(run, "--episodes", 3, "--policy", "trained")
    assert (run / "run.h5").read_bytes() == before


def test_greedy_policies_are_asked_for_their_most_probable_actions(evaluate, run, tmp_path):
    returns = []
    for name, words in (("drawn", []), ("greedy", ["--greedy"])):
        file = tmp_path / f"{name}.json"
        assert evaluate(str(run), "--episodes", "5", *words, "--json", str(file)).code == 0
        returns.append(json.loads(file.read_text())["returns_by_agent"])
    assert returns[0] != returns[1]
    opened = Run.open(run)
    policies, domain = opened.actors, opened.domain
    simulators = streams(opened.config.seed, Purpose.EVALUATION, range(5), OTHER_EPISODES)
    played = play(domain, simulators, lambda _, part: joint.GreedyPolicies(policies, part.stop - part.start))
    np.testing.assert_allclose(returns[1], played.returns.mean(axis=0))


def test_greedy_is_for_trained_policies(evaluate, run):
    done = evaluate(str(run), "--policy", "random", "--greedy")
    assert done.code == 2 and "--greedy is given, and random is not a trained policy" in done.stderr


def test_the_standard_error_is_over_episodes():
    returns = np.array([[1.0, 3.0], [4.0, 6.0], [7.0, 9.0]])
    result = Evaluation(returns, {})
    assert result.mean == 5
    assert result.standard_error == pytest.approx(3 / math.sqrt(3))
    assert math.isnan(Evaluation(returns[:1], {}).standard_error)


def test_one_episode_has_no_standard_error(evaluate, run, tmp_path):
    said = evaluate(run, "--episodes", 1, "--json", tmp_path / "one.json")
    assert math.isnan(figures(said)[1])
    assert json.loads((tmp_path / "one.json").read_text())["standard_error"] is None


@pytest.mark.parametrize("policy", ["random", "closest", "oldest"])
def test_policies_that_need_no_training(evaluate, run, tmp_path, policy):
    """By a configuration and by a run of the same configuration: the same figures."""
    (tmp_path / "four.yaml").write_text("warehouse:\n  grid: [2, 2]\n  horizon: 40\n")
    by_file = evaluate(
        "--config", tmp_path / "four.yaml", "--policy", policy, "--episodes", 20, "warehouse.horizon=20"
    )
    assert by_file == evaluate(*FOUR, "--policy", policy, "--episodes", 20)
    assert by_file == evaluate(run, "--policy", policy, "--episodes", 20)  # of the same seed
    mean, error, episodes, _ = figures(by_file)
    assert episodes == 20 and error > 0
    assert (mean > 1) == (policy != "random")


# Differences in the same episodes -------------------------------------------------------------------------


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a printed table, by their first cell."""
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return {name.strip(): [cell.strip() for cell in row] for name, *row in lines}


@pytest.mark.parametrize("words", [(), ("evaluation_seed=5", "schedule=overlapped")])
def test_the_last_table_of_a_run_has_paired_differences(tmp_path, words):
    """All policies have played the episodes of the last evaluation, which are played again here. The
    differences are computed by hand from the run file."""
    out = tmp_path / "run"
    printed = train(*SMALL, *words, "--output", str(out)).stdout
    run = Run.open(out)
    with h5py.File(out / "run.h5") as file:
        returns = {
            name: file[f"reference/{name}"][:].mean(axis=1) for name in ("random", "oldest", "closest")
        }
        returns["trained"] = file["evaluation/returns"][-1].mean(axis=1)
        assert file.attrs["references_paired"] == 1
    key = (5, 0) if words else (0, 2)  # two segments
    for name in ("random", "oldest", "closest", "trained"):
        simulators, actions = (
            [stream(key[0], purpose, episode, key[1]) for episode in range(3)]
            for purpose in (Purpose.EVALUATION, Purpose.EVALUATION_ACTIONS)
        )
        scores = play(
            run.domain, simulators, lambda it, part, n=name, a=actions: run.joint_policy(n, it, a[part])
        )
        np.testing.assert_array_equal(scores.returns.mean(axis=1), returns[name])
    shown = cells(printed)
    assert list(shown) == ["random", "trained", "oldest", "closest"]
    for name, row in shown.items():
        differences = returns[name] - returns["oldest"]
        by_hand = differences.mean(), differences.std(ddof=1) / math.sqrt(3)
        assert row[3:] == (["", ""] if name == "oldest" else [f"{number:.2f}" for number in by_hand])


def test_a_table_of_evaluate_has_paired_differences(evaluate, run, tmp_path):
    said = evaluate(run, "--policy", "all", "--episodes", 6, "--json", tmp_path / "all.json")
    opened = Run.open(run)
    arguments = (opened.config, opened.domain)
    results = {
        name: evaluate_scripted(*arguments, name, 6, OTHER_EPISODES)
        for name in ("oldest", "closest", "random")
    }
    results["trained"] = evaluate_trained(*arguments, opened.actors, opened.predictors, 6, OTHER_EPISODES)
    shown, written = cells(said.stdout), json.loads((tmp_path / "all.json").read_text())
    assert written["baseline"] == "oldest" and shown["oldest"][1] == ""
    for name in ("closest", "random", "trained"):
        differences = (results[name].returns - results["oldest"].returns).mean(axis=1)
        error = differences.std(ddof=1) / math.sqrt(6)
        assert shown[name][1] == f"{differences.mean():.3f} +- {error:.3f}"
        assert written["differences"][name]["mean"] == pytest.approx(differences.mean())
        by_episode = results[name].returns.mean(axis=1).tolist()
        assert written["policies"][name]["returns_by_episode"] == pytest.approx(by_episode)
        assert written["differences"][name]["standard_error"] == pytest.approx(error)


def test_seeds_that_share_evaluation_episodes(trained, run):
    """A policy that learns nothing returns the same for each seed, and the run trains as without it."""
    shared, episodes = trained(*SMALL, "evaluation_seed=3"), 3
    other = load(None, [*SMALL, "evaluation_seed=3", "seed=1"])
    same = evaluate_scripted(other, create(other.domain, other.domain_section), "random", episodes, 0)
    with h5py.File(shared / "run.h5") as with_it, h5py.File(run / "run.h5") as without:
        assert np.array_equal(with_it["reference/random"], same.returns)
        assert not np.array_equal(with_it["reference/random"], without["reference/random"])
        assert not np.array_equal(with_it["evaluation/returns"], without["evaluation/returns"])
        for kind in ("policy", "predictor"):
            assert np.array_equal(with_it[f"{kind}/parameters"], without[f"{kind}/parameters"])


def test_a_run_on_the_global_simulator_has_no_predictors(evaluate, trained, tmp_path):
    said = evaluate(trained(*SMALL, "mode=global"), "--episodes", 2, "--json", tmp_path / "figures.json")
    figures(said)
    assert "cross_entropy_by_region" not in json.loads((tmp_path / "figures.json").read_text())


# What is refused -----------------------------------------------------------------------------------------


def refused(said: Said) -> str:
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert said.code == 2
    assert said.stdout == ""
    assert said.stderr.startswith("dials_mpi: ") and said.stderr.count("\n") == 1, said.stderr
    assert "None" not in said.stderr
    return said.stderr


def test_nothing_or_too_much_to_evaluate(evaluate, run, tmp_path):
    assert "--config" in refused(evaluate())
    assert "neither a run nor a configuration" in refused(evaluate("--policy", "random"))
    (tmp_path / "four.yaml").write_text("")
    assert "--config" in refused(evaluate(run, "--config", tmp_path / "four.yaml"))
    assert "is given beside the run" in refused(evaluate(run, run))
    assert "seed was 0 and is 1: give only settings" in refused(evaluate(run, "seed=1"))
    assert "seed was 0 and is 1" in refused(evaluate("seed=1", run))
    assert "total_steps was" in refused(evaluate(run, "total_steps=8_000_000"))
    assert "unknown key sed" in refused(evaluate(run, "sed=1"))


def test_a_directory_without_a_run(evaluate, tmp_path):
    assert "run.h5" in refused(evaluate(tmp_path))
    assert "nowhere" in refused(evaluate(tmp_path / "nowhere"))


def test_policies_that_there_are_not(evaluate, run):
    assert "closest" in refused(evaluate(run, "--policy", "clever"))
    assert "random" in refused(evaluate(*FOUR, "--policy", "clever"))
    assert "directory of a run" in refused(evaluate(*FOUR, "--policy", "trained"))
    assert "--policy" in refused(evaluate(*FOUR))


@pytest.mark.parametrize("episodes", ["0", "-3", "many", "1.5"])
def test_bad_numbers_of_episodes(evaluate, run, episodes):
    assert "--episodes" in refused(evaluate(run, f"--episodes={episodes}"))


def test_a_json_file_that_cannot_be_written(evaluate, run, tmp_path):
    for file in (tmp_path / "nowhere" / "x.json", tmp_path):
        assert "--json" in refused(evaluate(run, "--episodes", 1, "--json", file))


def test_bad_settings(evaluate, tmp_path):
    assert "ppo.clip" in refused(evaluate("--policy", "random", "ppo.clap=0.1"))
    assert "warehouse.grid" in refused(evaluate("--policy", "random", "warehouse.gird=[2,2]"))
    too_long = refused(evaluate("--policy", "random", "x" * 300 + "=1"))
    assert "unknown key" in too_long
    assert "nowhere.yaml" in refused(evaluate("--policy", "random", "--config", tmp_path / "nowhere.yaml"))


def test_a_damaged_run(evaluate, copy):
    whole = (copy / "run.h5").read_bytes()
    for length in (0, 50, len(whole) // 2, len(whole) - 1):
        (copy / "run.h5").write_bytes(whole[:length])
        assert "damaged" in refused(evaluate(copy))


def test_a_run_whose_configuration_is_damaged(evaluate, copy):
    with rewriting(copy / "run.h5") as file:
        del file["config/0"]
        file["config/0"] = "seed: [1\n"
    assert "run.h5" in refused(evaluate(copy))


def test_a_newer_format(evaluate, copy):
    with rewriting(copy / "run.h5") as file:
        file.attrs["format_version"] = 99
    assert "99" in refused(evaluate(copy))


def test_a_run_that_has_not_come_so_far(evaluate, copy):
    """No policies to play yet; but those that need no training are played."""
    with rewriting(copy / "run.h5") as file:
        del file["policy"]
    assert "policy/parameters" in refused(evaluate(copy))
    figures(evaluate(copy, "--policy", "random", "--episodes", 2))


def test_parameters_of_other_networks(evaluate, copy):
    """Of another size than the configuration says, such as another version may have stored."""
    with h5py.File(copy / "run.h5") as file:
        parameters = file["policy/parameters"][()]
    for other in (parameters[:, :-1], parameters[:-1], parameters[0]):
        with rewriting(copy / "run.h5") as file:
            del file["policy/parameters"]
            file["policy/parameters"] = other
        assert "policy/parameters" in refused(evaluate(copy, "--episodes", 1))


def test_a_directory_with_an_equals_sign(evaluate, copy):
    named = copy.rename(copy.parent / "lr=1e-4")
    figures(evaluate(named, "--episodes", 1))


def test_help_and_errors_as_a_user_sees_them():
    result = launch("-m", "dials_mpi.evaluate", "--help")
    assert (result.code, result.stderr) == (0, "") and "examples:" in result.stdout
    result = launch("-m", "dials_mpi.evaluate", "nowhere")
    refused(Said(result.code, result.stdout, result.stderr))


# Memory --------------------------------------------------------------------------------------------------


def peak_of(evaluator: Callable[[int], object], episodes: int) -> int:
    """The most bytes that Python and numpy hold at a time in an evaluation, beyond those before it."""
    tracemalloc.start()
    try:
        evaluator(episodes)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("policy", ["random", "trained"])
def test_memory_does_not_grow_with_the_episodes(policy):
    """But for the figures of each, which are returned: not streams, not simulators, not datasets."""
    config = load(None, FOUR)
    domain = create(config.domain, config.domain_section)
    width = widths(tables(config, domain))
    policies, predictors = (
        make(config, domain, np.zeros((4, width[kind]), np.float32))
        for make, kind in ((joint.policies, "policy"), (joint.predictors, "predictor"))
    )

    def evaluator(episodes: int) -> Evaluation:
        if policy == "random":
            return evaluate_scripted(config, domain, "random", episodes, 0)
        return evaluate_trained(config, domain, policies, predictors, episodes, segment=0)

    evaluator(128)  # compiles
    few, many = (peak_of(evaluator, episodes) for episodes in (128, 1280))
    figures = 8 * (4 + 4)  # returns and cross-entropies; a few copies of them
    assert (many - few) / (1280 - 128) < 4 * figures


WIDE = [f"figure_{k}" for k in range(9)]


@pytest.fixture
def wide():
    """A domain with nine statistics, and what three policies did in two episodes."""
    domain = SimpleNamespace(statistics=[Statistic(name, "vehicles", "") for name in WIDE])
    draw = np.random.default_rng(0).random
    results = [Evaluation(draw((2, 4)), {name: 1000 * draw(2) for name in WIDE}) for _ in range(3)]
    return domain, [
        Played(*pair, None) for pair in zip(("random", "oldest", "trained"), results, strict=True)
    ]


@pytest.mark.parametrize("columns", [60, 100, 400])
def test_a_comparison_is_not_wider_than_the_terminal(wide, monkeypatch, columns):
    """Each column is in one of the tables, and nothing is cut off."""
    out = io.StringIO()
    terminal = {"force_terminal": True, "width": columns, "file": out, "color_system": None}
    monkeypatch.setattr(evaluation, "PlainConsole", lambda: PlainConsole(**terminal))
    _print_comparison(*wide)
    lines = out.getvalue().splitlines()
    tables = sum(line.startswith("┏") for line in lines)
    assert max(map(len, lines)) <= columns and "…" not in out.getvalue()
    assert tables == {60: 6, 100: 3, 400: 1}[columns]
    assert sum(line.startswith("│ trained") for line in lines) == tables
    for name in ("return minus oldest", *(name.replace("_", " ") for name in WIDE)):
        assert out.getvalue().count(name) == 1
    for _, result, _ in wide[1]:
        for name in WIDE:
            assert f"{result.statistic(name):.1f} +- {result.statistic_error(name):.1f} " in out.getvalue()


def test_the_bar_counts_the_episodes_of_all_policies(monkeypatch, evaluate):
    """It is drawn at a terminal alone: here stderr stays empty."""
    counted = []

    @contextmanager
    def counting(what, number):
        counted.append((what, number))
        yield lambda more: counted.append(more)

    monkeypatch.setattr(evaluation, "progress_bar", counting)
    said = evaluate("--policy", "all", "--episodes", 70, *FOUR)
    assert (said.code, said.stderr) == (0, "")
    assert counted == [("playing", 210), *[64, 6] * 3]
