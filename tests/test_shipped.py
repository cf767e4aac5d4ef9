"""The trained runs that come with the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import content, launch

import dials_mpi
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.cli import is_run
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES
from dials_mpi.results.run import Run
from dials_mpi.storage.runfile import RunFile
from dials_mpi.storage.shipped import FOLDER, located, names

ROOT = Path(dials_mpi.__file__).parent
EPISODES = {"trained/warehouse": 32, "trained/traffic": 2, "trained/cologne8": 1}
"""How many new episodes of each are played here: those of the warehouse take no time."""


def test_there_is_one_for_each_domain_and_all_are_small():
    assert names() == sorted(EPISODES)
    assert {Run.open(name).config.domain for name in names()} == {"warehouse", "traffic", "city"}
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 1_200_000


@pytest.mark.parametrize("name", EPISODES)
def test_it_plays_as_well_as_its_run_file_says(name):
    """New episodes: the mean return is within three standard errors of the difference."""
    run, episodes = Run.open(name), EPISODES[name]
    assert run.file.finished() and run.file.archived()
    said = run.file.read("evaluation/returns")[-1].mean(axis=1)
    found = evaluate(
        *(run.config, run.domain, run.actors, run.predictors, episodes), segment=OTHER_EPISODES
    ).returns.mean(axis=1)
    error = max(said.std(ddof=1), 0.05 * abs(said.mean())) * np.sqrt(1 / len(said) + 1 / episodes)
    assert abs(found.mean() - said.mean()) < 3 * error
    random = run.file.read("reference/random").mean()
    assert found.mean() - random > 0.8 * (said.mean() - random) > 0  # far better than without training


@pytest.mark.parametrize("name", EPISODES)
def test_the_readme_says_how_good_it_is_and_how_it_was_made(name):
    run = Run.open(name)
    (row,) = (line for line in (FOLDER / "README.md").read_text().splitlines() if f"| `{name}`" in line)
    returns = run.file.read("evaluation/returns")[-1]
    size = round((FOLDER / name.split("/")[1] / "run.h5").stat().st_size / 1000)
    assert f"| {returns.mean():.1f} |" in row and f"| {size} kB |" in row
    assert f"| {run.env_steps:,} |" in row


def test_a_name_means_the_run_of_the_package_unless_there_is_such_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("trained/warehouse") == located("trained/warehouse/") == ROOT / "trained" / "warehouse"
    assert is_run("trained/warehouse") and not is_run("trained/none")
    for other in ("trained/none", "trained", "warehouse", "x/trained/warehouse", "", "nul\0"):
        assert located(other) == Path(other)
        with pytest.raises(BadInput):
            RunFile.open(other)
    shutil.copytree(ROOT / "trained" / "traffic", "trained/warehouse")
    assert RunFile.open("trained/warehouse").attributes()["domain"] == "traffic"


@pytest.mark.quick
def test_as_a_user_starts_it(tmp_path):
    done = launch("-m", "dials_mpi.evaluate", "trained/warehouse", "--episodes", "8", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "") and done.stdout.startswith("mean return ")
    words = ("trained/warehouse", "--steps", "2", "--out", "a.png")
    assert launch("-m", "dials_mpi.watch", *words, cwd=tmp_path).code == 0
    refused = launch("-m", "dials_mpi.evaluate", "trained/warehouse", "seed=3", cwd=tmp_path)
    assert refused.code == 2 and "the settings of a run are fixed" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb")
def test_trained_lights_are_watched_in_sumos_window(tmp_path):
    """SUMO's window, on a screen in memory, shows the episode that SUMO without a window plays."""
    with subprocess.Popen(
        ["Xvfb", ":91", "-screen", "0", "1200x900x24"], stderr=subprocess.DEVNULL
    ) as screen:
        try:
            words = ("-m", "dials_mpi.evaluate", "trained/traffic", "--episodes", "1")
            plain = launch(*words, cwd=tmp_path)
            window = launch(*words, "traffic.gui=true", cwd=tmp_path, environment={"DISPLAY": ":91"})
        finally:
            screen.terminate()
    assert (window.code, window.stdout) == (0, plain.stdout) and plain.code == 0


def test_a_run_is_opened_with_settings_that_do_not_affect_its_results():
    run = Run.open("trained/traffic", settings=["traffic.gui=true", "traffic.sumo=traci", "silence=3"])
    assert run.config.domain_section.gui and run.config.silence == 3
    assert run.config.decisive() | {"traffic.gui": False, "traffic.sumo": "auto"} == (
        Run.open("trained/traffic").config.decisive()
    )
    with pytest.raises(BadInput, match=r"fixed, and traffic\.inflow was 0\.1 and is 0\.2: .*traffic\.gui, t"):
        Run.open("trained/traffic", settings=["traffic.gui=true", "traffic.inflow=0.2"])


def test_a_run_starts_from_one(tmp_path):
    words = ("total_steps=128", "evaluate_every=128", "retrain_every=128", "dataset_size=200")
    words += ("evaluation_episodes=3", "influence.epochs=1", "policy.hidden=[32,32]", "--output", "out")
    how = ("--config", "warehouse/fast", "--policies-from", "trained/warehouse")
    done = launch("-m", "dials_mpi.train", *how, *words, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert content(tmp_path / "out" / "run.h5")["evaluation/returns"][0].mean() > 10
