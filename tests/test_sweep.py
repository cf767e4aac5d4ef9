"""Sweeps: their files and refusals, samplers and pruning with runs made by hand, one real sweep."""

from __future__ import annotations

import csv
import itertools
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import bad_input
import numpy as np
import pytest
import yaml
from bad_input import refused, table, tree, with_files
from conftest import SMALL, Program
from test_study import as_settings, held, sessions, until

from dials_mpi.config import from_yaml, load
from dials_mpi.core.errors import CRASHED, DONE, STOPPED, BadInput
from dials_mpi.run.walltime import Deadline
from dials_mpi.storage.checkpoint import present
from dials_mpi.storage.runfile import RunFile
from dials_mpi.study.__main__ import main
from dials_mpi.study.launch import Launch
from dials_mpi.study.plan import load_study
from dials_mpi.study.process import Ended
from dials_mpi.study.ranges import Choices, Interval
from dials_mpi.study.ranking import keep
from dials_mpi.study.sampling import Sampling
from dials_mpi.study.state import Phase, State, remaining
from dials_mpi.study.sweep import TrialSeries
from dials_mpi.study.sweep_plan import load_sweep
from dials_mpi.study.trials import Trials, evaluations

worker, tmp_path = bad_input.worker, bad_input.tmp_path

RANGES = {
    "ppo.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "ppo.epochs": {"low": 2, "high": 8, "step": 2},
    "policy.hidden": [[16, 8], [8, 8]],
}
STEPS = [0, 128, 256, 384]
WORDS = (*SMALL, "total_steps=384", "retrain_every=384")


def write_sweep(folder: Path, words: Sequence[str] = WORDS, ranges: object = RANGES, **keys: object) -> str:
    """A sweep of four robots."""
    (folder / "base.yaml").write_text("domain: warehouse\n")
    settings = {k: v for k, v in as_settings(tuple(words)).items() if k not in ranges}
    content = {"config": "base.yaml", "settings": settings, "sweep": {"ranges": ranges, **keys}}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(file)


# The file ------------------------------------------------------------------------------------------------


def test_a_sweep_is_read(tmp_path):
    file = write_sweep(tmp_path, trials=7, seed=3)
    sweep = load_sweep(file, str(tmp_path / "out"), ["ppo.clip=0.3"])
    assert sweep.ranges == {
        "ppo.learning_rate": Interval(1e-4, 1e-2, True, 1),
        "ppo.epochs": Interval(2, 8, False, 2),
        "policy.hidden": Choices(("[16, 8]", "[8, 8]"), ((16, 8), (8, 8))),
    }
    assert (sweep.options.trials, sweep.options.seed, sweep.higher) == (7, 3, True)
    drawn = {"ppo.learning_rate": 0.1 / 3, "ppo.epochs": 4, "policy.hidden": "[8, 8]"}
    run = sweep.run(5, 7, drawn)
    words = ["ppo.clip=0.3", f"ppo.learning_rate={0.1 / 3!r}", "ppo.epochs=4", "policy.hidden=[8,8]"]
    fixed = [word for word in WORDS if not word.startswith("policy.hidden")]
    assert run.config == load(str(tmp_path / "base.yaml"), [*fixed, *words])
    assert load(run.file, run.overrides) == run.config
    assert (run.name, run.number, run.agents) == ("trial-005", 6, 4)
    assert run.directory == tmp_path / "out" / "trial-005"


def test_the_high_end_is_the_last_value_of_the_steps(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path, ranges={"ppo.epochs": {"low": 2, "high": 9, "step": 3}}))
    assert sweep.ranges["ppo.epochs"].all() == [2, 5, 8]
    assert [sweep.ranges["ppo.epochs"].drawn(n) for n in (1, 2, 4, 5, 8, 9)] == [None, 2, None, 5, 8, None]


def test_a_trial_of_other_settings_is_not_in_the_ranges(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path))
    inside = {"ppo.learning_rate": 0.002, "ppo.epochs": 6, "policy.hidden": "[8, 8]"}
    assert sweep.drawn(sweep.run(0, 1, inside).config) == inside
    for key, value in {"ppo.learning_rate": 0.02, "ppo.epochs": 3, "policy.hidden": "[8, 4]"}.items():
        assert sweep.drawn(sweep.run(0, 1, {**inside, key: value}).config) is None


def test_a_statistic_has_the_direction_of_its_domain(tmp_path):
    def higher(**keys: str) -> bool:
        file = write_sweep(
            tmp_path, ("domain=traffic", "dataset_size=9900"), {"ppo.clip": [0.1, 0.2]}, **keys
        )
        return load_sweep(file).higher

    pytest.importorskip("libsumo")
    assert higher() and higher(statistic="arrived") and not higher(statistic="time_lost")
    assert not higher(statistic="travel_time", direction="lower")
    with pytest.raises(BadInput, match=r"does not say whether higher values of travel_time are better"):
        higher(statistic="travel_time")


GOOD = (
    "config: good.yaml\nsweep: {ranges: {ppo.clip: {low: 0.1, high: 0.3}, ppo.epochs: [1, 2]}, trials: 2}\n"
)


def ranged(key: str, entry: str) -> str:
    return f"config: good.yaml\nsweep: {{ranges: {{{key}: {entry}}}}}\n"


CONTENTS: dict[str, tuple[str, list[str]]] = {
    "no sweep": ("systems: {}\n", ["study.yaml has no sweep, and --sampler is given"]),
    "no configuration": (GOOD.partition("\n")[2], ["there is no key config"]),
    "a configuration that is not there": (GOOD.replace("good", "gone"), ["study.yaml: gone.yaml: cannot be"]),
    "systems": (GOOD + "systems: {}\n", ["unknown key 'systems', the keys are config"]),
    "no ranges": ("config: good.yaml\nsweep: {trials: 2}\n", ["sweep: there is no key ranges"]),
    "empty ranges": ("config: good.yaml\nsweep: {ranges: {}}\n", ["sweep.ranges is an empty mapping"]),
    "an unknown setting": (ranged("ppo.clp", "[0.1]"), ["ranges.ppo.clp", "did you mean ppo.clip?"]),
    "a section": (ranged("ppo", "[0.1]"), ["ppo is a section"]),
    "a number for a key": (ranged("3", "[0.1]"), ["3 is no setting"]),
    "the domain": (ranged("domain", "[warehouse, traffic]"), ["'domain' is no setting that changes"]),
    "a setting without results": (ranged("silence", "[1, 2]"), ["'silence' is no setting that changes"]),
    "one value": (ranged("ppo.clip", "0.1"), ["ranges.ppo.clip is 0.1", "{low: 1, high: 8}"]),
    "no values": (ranged("ppo.clip", "[]"), ["ppo.clip has 0 values"]),
    "a value twice": (ranged("ppo.clip", "[0.1, 1.0e-1]"), ["has a value twice"]),
    "a wrong value": (ranged("mode", "[dials, globl]"), ["mode is 'globl', but must be one of dials"]),
    "a value out of bounds": (ranged("ppo.clip", "[0.1, 2]"), ["ppo.clip is 2, but must be a number from 0"]),
    "an end out of bounds": (
        ranged("ppo.epochs", "{low: 0, high: 3}"),
        ["ppo.epochs.low", "is 0, but must be a whole number from 1 to 1000"],
    ),
    "half a whole number": (ranged("ppo.epochs", "{low: 1.5, high: 3}"), ["1.5, but must be a whole number"]),
    "exchanged ends": (ranged("ppo.clip", "{low: 0.3, high: 0.1}"), ["low is 0.3 and high is 0.1"]),
    "no high": (ranged("ppo.clip", "{low: 0.3}"), ["ppo.clip: there is no key high"]),
    "a misspelt key": (ranged("ppo.clip", "{low: 0, high: 1, lg: true}"), ["did you mean log?"]),
    "log of 0": (ranged("ppo.clip", "{low: 0, high: 1, log: true}"), ["with log it must be larger than 0"]),
    "log in words": (
        ranged("ppo.clip", "{low: 0, high: 1, log: 1}"),
        ["log is 1, but must be true or false"],
    ),
    "an interval of texts": (
        ranged("mode", "{low: dials, high: global}"),
        ["mode is no number: give a list"],
    ),
    "an interval of lists": (ranged("policy.hidden", "{low: [1, 2], high: [3, 4]}"), ["is no number"]),
    "a step of 0": (ranged("ppo.epochs", "{low: 1, high: 3, step: 0}"), ["step is 0, but must be a whole"]),
    "a step of real numbers": (ranged("ppo.clip", "{low: 0, high: 1, step: 1}"), ["step is 1", "remove it"]),
    "a setting that is also fixed": (
        GOOD + "settings: {ppo.clip: 0.1}\n",
        ["ppo.clip is also set to one value"],
    ),
    "a fixed value out of bounds": (
        GOOD + "settings: {ppo.discount: 2}\n",
        ["study.yaml", "ppo.discount is 2"],
    ),
    "no trials": (GOOD.replace("trials: 2", "trials: 0"), ["sweep: trials is 0, but must be a whole number"]),
    "a misspelt option": (GOOD.replace("trials", "trails"), ["unknown key trails, did you mean trials?"]),
    "an unknown pruner": (
        GOOD.replace("trials: 2", "pruner: best"),
        ["pruner is 'best', but must be one of"],
    ),
    "an unknown statistic": (
        GOOD.replace("trials: 2", "statistic: delay"),
        ["sweep: statistic is 'delay': choose from return"],
    ),
    "ranks": (GOOD + "ranks: none\n", ["study.yaml: ranks is 'none'"]),
}


@table(CONTENTS)
def test_a_bad_sweep_runs_nothing(worker, tmp_path, name):
    content, mentions = CONTENTS[name]
    (with_files(tmp_path) / "study.yaml").write_text(content)
    refused(worker, tmp_path, "study", ["study.yaml", "--sampler", "random"], mentions)


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "no sampler": ([], ["study.yaml has a sweep, which needs a sampler: give --sampler optuna"]),
    "no sampler, and a list": (["--list"], ["give --sampler optuna"]),
    "an unknown sampler": (["--sampler", "tpe"], ["--sampler", "optuna"]),
    "some trials": (["--sampler", "optuna", "--only", "1"], ["--only is given with --sampler"]),
    "a count": (["--sampler", "optuna", "--count"], ["--count is given with --sampler"]),
    "a setting that is swept": (
        ["--sampler", "optuna", "ppo.clip=0.2"],
        ["ppo.clip is also set to one value"],
    ),
    "a wrong setting": (["--sampler", "optuna", "ppo.clp=0.2"], ["study.yaml", "did you mean ppo.clip?"]),
    "an endless grid": (["--sampler", "grid"], ["ranges.ppo.clip has real numbers", "give a list"]),
}


@table(COMMANDS)
def test_a_bad_command_line_runs_nothing(worker, tmp_path, name):
    arguments, mentions = COMMANDS[name]
    (with_files(tmp_path) / "study.yaml").write_text(GOOD)
    refused(worker, tmp_path, "study", ["study.yaml", *arguments], mentions)


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    sweep = load_sweep(write_sweep(tmp_path))
    with pytest.raises(BadInput, match=r"optuna, which --sampler needs, .* pip install 'dials_mpi\[sweep\]'"):
        Trials(sweep, "random")


# Runs made by hand ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """The study was killed here."""


class Runs:
    """In place of ``Processes.run``: writes run files whose returns are a function of the configuration.

    kill_at: the number of evaluations after which the study is killed. fail: names of runs that end with code
    1. late: the study looks at a run only after its end.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kill_at, self.fail, self.late = math.inf, set(), False
        self.evaluated, self.started, self.stop = 0, [], False
        monkeypatch.setattr("os.fsync", lambda descriptor: None)
        monkeypatch.setattr("dials_mpi.study.process.Processes.run", lambda _, *given: self.run(*given))
        monkeypatch.setattr(
            "dials_mpi.study.process.Processes.stop_soon", lambda _: setattr(self, "stop", True)
        )

    def run(self, command: list[str], tick: Callable[[], object]) -> Ended:
        words = command[command.index("--config") + 1 : command.index("--output")]
        directory = Path(command[-1])
        config, self.stop = load(words[0], words[1:]), False
        self.started.append(directory.name)
        if directory.name in self.fail:
            return Ended(1, ["no more memory"])
        file = self.opened(directory, config, tick)
        for step in STEPS[file.lengths().get("evaluation/env_steps", 0) :]:
            if self.stop:
                return Ended(STOPPED, [])
            self.evaluate(file, config, step)
            if not self.late:
                tick()
        file.write({}, finished=True)
        file.commit()
        return Ended(DONE, [])

    def opened(self, directory: Path, config, tick: Callable[[], object]) -> RunFile:
        directory.mkdir(parents=True, exist_ok=True)
        file = RunFile(directory)
        if not file.exists():
            attributes = {"finished": False, "config_digest": config.digest(), "ranks": 1}
            file.create(config.to_yaml(), attributes, {"ranks": 1})
        elif rows := file.lengths():  # the newest checkpoint is older than the last evaluation
            kept = {name: length - 1 for name, length in rows.items()}
            file.continue_run(config.to_yaml(), {}, {"ranks": 1}, kept)
            tick()
        return file

    def evaluate(self, file: RunFile, config, step: int) -> None:
        row = {
            "env_steps": step,
            "wall_time": step / 100,
            "returns": np.full((2, 4), objective(config, step)),
        }
        file.append({f"evaluation/{key}": value for key, value in row.items()})
        file.commit()
        self.evaluated += 1
        if self.evaluated >= self.kill_at:
            raise Killed


def objective(config, step: int) -> float:
    """The best values are a learning rate of 0.001 and six epochs; before training all are the same."""
    away = math.log10(config.ppo.learning_rate / 1e-3) ** 2 + (config.ppo.epochs - 6) ** 2 / 10
    return -away * step / 384 + config.policy.hidden[0] / 100 * (step > 0)


@pytest.fixture
def runs(monkeypatch) -> Runs:
    return Runs(monkeypatch)


def search(file: str, out: Path, sampler: str = "optuna") -> tuple[int, Trials]:
    trials = Trials(load_sweep(file, str(out)), sampler)
    series = TrialSeries(trials, lambda run: Launch(1, ()), Deadline(math.inf), False, lambda: keep(trials))
    return series.work(), trials


def values(trials: Trials) -> list[tuple[object, ...]]:
    """What each trial was, and what was decided about it."""
    return [(trial.asked.drawn, trial.pruned, trial.points, trial.state.phase) for trial in trials]


def returns(config) -> list[float]:
    """As the run file keeps them."""
    return [float(np.float64(objective(config, step))) for step in STEPS]


def by_hand(trials: Trials, startup: int) -> list[int]:
    """The steps at which each trial is pruned: its best value so far is less than the median of the values of
    complete trials at the same evaluation, by brute force."""
    complete, pruned = [], []
    for trial in trials:
        own, at = returns(trial.run.config), 0
        for k in range(1, len(STEPS) - 1):
            others = [one[k] for one in complete]
            if len(others) >= startup and max(own[1 : k + 1]) < np.median(others):
                at = STEPS[k]
                break
        complete += [] if at else [own]
        pruned.append(at)
    return pruned


SLOW = [pytest.param(sampler, marks=pytest.mark.slow) for sampler in ("random", "grid")]


@pytest.mark.quick
@pytest.mark.parametrize("sampler", ["optuna", SLOW[0]])
def test_trials_are_pruned_by_the_median_and_the_best_is_kept(tmp_path, runs, sampler):
    file = write_sweep(tmp_path, trials=10, startup_trials=2)
    code, trials = search(file, tmp_path / "out", sampler)
    pruned = [trial.pruned for trial in trials]
    assert code == DONE and pruned == by_hand(trials, startup=2)
    assert 1 < sum(map(bool, pruned)) < 8
    assert runs.started == [f"trial-{k:03}" for k in range(10)]
    for trial in trials:
        assert trial.state.phase is (Phase.PRUNED if trial.pruned else Phase.FINISHED)
        assert RunFile.open(trial.run.directory).finished() == (not trial.pruned)
        drawn = trial.asked.drawn
        assert 1e-4 <= drawn["ppo.learning_rate"] <= 1e-2 and drawn["ppo.epochs"] in (2, 4, 6, 8)
    complete = {trial.run.name: returns(trial.run.config)[-1] for trial in trials if not trial.pruned}
    best = max(complete, key=complete.__getitem__)
    with open(tmp_path / "out" / "trials.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trial"] for row in rows][: len(complete)] == sorted(complete, key=complete.get, reverse=True)
    assert {row["trial"]: float(row["return"]) for row in rows[: len(complete)]} == pytest.approx(complete)
    assert {row["state"] for row in rows[len(complete) :]} == {"pruned"} and len(rows) == 10
    chosen = load(str(tmp_path / "out" / "best.yaml"))
    assert chosen == next(trial.run.config for trial in trials if trial.run.name == best)
    assert float(rows[0]["ppo.learning_rate"]) == chosen.ppo.learning_rate


def test_the_best_configuration_is_the_system_of_a_study(tmp_path, runs):
    search(write_sweep(tmp_path, trials=1), tmp_path / "out")
    grid = tmp_path / "grid.yaml"
    grid.write_text("systems: {best: {config: out/best.yaml, seeds: 2}}\nmethods: {gs: {mode: global}}\n")
    configs = [run.config for run in load_study(str(grid)).runs]
    best = load(str(tmp_path / "out" / "best.yaml"))
    assert [config.ppo for config in configs] == [best.ppo] * 2
    assert [config.seed for config in configs] == [0, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sampler", ["optuna", *SLOW])
def test_a_sweep_that_is_killed_continues_with_the_same_trials(tmp_path, monkeypatch, sampler):
    lists = {"ppo.learning_rate": [1e-3, 1e-2], "ppo.epochs": [6, 2, 4]}
    ranges = {**RANGES, **lists} if sampler == "grid" else RANGES
    file = write_sweep(tmp_path, ranges=ranges, trials=6, startup_trials=2)
    whole, out, kills = tmp_path / "whole", tmp_path / "killed", 0
    Runs(monkeypatch)
    expected = values(search(file, whole, sampler)[1])
    assert any(pruned for _, pruned, _, _ in expected)
    while True:
        broken = Runs(monkeypatch)
        broken.kill_at = 7
        try:
            code, trials = search(file, out, sampler)
            break
        except Killed:
            kills += 1
    assert code == DONE and kills > 1 and values(trials) == expected
    # What was kept of the unbroken sweep is enough to decide the same again; nothing is left to run.
    monkeypatch.setattr("dials_mpi.study.process.Processes.run", None)
    before = tree(whole / "trial-000")
    assert values(search(file, whole, sampler)[1]) == expected
    assert tree(whole / "trial-000") == before
    for name in ("trials.csv", "best.yaml"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_when_a_run_is_looked_at_has_no_effect(tmp_path, monkeypatch):
    """A run that is faster than the study goes on to its end; the decisions are the same."""
    file, found = write_sweep(tmp_path, trials=5, startup_trials=2), {}
    for late in (False, True):
        Runs(monkeypatch).late = late
        found[late] = values(search(file, tmp_path / str(late))[1])
    assert found[False] == found[True] and any(pruned for _, pruned, _, _ in found[True])
    ends = [RunFile.open(tmp_path / "True" / f"trial-00{k}").finished() for k in range(5)]
    assert all(ends)


def test_the_seed_of_the_sweep_gives_its_trials(tmp_path):
    drawn = []
    for seed in (0, 1, 0):
        sampling = Sampling(load_sweep(write_sweep(tmp_path, seed=seed)), "optuna")
        asked = [sampling.ask(number, None) for number in range(4)]
        drawn.append([one.drawn for one in asked])
    assert drawn[0] == drawn[2] and all(one not in drawn[1] for one in drawn[0])
    assert len({one["ppo.learning_rate"] for one in drawn[0]}) == 4, "each trial draws anew"


def test_the_sampler_learns_from_the_trials_before(tmp_path):
    """The second half of its trials is nearer to the best value than that of random ones."""
    ranges = {"ppo.learning_rate": {"low": 1e-12, "high": 1.0, "log": True}}
    sweep = load_sweep(write_sweep(tmp_path, ranges=ranges, trials=30))
    found = {}
    for sampler in ("optuna", "random"):
        sampling, away = Sampling(sweep, sampler), []
        for number in range(sampling.trials):
            asked = sampling.ask(number, None)
            away.append(abs(math.log10(asked.drawn["ppo.learning_rate"] / 1e-3)))
            asked.end(-away[-1])
        found[sampler] = float(np.median(away[15:]))
        assert max(away[:5]) > 2, "it begins with values from the whole interval"
    assert found["optuna"] < 0.5 * found["random"]


def test_a_grid_has_all_combinations_in_order(tmp_path):
    ranges = {"ppo.epochs": {"low": 2, "high": 6, "step": 2}, "policy.hidden": [[16, 8], [8, 8]]}
    sampling = Sampling(load_sweep(write_sweep(tmp_path, ranges=ranges)), "grid")
    drawn = [sampling.ask(number, None).drawn for number in range(sampling.trials)]
    expected = itertools.product((2, 4, 6), ("[16, 8]", "[8, 8]"))
    assert [tuple(one.values()) for one in drawn] == list(expected)
    assert Sampling(load_sweep(write_sweep(tmp_path, ranges=ranges, trials=4)), "grid").trials == 4


def test_lower_values_can_be_better(tmp_path, runs):
    file = write_sweep(tmp_path, trials=4, pruner="none", direction="lower")
    trials = search(file, tmp_path / "out")[1]
    last = [returns(trial.run.config)[-1] for trial in trials]
    assert trials.best() is trials.all[int(np.argmin(last))]


def test_values_that_cannot_be_combined_are_a_failed_trial(tmp_path, runs, capsys):
    file = write_sweep(tmp_path, ranges={"ppo.minibatch_size": [24, 32]})
    code, trials = search(file, tmp_path / "out", "grid")
    assert code == CRASHED and runs.started == ["trial-001"]
    assert "trial-000: tiny.yaml" not in (said := capsys.readouterr()).err
    assert "trial-000: " in said.err and "ppo.minibatch_size is 24, which does not divide" in said.err
    assert "trial-000 has failed: its values cannot be combined" in said.out
    assert trials.best() is trials.all[1]
    assert (tmp_path / "out" / "trials.csv").read_text().splitlines()[2].startswith("trial-000,refused,0,,24")


def test_a_trial_that_fails_is_run_again_by_the_next_session(tmp_path, runs, capsys):
    file = write_sweep(tmp_path, trials=4)
    runs.fail = {"trial-001"}
    code, trials = search(file, tmp_path / "out")
    assert code == CRASHED and runs.started == [f"trial-{k:03}" for k in range(4)]
    assert "trial-001: no more memory" in capsys.readouterr().err
    drawn = trials.all[1].asked.drawn
    runs.fail, runs.started = set(), []
    code, trials = search(file, tmp_path / "out")
    assert (code, runs.started) == (DONE, ["trial-001"])
    assert trials.all[1].asked.drawn == drawn


def test_a_session_keeps_the_values_of_trials_whatever_the_sampler_draws(tmp_path, runs):
    """As with another version of optuna, or another seed."""
    search(write_sweep(tmp_path, trials=3), tmp_path / "out")
    longer = write_sweep(tmp_path, trials=5, seed=9)
    before = [trial.run.config for trial in Trials(load_sweep(longer, str(tmp_path / "out")), "random")][:3]
    code, trials = search(longer, tmp_path / "out", "random")
    assert code == DONE and runs.started[-2:] == ["trial-003", "trial-004"]
    assert [trial.run.config for trial in trials][:3] == before


def test_trials_of_another_sweep_are_refused(tmp_path, runs):
    search(write_sweep(tmp_path, trials=2), tmp_path / "out")
    narrow = {**RANGES, "ppo.learning_rate": {"low": 1e-12, "high": 1e-11}}
    with pytest.raises(BadInput, match=r"out/trial-000 has values that are not in the ranges of .*--output"):
        search(write_sweep(tmp_path, ranges=narrow), tmp_path / "out")
    (tmp_path / "out" / "trial-001" / "run.h5").write_bytes(b"no run file")
    with pytest.raises(BadInput, match="trial-001"):
        search(write_sweep(tmp_path, trials=2), tmp_path / "out")


def test_the_objective_is_the_last_or_the_best_evaluation(tmp_path, monkeypatch, runs):
    monkeypatch.setattr("test_sweep.objective", lambda config, step: {128: 3.0, 384: 1.0}.get(step, 0.5))
    found = {}
    for kind in ("last", "best"):
        file = write_sweep(tmp_path, trials=1, objective=kind)
        trials = search(file, tmp_path / kind)[1]
        found[kind] = trials.value(trials.all[0])
    assert found == {"last": 1.0, "best": 3.0}


def test_the_evaluations_of_a_statistic(tmp_path):
    """Values that an episode does not have are left out; the evaluation before training is."""
    file = RunFile(tmp_path, {"delay": "s"})
    file.create("", {}, {})
    delays = [[9.0, 9.0], [4.0, math.nan], [math.nan, math.nan], [2.0, 3.0]]
    for step, delay in zip(STEPS, delays, strict=False):
        row = {"env_steps": step, "returns": np.full((2, 4), step)}
        file.append({f"evaluation/{key}": value for key, value in row.items()})
        file.append({"evaluation_statistics/delay": np.array(delay)})
    file.commit()
    assert evaluations(tmp_path, "return") == tuple((step, step) for step in STEPS[1:4])
    found = evaluations(tmp_path, "delay")
    assert [point.env_steps for point in found] == STEPS[1:4]
    np.testing.assert_equal([point.value for point in found], [4.0, math.nan, 2.5])
    assert evaluations(tmp_path / "gone", "return") == () == evaluations(tmp_path, "speed")


def test_the_list_shows_all_trials(tmp_path, runs, in_process):
    """The same table as at the end; it starts nothing and writes nothing."""
    file, out = write_sweep(tmp_path, trials=4, startup_trials=2), tmp_path / "out"
    runs.kill_at = 12  # in the third run
    with pytest.raises(Killed):
        search(file, out)
    before, started = tree(out), len(runs.started)
    said = in_process(main)(file, "--sampler=optuna", "--list", "--output", out)
    assert (said.code, said.stderr) == (0, "")
    lines = [line.split("│") for line in said.stdout.splitlines() if line.startswith("│")]
    found = [tuple(word.strip() for word in line[1:4]) for line in lines]
    last = {
        f"trial-00{k}": returns(from_yaml(RunFile.open(out / f"trial-00{k}").configuration()))
        for k in range(3)
    }
    assert sorted(name for name, state, _ in found if state == "finished") == ["trial-000", "trial-001"]
    assert ("trial-002", "interrupted at 384 steps") in {one[:2] for one in found}
    assert found[-1] == ("trial-003", "not started", "")
    assert all(value == f"{last[name][-1]:.2f}" for name, _, value in found[:3])
    assert "1 not started, 1 interrupted, 2 finished" in said.stdout
    assert tree(out) == before and len(runs.started) == started


def test_a_trial_that_another_process_runs_is_waited_for(tmp_path, runs, monkeypatch, capsys):
    file, directory = write_sweep(tmp_path, trials=1), tmp_path / "out" / "trial-000"
    with held(directory):
        monkeypatch.setattr("dials_mpi.study.sweep.time.sleep", lambda _: (directory / ".lock").unlink())
        code, _ = search(file, tmp_path / "out")
    assert code == DONE
    assert "trial-000 is run by process 7 on another machine: waiting for it" in capsys.readouterr().out


def test_pruned_trials_need_no_time_and_do_not_tell_that_of_others(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path))
    trials = [sweep.run(number, 3, None) for number in range(3)]
    states = {
        "trial-000": State(Phase.FINISHED, 384, 1.0, 60.0),
        "trial-001": State(Phase.PRUNED, 128, 1.0, 50.0),
    }
    assert remaining(trials, states) == pytest.approx(60)


def test_a_signal_stops_a_sweep_with_work_left(tmp_path, runs, monkeypatch):
    def stopped(self, command: list[str], tick: Callable[[], object]) -> Ended:
        signal.raise_signal(signal.SIGUSR1)
        return Ended(STOPPED, [])

    monkeypatch.setattr("dials_mpi.study.process.Processes.run", stopped)
    code, trials = search(write_sweep(tmp_path, trials=3), tmp_path / "out")
    assert code == STOPPED
    assert [trial.asked is None for trial in trials] == [False, True, True]


# A real sweep --------------------------------------------------------------------------------------------

LONG = (*SMALL, "total_steps=12800", "evaluate_every=640", "retrain_every=12800")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_sweep_of_real_runs_is_killed_continued_and_pruned(
    tmp_path, trained, ranks, in_process, monkeypatch, preloaded_runs
):
    rates = [4e-3, 1e-9]  # the second one learns nothing
    write_sweep(tmp_path, LONG, {"ppo.learning_rate": rates}, startup_trials=1)
    words, out = ("tiny.yaml", "--sampler=grid", "--output=out", f"--ranks={ranks}"), tmp_path / "out"
    program = Program("-m", "dials_mpi.study", *words, cwd=tmp_path, preloaded=True)
    until(lambda: present(out / "trial-000"), program)
    program.process.send_signal(signal.SIGTERM)
    stopped = program.wait()
    assert (stopped.code, stopped.ours(), stopped.left_over) == (75, [], [])
    assert "trial-000 is stopped at" in stopped.stdout

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dials_mpi.study.process.TICK", 0.05)  # a run takes a second on a fast machine
    done = in_process(main)(*words)
    assert (done.code, done.stderr) == (0, "")
    assert "trial-000 continues from" in done.stdout and "end: 1 finished, 1 pruned" in done.stdout
    assert [sessions(out / f"trial-00{k}") for k in (0, 1)] == [2, 1]
    pruned = RunFile.open(out / "trial-001")
    assert not pruned.finished() and 0 < pruned.trained() < 12800
    assert "stopped at" in (out / "trial-001" / "log.txt").read_text()
    assert load(str(out / "best.yaml")).ppo.learning_rate == 4e-3
    unbroken = trained(*LONG, "ppo.learning_rate=0.004")
    for name in ("evaluation/returns", "policy/parameters"):
        ours, theirs = (RunFile.open(one).read(name) for one in (out / "trial-000", unbroken))
        np.testing.assert_array_equal(ours, theirs)

    trials = Trials(load_sweep(str(tmp_path / "tiny.yaml"), str(out)), "grid")
    trials.replay()
    assert [trial.state.phase for trial in trials] == [Phase.FINISHED, Phase.PRUNED]
