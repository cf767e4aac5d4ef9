"""Studies: the grid and its refusals, the paper's studies, whole studies that are stopped and continued."""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import bad_input
import numpy as np
import pytest
import yaml
from bad_input import FILES, ODD, one_sentence, refused, table, tree, with_files
from conftest import SMALL, Finished, Program, content, in_terminal, launch, mpirun
from test_survive import DOMAINS, results

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.config import load
from dials_mpi.core.errors import CRASHED, DONE, REFUSED, STOPPED, BadInput
from dials_mpi.domains.base import Statistic
from dials_mpi.results import membership
from dials_mpi.run.sinks.base import Session
from dials_mpi.run.sinks.console import ConsoleSink
from dials_mpi.run.walltime import RESERVE, Deadline, clock, seconds
from dials_mpi.storage.checkpoint import present
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile
from dials_mpi.study.launch import Launch, plan_launch
from dials_mpi.study.plan import StudyRun, load_study
from dials_mpi.study.process import Ended
from dials_mpi.study.reporting import report
from dials_mpi.study.series import Series
from dials_mpi.study.state import Phase, State, remaining, state_of

worker, tmp_path = bad_input.worker, bad_input.tmp_path

STUDIES = Path(__file__).parents[1] / "configs" / "studies"
CONFIGS = STUDIES.parent

LONG = (*SMALL, "total_steps=12800", "evaluate_every=640", "retrain_every=6400")
"""A run of some seconds, 20 segments."""

ENDLESS = ("total_steps=128000000", "evaluate_every=1280", "retrain_every=128000000")
"""With these, one of hours."""

METHODS = {
    "gs": {"mode": "global"},
    "dials": {"mode": "dials"},
    "untrained": {"mode": "untrained"},
}


def as_settings(words: tuple[str, ...]) -> dict[str, object]:
    return {word.partition("=")[0]: yaml.safe_load(word.partition("=")[2]) for word in words}


def write_study(folder: Path, words: tuple[str, ...] = SMALL, seeds: object = 1, **changes: object) -> Path:
    """A study of four robots by three methods."""
    (folder / "base.yaml").write_text("domain: warehouse\n")
    systems = {"four": {"config": "base.yaml", "seeds": seeds, "settings": as_settings(words)}}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({"systems": systems, "methods": METHODS, **changes}, sort_keys=False))
    return file


def study(*arguments: str, **how: object) -> Finished:
    """Run a study to its end. The first run of a session compiles, which takes a busy machine a while."""
    return launch("-m", "dials_mpi.study", *arguments, **{"timeout": 150, **how})


def sessions(directory: Path) -> int:
    """How often a run was begun or gone on with."""
    return sum(name.startswith("config/") for name in content(directory / "run.h5"))


# The grid ------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_grid_is_that_of_plain_loops(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("warehouse: {grid: [2, 3]}\nppo: {clip: 0.3}\n")
    (tmp_path / "b.yaml").write_text("domain: traffic\ndataset_size: 9_900\n")
    file = tmp_path / "grid.yaml"
    file.write_text("""
systems:
  a: {config: configs/a.yaml, seeds: 3}
  b: {config: b.yaml, seeds: [7, 2], settings: {traffic.grid: [1, 2], evaluate_every: 50_000}}
methods:
  gs: {mode: global, ppo: {clip: 0.2}, policy: {}, influence: {arguments: {}}}
  F: {retrain_every: 500_000}
settings: {total_steps: 500_000, evaluate_every: 100_000}
ranks: 9
""")
    expected = []
    for place in range(3):
        for system, path, seeds, words in (
            ("a", tmp_path / "configs/a.yaml", [0, 1, 2], ["evaluate_every=100000"]),
            ("b", tmp_path / "b.yaml", [7, 2], ["evaluate_every=50000", "traffic.grid=[1,2]"]),
        ):
            for method, more in (("gs", ["mode=global", "ppo.clip=0.2"]), ("F", ["retrain_every=500000"])):
                if place < len(seeds):
                    last = [
                        "total_steps=500000",
                        "schedule=overlapped",
                        f"seed={seeds[place]}",
                        "evaluation_seed=0",
                    ]
                    config = load(str(path), [*words, *more, *last])
                    expected.append((f"{system}-{method}-seed{seeds[place]}", config))
    found = load_study(str(file), str(tmp_path / "out"), ["schedule=overlapped"])
    assert [(run.name, run.config) for run in found.runs] == expected
    assert [run.directory for run in found.runs] == [tmp_path / "out" / name for name, _ in expected]
    assert [(run.number, run.of) for run in found.runs] == [(k, 10) for k in range(1, 11)]
    assert {(run.system, run.agents) for run in found.runs} == {("a", 6), ("b", 2)}
    # What a run is started with gives the configuration that was checked.
    assert all(load(run.file, run.overrides) == run.config for run in found.runs)
    assert (found.name, found.ranks) == ("grid", 9)


def test_runs_go_to_a_folder_of_the_studys_name(tmp_path):
    runs = load_study(str(write_study(tmp_path))).runs
    assert [str(run.directory) for run in runs] == [f"runs/tiny/four-{name}-seed0" for name in METHODS]


@pytest.mark.quick
def test_all_runs_of_a_study_share_episodes_unless_it_says_otherwise(tmp_path):
    def seeds(*overrides: str, **changes: object) -> set[int]:
        file = write_study(tmp_path, seeds=2, **changes)
        return {run.config.evaluation_seed for run in load_study(str(file), str(tmp_path), overrides).runs}

    assert seeds() == {0}
    assert seeds("evaluation_seed=4") == {4}
    assert seeds("evaluation_seed=-1") == {-1}
    assert seeds(settings={"evaluation_seed": 9}) == {9}
    assert seeds(methods={"gs": {"mode": "global"}, "own": {"evaluation_seed": -1}}) == {0, -1}
    file = write_study(tmp_path)
    (tmp_path / "base.yaml").write_text("evaluation_seed: 7\n")
    assert {run.config.evaluation_seed for run in load_study(str(file)).runs} == {7}


def test_a_study_that_was_begun_without_shared_episodes_goes_on_without(tmp_path):
    """Its runs are not refused, and those that it has not begun are evaluated as they are."""
    file, begun = write_study(tmp_path), tmp_path / "out" / "four-dials-seed0"
    config = load(str(tmp_path / "base.yaml"), [*SMALL, "mode=dials"])
    begun.mkdir(parents=True)
    run = RunFile(begun)
    run.create(config.to_yaml(), {"finished": False, "config_digest": config.digest()}, {})
    run.commit()
    runs = load_study(str(file), str(tmp_path / "out")).runs
    assert [run.config.evaluation_seed for run in runs] == [-1] * 3
    assert runs[1].config == config and state_of(runs[1]).phase is Phase.INTERRUPTED
    assert all(load(run.file, run.overrides) == run.config for run in runs)
    told = load_study(str(file), str(tmp_path / "out"), ["evaluation_seed=0"]).runs[1]
    assert state_of(told).phase is Phase.OTHER
    elsewhere = load_study(str(file), str(tmp_path / "other")).runs
    assert [run.config.evaluation_seed for run in elsewhere] == [0] * 3


# The paper's studies -------------------------------------------------------------------------------------

F = {"F100K": 100_000, "F500K": 500_000, "F1M": 1_000_000, "F4M": 4_000_000}
SEEDS = {4: 10, 25: 10, 49: 10, 100: 5}
"""Section 5.1."""


def figure_3(domain: str, best: str) -> set[tuple[object, ...]]:
    """Section 5.3 and Appendix D.1."""
    return {
        (domain, agents, mode, F[best] if mode == "dials" else None, seed, 4_000_000)
        for agents, seeds in SEEDS.items()
        for mode in ("global", "dials", "untrained")
        for seed in range(seeds)
    }


def figure_4(domain: str) -> set[tuple[object, ...]]:
    """Appendix D.2."""
    return {
        (domain, agents, "dials", every, seed, 4_000_000)
        for agents in (4, 25, 49)
        for every in F.values()
        for seed in range(10)
    }


PAPER = {
    "figure-3-warehouse": figure_3("warehouse", "F4M"),
    "figure-3-traffic": figure_3("traffic", "F1M"),
    "figure-4-warehouse": figure_4("warehouse"),
    "figure-4-traffic": figure_4("traffic"),
    "tables-1-2": {
        (domain, agents, mode, every, 0, 4_000_000)
        for domain, agents in itertools.product(("traffic", "warehouse"), SEEDS)
        for mode, every in [
            ("global", None),
            ("untrained", None),
            *(("dials", every) for every in F.values()),
        ]
    },
    "table-3": {
        (domain, agents, mode, 12_800 if mode == "dials" else None, 0, 12_800)
        for domain, agents in itertools.product(("traffic", "warehouse"), SEEDS)
        for mode in ("global", "dials")
    },
}


@functools.cache
def papers(domain: str, agents: int) -> dict[str, object]:
    """The settings of Tables 4 to 6."""
    return load(str(CONFIGS / domain / f"{agents}.yaml")).decisive()


@pytest.mark.parametrize("name", PAPER)
def test_a_study_of_the_paper_is_the_papers(name):
    runs = load_study(str(STUDIES / f"{name}.yaml")).runs
    found = {
        (
            run.config.domain,
            run.config.domain_section.grid[0] * run.config.domain_section.grid[1],
            run.config.mode,
            run.config.retrain_every if run.config.mode == "dials" else None,
            run.config.seed,
            run.config.total_steps,
        )
        for run in runs
    }
    assert found == PAPER[name] and len(runs) == len(found)
    assert all(run.agents == run.config.domain_section.grid[0] ** 2 for run in runs)
    # Tables 4 to 6: nothing but these differs from the configuration of the system.
    for run in runs:
        own, ours = papers(run.config.domain, run.agents), run.config.decisive()
        differing = {key for key in own if own[key] != ours[key]}
        assert differing <= {
            "mode",
            "seed",
            "retrain_every",
            "evaluation_seed",  # the episodes of evaluations
            *(("total_steps", "evaluate_every") * (name == "table-3")),
        }


def test_runs_of_one_name_are_the_same_in_the_papers_studies():
    seen: dict[str, str] = {}
    for name in PAPER.keys() - {"table-3"}:
        for run in load_study(str(STUDIES / f"{name}.yaml")).runs:
            assert seen.setdefault(run.name, run.config.digest()) == run.config.digest(), run.name
    assert len(set(seen.values())) == len(seen)


def test_every_study_has_a_small_one():
    not_of_the_paper = {"cities", "scale-traffic", "scale-warehouse", "sweep-warehouse"}
    names = {path.stem for path in STUDIES.glob("*.yaml")} - not_of_the_paper
    assert names == PAPER.keys() | {f"{name}-small" for name in PAPER}


@pytest.mark.parametrize("name", PAPER)
def test_a_small_study_has_the_methods_of_the_whole(name):
    whole, small = (load_study(str(STUDIES / f"{name}{end}.yaml")).runs for end in ("", "-small"))

    def methods(runs) -> set[tuple[str, str, float | None]]:
        """F as a share of the run."""
        return {
            (
                config.domain,
                config.mode,
                config.retrain_every / config.total_steps if config.mode == "dials" else None,
            )
            for config in (run.config for run in runs)
        }

    assert {method[:2] for method in methods(small)} == {method[:2] for method in methods(whole)}
    assert len(methods(small)) == len(methods(whole))
    assert {4} <= {run.agents for run in small} <= {4, 25}


# Refusals ------------------------------------------------------------------------------------------------

GOOD = "systems: {four: {config: good.yaml, seeds: 1}}\nmethods: {gs: {mode: global}}\n"

CONTENTS: dict[str, tuple[str, list[str]]] = {
    "empty": ("", ["study.yaml is an empty mapping"]),
    "a list": ("- 1\n", ["study.yaml: the top level is"]),
    "no methods": (GOOD.partition("methods")[0], ["study.yaml: there is no key methods"]),
    "unknown key": (GOOD + "setings: {}\n", ["study.yaml: unknown key 'setings', did you mean settings?"]),
    "far from any key": (GOOD + "x: 1\n", ["unknown key 'x', the keys are systems, methods"]),
    "unknown key of a system": (
        GOOD.replace("seeds", "seed"),
        ["systems.four: unknown key 'seed', did you mean seeds?"],
    ),
    "a system without seeds": (GOOD.replace(", seeds: 1", ""), ["systems.four: there is no key seeds"]),
    "no systems in it": (
        GOOD.replace("{four: {config: good.yaml, seeds: 1}}", "{}"),
        ["systems is an empty"],
    ),
    "a system that is a name": (
        GOOD.replace("{config: good.yaml, seeds: 1}", "good"),
        ["systems.four is 'good'"],
    ),
    "a configuration that is a number": (
        GOOD.replace("good.yaml", "4"),
        ["systems.four.config is 4", "path"],
    ),
    "a configuration that is not there": (
        GOOD.replace("good.yaml", "gone.yaml"),
        ["study.yaml: four with gs: gone.yaml: cannot be read"],
    ),
    "a wrong configuration": (
        GOOD.replace("good.yaml", "misspelt.yaml"),
        ["study.yaml: four with gs: misspelt.yaml", "did you mean checkpoint_every?"],
    ),
    "a wrong setting of a method": (
        GOOD.replace("mode: global", "retrain_evry: 100"),
        ["study.yaml: four with gs", "retrain_evry", "did you mean retrain_every?"],
    ),
    "a wrong value": (
        GOOD.replace("global", "gobal"),
        ["four with gs", "mode is 'gobal'", "dials, untrained"],
    ),
    "a section": (GOOD.replace("mode: global", "ppo: 1"), ["ppo is a section", "ppo."]),
    "a setting in two ways": (
        GOOD.replace("mode: global", "ppo.clip: 1, ppo: {clip: 0.5}"),
        ["methods.gs: ppo.clip is set twice, dotted and nested"],
    ),
    "a nested seed": (GOOD.replace("mode: global", "seed: {a: 1}"), ["unknown key seed.a"]),
    "an unknown nested key": (
        GOOD.replace("mode: global", "ppo: {learning_rat: 1}"),
        ["unknown key ppo.learning_rat, did you mean ppo.learning_rate?"],
    ),
    "a combination": (
        GOOD + "settings: {total_steps: 5}\n",
        ["good.yaml with its overrides", "total_steps is 5"],
    ),
    "settings that are a list": (GOOD + "settings: [ppo.clip=1]\n", ["settings is ['ppo.clip=1']"]),
    "a seed among the settings": (GOOD + "settings: {seed: 1}\n", ["study.yaml: settings: seed is set"]),
    "no seeds": (GOOD.replace("seeds: 1", "seeds: 0"), ["four.seeds is 0", "how many"]),
    "seeds in words": (GOOD.replace("seeds: 1", "seeds: ten"), ["four.seeds is 'ten'"]),
    "octal seeds": (GOOD.replace("seeds: 1", "seeds: [0, 010]"), ["line 1", "octal 8", "write 10 (or 8)"]),
    "octal number of seeds": (GOOD.replace("seeds: 1", "seeds: 010"), ["seeds is 010", "write 10 (or 8)"]),
    "a method that is a truth value": (GOOD.replace("gs:", "off:"), ["off is false", "'off' in quotes"]),
    "true seeds": (GOOD.replace("seeds: 1", "seeds: true"), ["four.seeds is true"]),
    "a seed twice": (GOOD.replace("seeds: 1", "seeds: [3, 4, 3]"), ["four.seeds is [3, 4, 3]", "twice"]),
    "a negative seed": (GOOD.replace("seeds: 1", "seeds: [-1]"), ["four.seeds is [-1]"]),
    "no seed in the list": (GOOD.replace("seeds: 1", "seeds: []"), ["four.seeds is []"]),
    "too many": (
        GOOD.replace("seeds: 1", "seeds: 9999").replace("}\n", ", five: {config: good.yaml, seeds: 9}}\n", 1),
        ["10008 runs are more than 10000"],
    ),
    "a name that is a path": (GOOD.replace("four", "../four"), ["systems: '../four' is no name"]),
    "a name on two lines": (GOOD.replace("gs", '"g\\ns"'), ["methods:", "is no name for directories"]),
    "a name that is a number": (GOOD.replace("four", "4"), ["systems: 4 is no name"]),
    "ranks": (GOOD + "ranks: none\n", ["study.yaml: ranks is 'none'", "whole number"]),
    "two names alike": (
        GOOD.replace("gs: {mode: global}", "x-y: {}, y: {mode: global}").replace(
            "}}\n", "}, four-x: {config: good.yaml, seeds: 1}}\n", 1
        ),
        ["four with x-y and four-x with y have the same name"],
    ),
    "two runs alike": (
        GOOD.replace("}\n", ", again: {mode: global, total_steps: 4000000}}\n").replace(
            "1}, again: {mode: global, total_steps: 4000000}}", "1}}"
        ),
        ["four with gs and four with again have the same settings for seed 0"],
    ),
}


@table(CONTENTS)
def test_a_bad_study_runs_nothing(worker, tmp_path, name):
    content, mentions = CONTENTS[name]
    (with_files(tmp_path) / "study.yaml").write_text(content)
    for arguments in ([], ["--list"], ["--count"]):
        refused(worker, tmp_path, "study", ["study.yaml", *arguments], mentions)


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["FILE", "--help"]),
    "no such file": (["gone.yaml"], ["gone.yaml: cannot be read"]),
    "an odd file": ([ODD], ["cannot be read"]),
    "a configuration": (["good.yaml"], ["good.yaml: unknown key 'seed', the keys are systems"]),
    "an unknown option": (["study.yaml", "--outptu", "x"], ["--outptu", "--help"]),
    "a wrong override": (["study.yaml", "ppo.clp=1"], ["four with gs", "did you mean ppo.clip?"]),
    "no override": (["study.yaml", "ppo"], ["four with gs", "key=value"]),
    "a seed": (["study.yaml", "seed=3"], ["command line: seed is set", "seeds of its system"]),
    "no output": (["study.yaml", "--output", ""], ["--output", "empty"]),
    "no report": (["study.yaml", "--report", ""], ["--report", "empty"]),
    "list and count": (["study.yaml", "--list", "--count"], ["--count", "--list"]),
    **{
        f"ranks {text!r}": (["study.yaml", f"--ranks={text}"], ["--ranks", "whole number"])
        for text in ("0", "-1", "two", "1.5", "", "٣", "010", "1_0")
    },
    **{
        f"only {text!r}": (["study.yaml", f"--only={text}"], ["--only is", "such as 7 or 1-4,9"])
        for text in ("x", "1-", "-1", "1,,2", "1;2", "01", "1-03", ODD)
    },
    **{
        f"only {text!r}": (["study.yaml", f"--only={text}"], ["--only is", "numbers 1 to 1"])
        for text in ("0", "2", "1-2", "2-1", "999999")
    },
    "no launcher": (["study.yaml", "--launcher", ""], ["--launcher is ''", "{ranks}"]),
    "a launcher without ranks": (["study.yaml", "--launcher", "srun -n 4"], ["srun -n 4", "{ranks}"]),
    "a launcher with a quote": (["study.yaml", "--launcher", "srun '"], ["--launcher is", "quotation"]),
    "a launcher that is not there": (
        ["study.yaml", "--launcher", "gone-run {ranks}"],
        ["no program 'gone-run'"],
    ),
    "a walltime": (["study.yaml", "--walltime", "50"], ["--walltime is '50'", "3:50:00"]),
}


@table(COMMANDS)
def test_a_bad_command_line_runs_nothing(worker, tmp_path, name):
    arguments, mentions = COMMANDS[name]
    (with_files(tmp_path) / "study.yaml").write_text(GOOD)
    refused(worker, tmp_path, "study", arguments, mentions)


@table(FILES)
def test_a_file_that_is_no_study(worker, tmp_path, name):
    refused(worker, with_files(tmp_path), "study", [name, "--list"], [name])


def test_a_study_under_a_launcher(tmp_path):
    file = write_study(tmp_path)
    before = tree(tmp_path)
    done = study(str(file), "--list", ranks=3, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert len(done.ours()) == 1 and "without mpirun" in done.ours()[0]
    assert tree(tmp_path) == before


def test_no_mpirun(tmp_path, monkeypatch):
    runs = load_study(str(write_study(tmp_path))).runs
    monkeypatch.setattr("dials_mpi.study.launch.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="there is no mpirun") as refusal:
        plan_launch(3, None, runs)
    one_sentence(f"dials_mpi: {refusal.value}\n")
    assert plan_launch(1, None, runs).launcher == ()
    (tmp_path / "mpirun").touch()  # beside this Python
    assert plan_launch(3, None, runs).launcher == (str(tmp_path / "mpirun"), "-n", "{ranks}")


# How a run is started ------------------------------------------------------------------------------------


def test_a_run_gets_no_more_ranks_than_it_has_regions_for(tmp_path):
    """Blocks hold several agents, and training refuses ranks that would have nothing to do."""
    file = write_study(tmp_path, (*SMALL, "warehouse.block=[1,2]"))
    run = next(run for run in load_study(str(file)).runs if run.config.mode == "dials")
    assert (run.agents, Launch(9, ("x", "{ranks}")).ranks_of(run)) == (4, 3)


def test_a_run_gets_the_ranks_that_it_can_use(tmp_path):
    def ranks(most: int, *overrides: str) -> list[int]:
        runs = load_study(str(write_study(tmp_path)), None, overrides).runs
        return [Launch(most, ("x", "{ranks}")).ranks_of(run) for run in runs]

    assert ranks(1) == [1, 1, 1]
    assert ranks(3) == [1, 3, 3]  # the global simulator is played on root alone
    assert ranks(99) == [1, 5, 5]  # four regions and root
    assert ranks(99, "global_ranks=3") == [1, 7, 7]
    assert ranks(3, "global_ranks=3") == [1, 1, 1]  # none would be left for the regions


@pytest.mark.parametrize("text", ["0:00:01", "0:59:59", "3:50:00", "27:00:01", "100:00:00"])
def test_the_time_that_is_left_is_written_as_it_is_read(text):
    assert clock(seconds(text)) == text


def test_what_remains_is_told_by_runs_of_the_same_kind(tmp_path):
    runs = load_study(str(write_study(tmp_path, LONG, seeds=2))).runs
    assert remaining(runs, {}) != remaining(runs, {})  # nothing is known
    states = {
        "four-gs-seed0": State(Phase.FINISHED, 12800, 1.0, 60.0),
        "four-dials-seed0": State(Phase.INTERRUPTED, 3200, 1.0, 10.0),
    }
    # GS 60 s; DIALS 40 s, of which 30 are left; untrained by the mean of both, 50 s, twice.
    assert remaining(runs, states) == pytest.approx(30 + 2 * 50 + 60 + 40)


# Whole studies -------------------------------------------------------------------------------------------


def until(holds: Callable[[], object], program: Program, timeout: float = 150) -> None:
    limit = time.monotonic() + timeout
    while not holds():
        assert program.running(), program.wait()
        assert time.monotonic() < limit, f"not within {timeout} s"
        time.sleep(0.05)


def states(file: Path) -> list[str]:
    """What --list says of each run."""
    done = study(str(file), "--list", "--output", "out", cwd=file.parent)
    assert (done.code, done.stderr) == (0, "")
    return re.findall(r"four-\S+ +│ (.*?) +│", done.stdout)


def assert_same_results(one: Path, other: Path) -> None:
    """Two finished runs have the same results, bit for bit."""
    ours, theirs = results(one), results(other)
    assert ours.keys() == theirs.keys() >= {"evaluation/returns", "training/entropy", "policy/parameters"}
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.fixture
def alone(tmp_path, trained) -> StudyRun:
    """The run by DIALS of a small study; a finished one of its settings is in ``finished``."""
    shutil.copytree(trained(*SMALL, "mode=dials", "evaluation_seed=0", ranks=2), tmp_path / "finished")
    return load_study(str(write_study(tmp_path)), str(tmp_path / "out")).runs[1]


@pytest.mark.timeout(180)
def test_a_study_that_is_stopped_goes_on_and_ends_as_if_unbroken(tmp_path, trained):
    file, out = write_study(tmp_path, LONG), tmp_path / "out"
    assert states(file) == ["not started"] * 3
    assert not out.exists()

    arguments = ("-m", "dials_mpi.study", str(file), "--output", "out", "--ranks", "3")
    program = Program(*arguments, cwd=tmp_path, preloaded=True)
    until(lambda: present(out / "four-dials-seed0"), program)
    # A stopped process keeps what it holds, so that what is listed does not depend on how fast it is.
    for pid in program.processes():
        os.kill(pid, signal.SIGSTOP)
    first, second, third = states(file)
    for pid in program.processes():
        os.kill(pid, signal.SIGCONT)
    assert (first, third) == ("finished", "not started")
    assert re.match(r"running at [\d,]+ of 12,800 steps \(process \d+ on ", second)

    program.process.send_signal(signal.SIGTERM)
    stopped = program.wait()
    assert (stopped.code, stopped.left_over, stopped.ours()) == (75, [], [])
    assert re.search(r"run 2 of 3: four-dials-seed0 is stopped at [\d,]+ steps", stopped.stdout)
    first, second, third = states(file)
    assert (first, third) == ("finished", "not started")
    assert re.fullmatch(r"interrupted at [\d,]+ of 12,800 steps", second)

    done = study(*arguments[2:], cwd=tmp_path)
    assert (done.code, done.stderr, done.left_over) == (0, "", [])
    assert "four-gs-seed0" not in done.stdout
    assert re.search(r"run 2 of 3: four-dials-seed0 continues from [\d,]+ steps on 3 ranks", done.stdout)
    assert states(file) == ["finished"] * 3
    for method, times in (("gs", 1), ("dials", 2), ("untrained", 1)):
        directory = out / f"four-{method}-seed0"
        assert sessions(directory) == times
        assert membership.read(directory).method == method
        assert RunFile.open(directory).attributes()["ranks"] == (1 if method == "gs" else 3)

    assert_same_results(out / "four-dials-seed0", trained(*LONG, "mode=dials", "evaluation_seed=0"))

    before = tree(out)
    again = study(*arguments[2:], cwd=tmp_path)
    assert (again.code, again.stderr) == (0, "")
    assert "run 1" not in again.stdout and tree(out) == before


def test_a_study_stops_at_the_next_checkpoint_when_asked_to(tmp_path):
    file, out = write_study(tmp_path, LONG), tmp_path / "out"
    program = Program(
        *("-m", "dials_mpi.study", str(file), "--output", "out", "--ranks", "1", "--only", "2,3"),
        cwd=tmp_path,
    )
    until(lambda: present(out / "four-dials-seed0"), program)
    program.process.send_signal(signal.SIGUSR1)
    stopped = program.wait()
    assert (stopped.code, stopped.stderr, stopped.left_over) == (75, "", [])
    assert "stopped at" in (out / "four-dials-seed0" / "log.txt").read_text()
    assert not (out / "four-untrained-seed0").exists()


def test_a_study_ends_in_its_walltime(tmp_path):
    file = write_study(tmp_path, (*LONG, *ENDLESS))
    done = study(str(file), "--output", "out", "--ranks", "1", "--walltime", "0:00:09", cwd=tmp_path)
    assert (done.code, done.stderr) == (75, "")
    assert states(file)[0].startswith("interrupted at ") and states(file)[1:] == ["not started"] * 2
    # The run itself was told what was left.
    assert "stopped at" in (tmp_path / "out/four-gs-seed0/log.txt").read_text()


def test_a_run_that_is_known_not_to_fit_waits_for_the_next_session(tmp_path, alone):
    arguments = ("tiny.yaml", "--output", "out", "--ranks", "2")
    shutil.copytree(tmp_path / "finished", alone.directory)
    with rewriting(present(tmp_path / "out" / "four-dials-seed0")[0]) as checkpoint:
        checkpoint.attrs["seconds"] = json.dumps({"train": 5000.0})
    longer = (*arguments, "total_steps=512", "--walltime", "1:00:00")
    done = study(*longer, "--only=1,2", cwd=tmp_path)
    assert (done.code, done.stderr) == (75, "")
    assert "run 1 of 3: four-gs-seed0 is finished" in done.stdout
    assert "four-dials-seed0 waits for the next session: the next segment takes about 5000 s" in done.stdout
    # Where it is the first, there would be no more time in any session: the run refuses itself.
    done = study(*longer, "--only=2", cwd=tmp_path)
    assert done.code == 1 and "the next segment takes about 5000 s" in done.ours()[0]


def test_a_run_is_told_the_moment_of_the_end(tmp_path):
    """However long its launcher takes to start it: here half of the time."""
    file = write_study(tmp_path, (*LONG, *ENDLESS))
    launcher = f"sh -c 'sleep 10; exec {mpirun()} -n {{ranks}} \"$@\"' launch"
    words = ("--output=out", "--only=2", "--ranks=2", "--launcher", launcher, "--walltime=0:00:24")
    begun = time.monotonic()
    done = study(str(file), *words, cwd=tmp_path)
    assert (done.code, done.stderr) == (75, "") and time.monotonic() - begun < 30
    assert "stopped at" in (tmp_path / "out/four-dials-seed0/log.txt").read_text()


def test_a_hang_up_stops_no_study_under_nohup(tmp_path, alone):
    script = "kill -HUP $PPID; sleep 0.3; cp -r finished out/four-dials-seed0"
    (tmp_path / "out").mkdir()
    words = (
        "tiny.yaml",
        "--output=out",
        "--only=2",
        "--ranks=2",
        "--launcher",
        f"sh -c '{script}' {{ranks}}",
    )
    command = ["nohup", sys.executable, "-m", "dials_mpi.study", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "end: 1 finished" in done.stdout


def test_a_configuration_that_was_changed_meanwhile_is_not_run(tmp_path, capsys):
    """What the study has checked is what runs."""
    file = write_study(tmp_path, seeds=2)
    study_ = load_study(str(file), str(tmp_path / "out"))
    (tmp_path / "base.yaml").write_text("domain: warehouse\nppo: {clip: 0.2}\n")
    assert series(study_.runs[:1]).work() == CRASHED
    assert "four-gs-seed0: its configuration" in capsys.readouterr().err
    (tmp_path / "base.yaml").write_text("domain: warehouse\nppo: {clip: much}\n")
    assert series(study_.runs[:1]).work() == CRASHED
    (tmp_path / "base.yaml").unlink()
    assert series(study_.runs[:1]).work() == CRASHED
    assert not list((tmp_path / "out").iterdir())


def test_a_run_that_fails_does_not_keep_the_others(tmp_path):
    file, out = write_study(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "four-gs-seed0").write_text("here already")
    report = tmp_path / "report"
    done = study(str(file), "--output", "out", "--ranks", "1", "--report", str(report), cwd=tmp_path)
    assert done.code == 1
    (sentence,) = done.ours()
    assert "four-gs-seed0: the run directory out/four-gs-seed0 cannot be written" in sentence
    assert "run 1 of 3: four-gs-seed0 has failed with exit code 2" in done.stdout
    assert "failed: four-gs-seed0\n" in done.stdout
    assert states(file) == ["not started", "finished", "finished"]
    # What there is was reported.
    assert list(report.glob("*.csv")) and "four-untrained-seed0" in done.stdout
    assert "four-untrained-seed0" in (report / "report.html").read_text()


def test_a_launcher_that_says_0_and_has_not_run(tmp_path):
    file = write_study(tmp_path)
    done = study(
        str(file), "--only=2", "--launcher", "true {ranks}", "--ranks=2", "--output=out", cwd=tmp_path
    )
    assert done.code == 1 and "four-dials-seed0 has failed with exit code 0" in done.stdout


def test_a_launcher_that_starts_single_processes_is_told_of(tmp_path):
    """Nothing in the environment tells the process of the others."""
    (tmp_path / "single").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "single").chmod(0o755)
    file, words = write_study(tmp_path), ("--only=2", "--ranks=2", "--output=out")
    done = study(str(file), *words, "--launcher", f"{tmp_path}/single {{ranks}}", cwd=tmp_path)
    assert done.code == 1 and "failed: four-dials-seed0" in done.stdout
    (sentence,) = done.ours()
    assert "ranks=1 in its run file, in place of 2" in sentence and "--launcher" in sentence
    assert states(file)[1] == "finished", "the results are what they would have been"


def test_a_launcher_that_mpi_does_not_notice_fails_the_run(tmp_path):
    """As srun without PMI."""
    file, words = write_study(tmp_path), ("--only=2", "--ranks=2", "--output=out")
    launcher = "env SLURM_STEP_NUM_TASKS={ranks} SLURM_NTASKS={ranks} SLURM_PROCID=0"
    done = study(str(file), *words, "--launcher", launcher, cwd=tmp_path)
    assert done.code == 1 and "four-dials-seed0 has failed with exit code 2" in done.stdout
    (sentence,) = (line for line in done.ours() if "first start" not in line)
    assert "started 2 ranks (SLURM_STEP_NUM_TASKS)" in sentence and "srun --mpi=list" in sentence


def test_a_launcher_is_told_the_ranks(tmp_path):
    file = write_study(tmp_path)
    launcher = f"{mpirun()} -n {{ranks}}"
    done = study(str(file), "--only=2", "--launcher", launcher, "--ranks=2", "--output=out", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert RunFile.open(tmp_path / "out" / "four-dials-seed0").attributes()["ranks"] == 2


@contextmanager
def held(directory: Path, by: str = "process 7 on another machine") -> Iterator[None]:
    """A directory that another process has."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        lock.write(f"{by}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def meanwhile(monkeypatch) -> Callable[..., None]:
    """meanwhile(first, second...): what happens while a study waits, one thing each time; no more of it."""

    def happen(*events: Callable[[], object]) -> None:
        coming = iter(events)
        clock = SimpleNamespace(sleep=lambda seconds: next(coming)())
        monkeypatch.setattr("dials_mpi.study.series.time", clock)

    return happen


def series(runs: Sequence[StudyRun], script: str = "exit 99", end: float = math.inf) -> Series:
    """A study whose runs are started by a shell script, in the study's folder. end: as time.monotonic."""
    folder = Path(runs[0].file).parent
    (folder / "out").mkdir(exist_ok=True)
    launcher = ("sh", "-c", f'cd "$0" && {{ {script}; }}', str(folder), "{ranks}")
    states = {run: state_of(run) for run in runs}
    return Series(states, Launch(2, launcher), Deadline(end), limited=False)


def nothing() -> None:
    pass


def test_what_another_study_leaves_unfinished_is_taken_up(tmp_path, alone, meanwhile, capsys):
    """After everything else that there is to do."""
    other = load_study(str(tmp_path / "tiny.yaml"), str(tmp_path / "out")).runs[2]
    shutil.copytree(tmp_path / "finished", tmp_path / "untrained")
    with rewriting(tmp_path / "untrained" / "run.h5") as file:
        file.attrs["config_digest"] = other.config.digest()
    script = """
        if [ -e out/four-untrained-seed0 ]; then cp finished/run.h5 out/four-dials-seed0
        else cp -r untrained out/four-untrained-seed0; fi"""
    with ExitStack() as theirs:
        theirs.enter_context(held(alone.directory))
        meanwhile(nothing, theirs.close)
        assert series((alone, other), script).work() == DONE
    said = capsys.readouterr().out
    order = ["dials-seed0 is run by process 7 on", "untrained-seed0 is finished", "dials-seed0 starts"]
    assert sorted(order, key=said.index) == order
    assert said.count("waiting for it") == 1 and "end: 2 finished" in said


def test_what_another_study_finishes_is_done(tmp_path, alone, meanwhile):
    with ExitStack() as theirs:
        theirs.enter_context(held(alone.directory))
        meanwhile(lambda: shutil.copy(tmp_path / "finished" / "run.h5", alone.directory), theirs.close)
        assert series([alone]).work() == DONE


def test_a_study_that_waits_heeds_signals_and_the_walltime(alone, meanwhile, capsys):
    with held(alone.directory):
        meanwhile(nothing, lambda: signal.raise_signal(signal.SIGTERM))
        assert series([alone]).work() == STOPPED
        meanwhile(lambda: time.sleep(1))
        assert series([alone], end=time.monotonic() + RESERVE + 1).work() == STOPPED
    assert "four-dials-seed0 waits for the next session: the time is over" in capsys.readouterr().out


def test_a_study_looks_again_after_some_seconds(tmp_path, alone):
    with held(alone.directory):
        program = Program("-m", "dials_mpi.study", "tiny.yaml", "--output=out", "--only=2", cwd=tmp_path)
        shutil.copy(tmp_path / "finished" / "run.h5", alone.directory)
        time.sleep(1.5)
        assert program.running()
    assert program.wait(30).code == 0


REFUSALS = {
    "finished since": ("cp -r finished out/four-dials-seed0; exit 2", DONE, 1),
    "stopped since": ("[ $(wc -l < calls) = 1 ] && exit 2; cp -r finished out/four-dials-seed0", DONE, 2),
    "refused for good": ("exit 2", CRASHED, 2),
    "no refusal": ("exit 1", CRASHED, 1),
}


@table(REFUSALS)
def test_a_run_that_is_refused_is_looked_at_again(tmp_path, alone, name, capsys):
    script, code, calls = REFUSALS[name]
    assert series([alone], f"echo >> calls; {script}").work() == code
    assert len((tmp_path / "calls").read_text().splitlines()) == calls
    assert ("has failed" in capsys.readouterr().out) == (code == CRASHED)


def test_a_run_that_another_study_has_begun_a_moment_before_is_waited_for(
    tmp_path, alone, meanwhile, monkeypatch, capsys
):
    with ExitStack() as theirs:

        def refused(*_: object) -> Ended:
            theirs.enter_context(held(alone.directory))
            return Ended(REFUSED, [])

        monkeypatch.setattr("dials_mpi.study.process.Processes.run", refused)
        meanwhile(lambda: shutil.copy(tmp_path / "finished" / "run.h5", alone.directory), theirs.close)
        assert series([alone]).work() == DONE
    assert "is run by process 7 on another machine: waiting for it" in capsys.readouterr().out


def test_no_run_outlives_its_study(tmp_path):
    """Not even where that is killed; mpirun passes on to the ranks what it gets."""
    file = write_study(tmp_path)
    launcher = f"{mpirun()} -n {{ranks}} sh -c 'touch begun && sleep 1000'"
    words = ("--output=out", "--ranks=2", "--only=2", "--launcher", launcher)
    program = Program("-m", "dials_mpi.study", str(file), *words, cwd=tmp_path)
    until((tmp_path / "begun").exists, program)
    program.process.kill()
    assert program.wait().left_over == []


def test_behind_a_study_signals_do_what_they_did_before(alone):
    heard = []
    numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, frame: heard.append(number)) for n in numbers}
    try:
        assert series([alone], "cp -r finished out/four-dials-seed0").work() == DONE
        for number in numbers:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert heard == list(numbers)


def test_a_signal_ends_a_report(tmp_path, alone):
    shutil.copytree(tmp_path / "finished", alone.directory)
    words = ("tiny.yaml", "--output=out", "--ranks=1", "--only=2", "--report=figures")
    program = Program("-m", "dials_mpi.study", *words, cwd=tmp_path)

    def reports() -> bool:
        lines = [Path(f"/proc/{pid}/cmdline") for pid in program.processes()]
        return any(b"dials_mpi.report" in line.read_bytes() for line in lines if line.exists())

    until(reports, program)
    program.process.terminate()
    ended = program.wait()
    assert (ended.code, ended.left_over) == (-signal.SIGTERM, [])
    assert "end: 1 finished" in ended.stdout and not list(tmp_path.glob("figures/*"))


def test_a_signal_that_comes_too_late_for_the_last_run_keeps_the_report(tmp_path, alone):
    (tmp_path / "out").mkdir()
    script = "trap : USR1; cp -r finished out/four-dials-seed0; kill -USR1 $PPID; sleep 0.3"
    launcher = ("--ranks=2", "--launcher", f"sh -c '{script}' {{ranks}}")
    words = ("tiny.yaml", "--output=out", "--only=2", "--report=figures")
    done = study(*words, *launcher, cwd=tmp_path)
    assert done.code == STOPPED and not (tmp_path / "figures").exists()
    assert states(tmp_path / "tiny.yaml")[1] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_studies_share_the_runs(tmp_path):
    file = write_study(tmp_path, LONG)
    arguments = ("-m", "dials_mpi.study", str(file), "--output", "out", "--ranks", "1")
    both = [Program(*arguments, cwd=tmp_path) for _ in range(2)]
    for done in [program.wait(150) for program in both]:
        assert (done.code, done.stderr) == (0, "")
    assert states(file) == ["finished"] * 3
    assert [sessions(directory) for directory in (tmp_path / "out").iterdir()] == [1] * 3


def test_a_run_that_was_to_be_shorter_can_be_gone_on_with(tmp_path, alone):
    def phase(*overrides: str) -> Phase:
        run = load_study(str(tmp_path / "tiny.yaml"), str(tmp_path / "out"), overrides).runs[1]
        return state_of(run).phase

    shutil.copytree(tmp_path / "finished", alone.directory)
    assert phase() is Phase.FINISHED
    assert phase("total_steps=512") is Phase.INTERRUPTED
    assert phase("total_steps=512", "ppo.clip=0.3") is Phase.OTHER
    assert phase("total_steps=128") is Phase.OTHER
    with held(alone.directory):
        assert phase("total_steps=512") is Phase.RUNNING
        assert phase("ppo.clip=0.3") is Phase.OTHER  # to wait for it would change nothing


def test_a_report_that_cannot_be_drawn_is_refused_before_anything_runs(tmp_path):
    """The first command of the README installs no matplotlib."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    file = write_study(tmp_path, LONG)
    where = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = study(str(file), "--output=out", "--report=figures", cwd=tmp_path, environment=where)
    assert (done.code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "matplotlib" in done.stderr and "dials_mpi[report]" in done.stderr
    assert not (tmp_path / "out").exists()


def test_runs_with_other_settings_are_not_reported(tmp_path, alone, capfd, monkeypatch):
    runs = load_study(str(tmp_path / "tiny.yaml"), str(tmp_path / "out")).runs[:2]
    for run in runs:  # the first is by another method than what is there
        shutil.copytree(tmp_path / "finished", run.directory)
    commands = []

    def told(command: list[str]) -> subprocess.CompletedProcess:
        commands.append(command[command.index("dials_mpi.report") + 1 :])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("dials_mpi.study.reporting.subprocess.run", told)
    assert report(runs, "figures") == 0
    files = ["--out", "figures", "--html", "figures/report.html"]
    assert commands == [[str(runs[1].directory), *files]]
    assert capfd.readouterr() == ("not reported because of other settings: four-gs-seed0\n", "")
    assert report(runs[:1], "figures") == CRASHED and len(commands) == 1


def test_other_settings_are_refused_before_anything_runs(tmp_path, alone):
    file = tmp_path / "tiny.yaml"
    shutil.copytree(tmp_path / "finished", alone.directory)
    done = study(str(file), "--output=out", "--ranks=1", "ppo.clip=0.3", cwd=tmp_path)
    assert (done.code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "was started with other settings: ppo.clip was 0.1 and is 0.3: give the same ones" in done.stderr
    assert [path.name for path in alone.directory.parent.iterdir()] == [alone.name]
    listed = study(str(file), "--output=out", "--list", "ppo.clip=0.3", cwd=tmp_path)
    assert "other settings at 256 of 256 steps" in listed.stdout
    (alone.directory / "run.h5").write_bytes(b"no run file")
    listed = study(str(file), "--output=out", "--list", cwd=tmp_path)
    assert (listed.code, listed.stderr) == (0, "")
    assert "unreadable" in listed.stdout and "is not a run file, or a damaged one" in listed.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_each_domain_is_reported_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "base.yaml").write_text("")
    systems = {
        name: {"config": "base.yaml", "seeds": 1, "settings": as_settings((*words, "total_steps=1024"))}
        for name, words in DOMAINS.items()
    }
    systems["warehouse"]["settings"]["segment_every"] = 0
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump({"systems": systems, "methods": {"gs": METHODS["gs"]}}))
    done = study(str(file), "--report", "figures", cwd=tmp_path, timeout=100)
    assert (done.code, done.stderr) == (0, "")
    for domain in DOMAINS:
        summaries = (tmp_path / "figures" / domain).glob("*.csv")
        assert any(f"{domain}-gs-seed0" in path.read_text() for path in summaries)


def test_at_a_terminal_there_is_a_bar(tmp_path):
    file = write_study(tmp_path, LONG)
    shown, stderr = in_terminal(
        *("-m", "dials_mpi.study", str(file), "--output", str(tmp_path / "out"), "--ranks=1", "--only=1"),
        COLUMNS="150",
    )
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert stderr == b""
    assert "study ETA" in text and "run 1 of 3: four-gs-seed0 is finished" in text


def test_text_is_shown_as_it_is(tmp_path, capsys):
    """Also where it would be markup."""
    file, odd = write_study(tmp_path), "[/b]:x:"
    with held(tmp_path / odd / "four-gs-seed0", by=f"process 7 on {odd}"):
        done = study(str(file), "--list", "--output", odd, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert f"tiny: 3 runs in {odd}" in done.stdout
    assert f"running at 0 of 256 steps (process 7 on {odd})" in done.stdout
    result = Evaluation(np.zeros((2, 4)), {"delay": np.ones(2)})
    console = ConsoleSink()
    console.session(Session(Path(odd), load(None), range(4), [Statistic("delay", odd, "of all")]))
    console.references(result, {"random": result, odd: result})
    shown = capsys.readouterr().out
    assert re.search(rf"\bdelay\b.*\n.*{re.escape(odd)}", shown) and shown.count(odd) == 6
