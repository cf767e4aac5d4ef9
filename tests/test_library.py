"""The package as a library: dials_mpi.open, open_many, load_config and train (docs/python.md)."""

from __future__ import annotations

import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, generators, launch

import dials_mpi
from dials_mpi.archive import archive
from dials_mpi.core.errors import BadInput
from dials_mpi.learning.influence import fit_anew
from dials_mpi.run.sinks import Sink
from dials_mpi.run.system import System

pytest.importorskip("xarray")

ROOT = Path(__file__).parents[1]
VERSION_1 = Path(__file__).with_name("data") / "version-1.tar.gz"


@pytest.fixture
def run(trained):
    return dials_mpi.open(trained(*SMALL, "datasets=all"))


@pytest.fixture
def plain(run):
    return content(run.recorded.path)


# Reading -------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_series_are_those_of_the_file(run, plain):
    for group in ("evaluation", "training", "influence", "timing"):
        series = getattr(run, group + "s" * (group == "evaluation"))
        own = {name.partition("/")[2]: value for name, value in plain.items() if name.startswith(group + "/")}
        for name, value in own.items():
            if name not in ("rank", "clock"):
                assert np.array_equal(series[name], value, equal_nan=True), name
    assert run.evaluations.returns.dims == ("env_steps", "episode", "agent")
    assert set(run.evaluations.returns.coords) == {"env_steps", "episode", "agent", "wall_time"}
    assert list(run.timing.clock.values) == ["wall", "CPU"]
    assert run.timing.train.attrs["units"] == "s"
    assert run.finished and run.config.seed == 0 and run.evaluations.attrs["domain"] == "warehouse"


def test_the_map_has_the_agents_in_their_cells(run):
    assert run.map.name.values.tolist() == [f"row {r}, column {c}" for r in (1, 2) for c in (1, 2)]
    assert run.map.x.values.tolist() == [0, 1, 0, 1] and run.map.y.values.tolist() == [0, 0, -1, -1]
    assert run.map.x.dims == ("agent",)


def test_references_are_stacked_by_policy(run, plain):
    assert set(run.references.policy.values) == {"random", "closest", "oldest"}
    for policy in run.references.policy.values:
        assert np.array_equal(run.references.returns.sel(policy=policy), plain[f"reference/{policy}"])


def test_long_form_has_a_row_for_each_evaluation_episode_and_agent(run, plain):
    table = run.to_pandas()
    returns = plain["evaluation/returns"]
    assert len(table) == returns.size
    for row in table.itertuples():
        t = plain["evaluation/env_steps"].tolist().index(row.env_steps)
        assert row.returns == returns[t, row.episode, row.agent]
        assert row.wall_time == plain["evaluation/wall_time"][t]


def test_nothing_is_read_twice(run, monkeypatch):
    first = run.evaluations
    monkeypatch.setattr(h5py, "File", None)
    assert run.evaluations is first


def test_a_file_that_another_library_has_open_in_this_process_is_read(run):
    """xarray opens files with locks; HDF5 refuses a second opening without."""
    with h5py.File(run.recorded.path, "r", locking=True):
        again = dials_mpi.open(run.recorded.directory)
        assert again.evaluations.identical(run.evaluations) and len(again.policies) == 4


def test_a_refit_is_the_runs_own_and_takes_other_settings(run, plain):
    """The first refit of a run fits new predictors, to the first dataset."""
    for k in (0, 3):
        _, fit = run.refit(k, env_steps=0)
        assert fit.after == plain["influence/cross_entropy_after"][0, k]
        assert fit.constant == plain["influence/cross_entropy_constant"][0, k]
    predictor, other = run.refit(1, ["influence.architecture=fnn", "influence.epochs=2"])
    data = run.datasets[max(run.datasets)].region(1)
    episodes = run.config.influence.held_out_episodes(data.sizes["episode"])
    held_out = (data[name].values[-episodes:] for name in ("inputs", "sources"))
    assert other.after == pytest.approx(predictor.cross_entropy(*held_out), rel=1e-6) != fit.after
    with pytest.raises(BadInput, match="there is no region 4: give a number from 0 to 3"):
        run.refit(4)
    with pytest.raises(BadInput, match="has no dataset of 7 steps"):
        run.refit(0, env_steps=7)
    with pytest.raises(BadInput, match="did you mean"):
        run.refit(0, ["influence.epoch=3"])


def test_predictors_that_start_from_that_of_the_first_region(trained, run):
    """The others take fewer epochs, also at the second refit; run.refit does the same as the run."""
    settings = ("influence.epochs=6", "influence.start=first", "influence.refit_epochs=1", "datasets=all")
    started = dials_mpi.open(trained(*SMALL, *settings, ranks=3))
    losses = started.influence["cross_entropy_after"].values
    first, again = (started.refit(0, env_steps=0)[0] for _ in range(2))
    assert np.array_equal(first.vector, again.vector)
    for k in range(4):
        predictor, fit = started.refit(k, env_steps=0)
        assert fit.after == losses[0, k]
        data = started.datasets[0].arrays(k)
        by_hand, _ = fit_anew(
            replace(started.config.influence, epochs=1 if k else 6),
            *(started.domain.regions[k], k, (data.inputs, data.sources), started.config.seed),
            start=first.vector if k else None,
        )
        assert np.array_equal(by_hand.vector, predictor.vector)
    with pytest.raises(BadInput, match="there is no region 4: give a number from 0 to 3"):
        started.refit(4)


def test_policies_act(run):
    agent, rng = run.policies[1], np.random.default_rng(3)
    observations = rng.random((5, agent.observations)).astype(np.float32)
    greedy, state = agent.act(observations, greedy=True)
    outputs, after = run.actors[1].network.advance(observations, run.actors[1].initial_state(5))
    assert np.array_equal(greedy, outputs[:, :-1].argmax(axis=1)) and np.array_equal(state, after)
    one, _ = agent.act(observations[2], greedy=True)
    assert one == greedy[2] and isinstance(one, int)
    again = dials_mpi.open(run.recorded.directory).policies[1]
    draws = [[each.act(observations)[0].tolist() for _ in range(4)] for each in (agent, again)]
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws[0]}) > 1
    assert {action for draw in draws[0] for action in draw} <= set(range(agent.actions))
    with pytest.raises(BadInput, match=rf"shape \[5, 2\]: give \[{agent.observations}\]"):
        agent.act(observations[:, :2])


def test_a_whole_episode_can_be_played_by_hand(run):
    """The actions of all agents, drawn here, are those that the joint policy draws from the same numbers."""
    from dials_mpi.algorithm.joint import TrainedPolicies

    simulator = run.domain.global_simulator([np.random.default_rng(5)])
    observations, states = simulator.reset().observations, [None] * len(run.policies)
    ours, theirs = np.random.default_rng(7), TrainedPolicies(run.actors, [np.random.default_rng(7)])
    for _ in range(10):
        actions = []
        for i, agent in enumerate(run.policies):
            action, states[i] = agent.act(observations[i], states[i], rng=ours)
            actions.append(action)
        assert np.array_equal(actions, theirs(observations))
        observations = simulator.step(np.array(actions)).state.observations


def test_a_step_that_makes_no_sense_is_refused(run):
    simulator, plain = run.simulator(2), run.domain.global_simulator(generators(2))
    assert type(simulator) is type(plain)
    actions = np.zeros((len(run.domain.agents), 2), int)
    with pytest.raises(BadInput, match="episode 0 has ended or not begun: call reset"):
        simulator.step(actions)
    simulator.reset(elapsed=np.array([0, run.domain.horizon - 1]))
    for wrong, said in (
        ([0], r"int64 of shape \[1\]: give whole numbers of shape \[4, 2\]"),
        (actions * 1.0, "actions are float64 of shape"),
        (actions - np.eye(4, 2, dtype=int), "the action of agent 0 in episode 0 is -1: give one from 0 to 3"),
    ):
        with pytest.raises(BadInput, match=said):
            simulator.step(wrong)
    done = simulator.step(actions.tolist()).done
    assert done.tolist() == [False, True]
    with pytest.raises(BadInput, match="episode 1 has ended"):
        simulator.step(actions)
    simulator.reset(where=done)
    assert not simulator.step(actions).done.any()


def test_checkpoints_and_their_returns(run, plain):
    saved = run.checkpoints()
    assert [one.env_steps for one in saved] == [128, 256][-len(saved) :] and saved[-1].path.exists()
    assert saved[-1].mean_return == plain["evaluation/returns"][-1].mean()
    best = dials_mpi.open(run.recorded.directory, checkpoint="best")
    assert best.env_steps in {one.env_steps for one in saved}


def test_kept_data_have_names(run):
    (first, *_) = run.datasets
    region = run.datasets[first].region(2)
    raw = run.datasets[first].file.region(2)
    assert region.inputs.dims == ("episode", "step", "input") and np.array_equal(region.inputs, raw.inputs)
    assert "right neighbour" in region.source.values and region.agent.values.tolist() == [2]
    with pytest.raises(BadInput, match="no region 9: give a number from 0 to 3"):
        run.datasets[first].region(9)
    with pytest.raises(BadInput, match=r"no dataset of 77 steps: it has 0"):
        run.datasets[77]


def test_what_a_run_does_not_have_is_named(run, tmp_path):
    with tarfile.open(VERSION_1) as files:
        files.extractall(tmp_path / "old", filter="data")
    old = dials_mpi.open(tmp_path / "old")
    assert not old.finished and old.evaluations.sizes["env_steps"] == 2 and "not finished" in repr(old)
    assert old.evaluations.returns.attrs["units"] == "1" and len(old.policies) == 2
    with pytest.raises(BadInput, match="no references: a run writes them at its end"):
        _ = old.references
    archive([run.recorded.directory], tmp_path / "copies")
    copy = dials_mpi.open(next((tmp_path / "copies").iterdir()))
    assert copy.evaluations.identical(run.evaluations)
    with pytest.raises(BadInput, match="it is a copy without networks"):
        _ = copy.policies
    with pytest.raises(BadInput, match=r"there is no run.h5"):
        dials_mpi.open(tmp_path)


def test_a_missing_library_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(BadInput, match=r"pip install 'dials_mpi\[data\]'"):
        _ = dials_mpi.open(run.recorded.directory).evaluations


def test_several_runs_are_stacked(trained, tmp_path):
    runs = [trained(*SMALL), trained(*SMALL, "seed=1"), trained(*SMALL, "warehouse.grid=[1,2]")]
    for number, each in enumerate(runs):
        (tmp_path / f"run{number}").symlink_to(each)
    (tmp_path / "run9").mkdir()
    every = dials_mpi.open_many(str(tmp_path / "run*"))
    assert every.agents.values.tolist() == [4, 4, 2] and every.seed.values.tolist() == [0, 1, 0]
    assert every.F.values.tolist() == [128] * 3 and set(every.domain.values) == {"warehouse"}
    for number, each in enumerate(runs):
        own = content(each / "run.h5")["evaluation/returns"]
        assert np.array_equal(every.returns[number, ..., : own.shape[2]], own)
    assert np.isnan(every.returns[2, ..., 2:]).all()
    listed = dials_mpi.open_many([runs[0], str(tmp_path / "run[12]")])
    assert listed.sizes["run"] == 3 and listed.seed.values.tolist() == [0, 1, 0]
    with pytest.raises(BadInput, match="is given twice: give each run once"):
        dials_mpi.open_many([runs[0], tmp_path / "run0"])
    with pytest.raises(BadInput, match=r"there is no run\.h5"):
        dials_mpi.open_many([tmp_path / "run9"])
    with pytest.raises(BadInput, match="holds a run: give another pattern"):
        dials_mpi.open_many(str(tmp_path / "none*"))


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_the_pages_runs(trained, tmp_path, monkeypatch, page):
    """In one namespace, block after block; a file of the preset's name takes its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "warehouse-4-dials-seed0").symlink_to(trained(*SMALL))
    (tmp_path / "warehouse").mkdir()
    (tmp_path / "warehouse" / "fast").write_text(config().to_yaml())
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert len(blocks) >= 1 and names["run"].finished and names["runs"].sizes["run"] >= 1
    assert len(names["curve"]) == 3 and names["curve"].iloc[-1] > 0


# Training ------------------------------------------------------------------------------------------------


def config(*more: str):
    return dials_mpi.load_config(None, [*SMALL, *more])


class Counter(Sink):
    """Counts the segments, and may raise an exception in one."""

    def __init__(self):
        self.segments = 0

    def on_segment_end(self, run):
        self.segments += 1


def test_training_from_python_gives_the_results_of_the_command(trained, tmp_path, capfd):
    counter = Counter()
    run = dials_mpi.train(config(), output=tmp_path / "own", callbacks=[counter], quiet=True)
    assert capfd.readouterr() == ("", "") and counter.segments == 2 and run.finished
    theirs = dials_mpi.open(trained(*SMALL)).evaluations
    assert run.evaluations.drop_vars("wall_time").equals(theirs.drop_vars("wall_time"))


def test_a_run_that_cannot_start_raises(tmp_path):
    dials_mpi.train(config(), output=tmp_path / "own", quiet=True)
    with pytest.raises(BadInput, match="there is a run in"):
        dials_mpi.train(config(), output=tmp_path / "own")
    again = dials_mpi.train(config(), output=tmp_path / "own", resume=True, quiet=True)
    assert again.finished
    with pytest.raises(BadInput, match="the settings are one text, 'seed=1': give a list"):
        dials_mpi.load_config("warehouse/fast", "seed=1")
    with pytest.raises(BadInput, match="unknown key nothing"):
        dials_mpi.train(dials_mpi.load_config(None, ["nothing=1"]))


def test_a_run_that_fails_raises_and_can_be_resumed(tmp_path, monkeypatch):
    """Its directory is not locked any more."""
    train_policies, done = System.train_policies, []

    def fail_in_the_second(system, segment):
        if done:
            raise RuntimeError("no light")
        done.append(segment)
        train_policies(system, segment)

    monkeypatch.setattr(System, "train_policies", fail_in_the_second)
    with pytest.raises(RuntimeError, match="no light"):
        dials_mpi.train(config(), output=tmp_path / "own", quiet=True)
    assert not dials_mpi.open(tmp_path / "own").finished
    monkeypatch.undo()
    run = dials_mpi.train(config(), output=tmp_path / "own", resume=True, quiet=True)
    assert run.finished and run.evaluations.env_steps.values.tolist() == [0, 128, 256]


PROGRAM = """
import sys
from mpi4py import MPI
import dials_mpi

config = dials_mpi.load_config(None, sys.argv[2].split())
run = dials_mpi.train(config, output=sys.argv[1], quiet=True)
try:
    dials_mpi.train(config, output=sys.argv[1])
except dials_mpi.BadInput as refusal:
    last = float(run.evaluations.returns[-1].mean())
    print(f"{MPI.COMM_WORLD.rank} {run.finished} {last} {str(refusal)[:14]}\\n", end="")
"""


def test_all_ranks_of_a_program_train_together(trained, tmp_path):
    (tmp_path / "own.py").write_text(PROGRAM)
    words = [str(tmp_path / "own.py"), str(tmp_path / "run"), " ".join(SMALL)]
    result = launch(*words, ranks=3)
    assert (result.code, result.stderr) == (0, "")
    last = float(content(trained(*SMALL) / "run.h5")["evaluation/returns"][-1].mean())
    assert sorted(result.stdout.splitlines()) == [f"{k} True {last} there is a run" for k in range(3)]


def test_importing_the_package_loads_nothing():
    result = launch("-c", "import sys, dials_mpi; print([m for m in ('numpy', 'h5py') if m in sys.modules])")
    assert result.stdout.strip() == "[]"
    assert {"open", "open_many", "load_config", "train"} <= set(dir(dials_mpi))
    with pytest.raises(AttributeError, match="no attribute 'close'"):
        _ = dials_mpi.close
