"""Runs with networks in PyTorch: the same bits at every rank count, stopped and resumed, read back."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Program, launch, train
from test_ranks import differing, results

HERE = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
FOUND = {"PYTHONPATH": HERE}
"""Where a run finds torch_modules."""


def networks(name: str, other: str = "") -> tuple[str, ...]:
    return (*SMALL, f"policy.architecture={name}", f"influence.architecture={other or name}")


CASES = {
    "twins": networks("torch:gru", "torch:fnn"),
    "twins exchanged": networks("torch:fnn", "torch:gru"),
    "own": (*networks("torch_modules:Pair", "torch_modules:Whole"), "policy.arguments={width: 5}"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """done(case, ranks): the directory of a finished run of a case."""
    finished = {}

    def run(case: str, ranks: int | None = None) -> Path:
        if (case, ranks) not in finished:
            out = tmp_path_factory.mktemp("run") / "out"
            result = train(*CASES[case], "--output", str(out), ranks=ranks, environment=FOUND)
            assert (result.code, result.stderr) == (0, "")
            finished[case, ranks] = out
        return finished[case, ranks]

    return run


@pytest.mark.parametrize("ranks", [3, 5])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_ranks_gives_the_same_bits(done, case, ranks):
    alone = results(done(case))
    assert alone["predictor/parameters"]
    assert differing(alone, results(done(case, ranks))) == []


def test_global_ranks_give_the_same_bits(done, tmp_path):
    words = (*CASES["own"], "evaluation_episodes=20", "dataset_size=400")
    for name, ranks, more in (("one", 1, ()), ("two", 4, ("global_ranks=2",))):
        result = train(*words, *more, "--output", str(tmp_path / name), ranks=ranks, environment=FOUND)
        assert (result.code, result.stderr) == (0, "")
    assert differing(results(tmp_path / "one"), results(tmp_path / "two")) == []


@pytest.mark.parametrize("case", ["twins", "own"])
def test_a_run_that_stops_and_is_resumed_gives_the_same_bits(done, tmp_path, case):
    how = {"cwd": tmp_path, "environment": FOUND}
    half = [word for word in CASES[case] if not word.startswith("total_steps")]
    first = train(*half, "total_steps=128", "ppo.anneal=false", "--output", "out", ranks=3, **how)
    assert (first.code, first.stderr) == (0, "")
    more = train(*half, "total_steps=256", "ppo.anneal=false", "--output", "out", "--resume", **how)
    assert (more.code, more.stderr) == (0, "")
    whole = train(*CASES[case], "ppo.anneal=false", "--output", "whole", **how)
    assert (whole.code, whole.stderr) == (0, "")
    assert differing(results(tmp_path / "out"), results(tmp_path / "whole")) == []


def test_a_run_that_is_killed_and_resumed_gives_the_same_bits(tmp_path):
    words = [word for word in CASES["own"] if not word.startswith("total_steps")]
    words = (*words, "total_steps=512")
    how = {"cwd": tmp_path, "environment": FOUND}
    program = Program("-m", "dials_mpi.train", *words, "--output", "out", ranks=3, preloaded=True, **how)
    while program.running() and not list(tmp_path.glob("out/checkpoint-*.h5")):
        time.sleep(0.02)
    for process in program.processes():
        os.kill(process, signal.SIGKILL)
    program.wait()
    assert train(*words, "--output", "out", "--resume", **how).code == 0
    assert train(*words, "--output", "whole", **how).code == 0
    assert differing(results(tmp_path / "out"), results(tmp_path / "whole")) == []


def test_a_module_that_only_the_wrong_place_has_is_refused_before_anything_is_written(tmp_path):
    result = train(*CASES["own"], "--output", "out", ranks=2, cwd=tmp_path)
    assert result.code == 2
    (said,) = result.ours()
    assert "No module named 'torch_modules': install its package, or put the module's folder" in said
    assert not (tmp_path / "out").exists()


def test_without_torch_a_sentence_names_the_extra(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    how = {"cwd": tmp_path, "environment": {"PYTHONPATH": path}, "preloaded": False}
    result = train(*CASES["twins"], "--output", "out", **how)
    assert result.code == 2
    (said,) = result.ours()
    assert "pip install 'dials_mpi[torch]'" in said and "no torch here" in said
    built_in = train(*SMALL, "--print-config", **how)
    assert built_in.code == 0


@pytest.mark.parametrize("case", ["twins", "own"])
def test_a_finished_run_is_evaluated_archived_and_exported(done, tmp_path, case):
    how = {"cwd": tmp_path, "environment": FOUND}
    run = str(done(case))
    assert launch("-m", "dials_mpi.evaluate", run, "--episodes", "4", **how).code == 0
    exported = launch("-m", "dials_mpi.export", run, "--all", "--out", "all.npz", **how)
    assert (exported.code, exported.stderr) == (0, "")
    with np.load(tmp_path / "all.npz") as arrays:
        stored = np.frombuffer(results(done(case))["policy/parameters"], np.float32).reshape(4, -1)
        for agent, row in enumerate(stored):
            names = [name for name in arrays.files if name.startswith(f"{agent}/")]
            assert np.array_equal(np.concatenate([arrays[name].ravel() for name in names]), row)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(tmp_path):
    words = (*CASES["twins"], "learning.device=cuda:auto", "--output", "out")
    result = train(*words, ranks=2, cwd=tmp_path)
    assert result.code == 2
    (said,) = result.ours()
    assert "learning.device is cuda:auto, and PyTorch finds no CUDA device: set it to cpu" in said
    assert not (tmp_path / "out" / "run.h5").exists()
