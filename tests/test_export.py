"""Exported policies, loaded without this package, give the outputs of the originals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import SMALL, launch

from dials_mpi.algorithm import joint
from dials_mpi.config import load
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains import create
from dials_mpi.export.__main__ import main
from dials_mpi.learning import torchscript
from dials_mpi.storage.hdf5 import rewriting

FNN = (*SMALL, "policy.architecture=fnn")

READER = """
import json, sys
sys.modules["dials_mpi"] = None  # to import it fails
import numpy, torch

extra = {"description.json": ""}
policy = torch.jit.load(sys.argv[1], _extra_files=extra)
description = json.loads(extra["description.json"])
observations = torch.from_numpy(numpy.load(sys.argv[2]))
(_, memory) = next(i["shape"] for i in description["inputs"] if i["name"] == "state")
state, steps = torch.zeros(observations.shape[1], memory), []
for observation in observations:
    logits, value, state = policy(observation, state)
    steps.append([part.numpy() for part in (logits, value, state)])
logits, values, states = (numpy.stack(part) for part in zip(*steps))
numpy.savez(sys.argv[3], logits=logits, values=values, states=states)
print(json.dumps(description))
"""
"""A program that has only PyTorch and the file."""


@pytest.fixture
def export(in_process):
    """The command in this process: exit code, stdout, stderr."""
    return in_process(main)


@pytest.fixture(params=[SMALL, FNN], ids=["gru", "fnn"])
def settings(request):
    return request.param


def originals(settings, run, file="run.h5"):
    """The run's policies."""
    config = load(None, settings)
    domain = create(config.domain, config.domain_section)
    with h5py.File(run / file) as opened:
        return config, domain, joint.policies(config, domain, opened["policy/parameters"][()])


def episodes(config, domain, policies, count=3):
    """Observations of whole episodes of the joint policy: float32 [T, E, O] by agent."""
    simulators, actions = (
        streams(config.seed, p, count) for p in (Purpose.EVALUATION, Purpose.EVALUATION_ACTIONS)
    )
    simulator, policy = domain.global_simulator(simulators), joint.TrainedPolicies(policies, actions)
    observations, seen = simulator.reset().observations, []
    for _ in range(domain.horizon):
        seen.append([np.array(own, np.float32) for own in observations])
        observations = simulator.step(policy(observations)).state.observations
    return [np.stack(own) for own in zip(*seen, strict=True)]


def decisions(policy, observations):
    """The original's logits [T, E, A], values [T, E] and states [T, E, H]."""
    state, steps = policy.network.initial_state(observations.shape[1]), []
    for observation in observations:
        values = policy.value(observation, state)
        outputs, state = policy.network.advance(observation, state)
        steps.append((outputs[:, :-1], values, state))
    return [np.stack(part) for part in zip(*steps, strict=True)]


def read_elsewhere(file, observations, folder):
    """Outputs of the exported policy in a process that cannot import this package."""
    np.save(folder / "seen.npy", observations)
    (folder / "reader.py").write_text(READER)
    program = [sys.executable, "-W", "ignore", "-I", "reader.py", str(file), "seen.npy", "outputs.npz"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), np.load(folder / "outputs.npz")


def test_an_exported_policy_gives_the_outputs_of_the_original(export, trained, settings, tmp_path):
    """Along whole episodes, in a process without this package, logits, values and states."""
    run, file = trained(*settings), tmp_path / "two.pt"
    code, stdout, stderr = export(run, "--region", 2, "--out", file)
    assert (code, stderr) == (0, "") and "agent 2 after 256 steps" in stdout
    config, domain, policies = originals(settings, run)
    observations = episodes(config, domain, policies)[2]
    assert observations.any() and len(observations) == 20
    logits, values, states = decisions(policies[2], observations)
    description, elsewhere = read_elsewhere(file, observations, tmp_path)
    for name, expected in (("logits", logits), ("values", values), ("states", states)):
        assert elsewhere[name].shape == expected.shape
        np.testing.assert_allclose(elsewhere[name], expected, rtol=1e-5, atol=2e-6)
    others = decisions(policies[1], observations)[0]
    assert np.abs(elsewhere["logits"] - others).max() > 1e-3

    assert description["domain"] == "warehouse" and description["agent"] == 2
    assert description["env_steps"] == 256 and description["architecture"] == config.policy.architecture
    assert description["actions"] == logits.shape[2]
    shapes = {part["name"]: part["shape"] for part in description["inputs"] + description["outputs"]}
    assert shapes == {
        "observation": ["B", observations.shape[2]],
        "state": ["B", states.shape[2]],
        "logits": ["B", logits.shape[2]],
        "value": ["B"],
        "next_state": ["B", states.shape[2]],
    }
    assert {part["dtype"] for part in description["inputs"] + description["outputs"]} == {"float32"}


def test_its_file_is_small_and_whole(export, trained, tmp_path):
    """It holds only the parameters and the program, and replaces an older file."""
    file = tmp_path / "x.pt"
    file.write_text("what was there")
    export(trained(*SMALL), "--region", 0, "--out", file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    assert 4 * originals(SMALL, trained(*SMALL))[2][0].network.vector.size < file.stat().st_size < 60_000


@pytest.mark.quick
def test_all_policies_as_arrays(export, trained, settings, tmp_path):
    """Against the run file, cut into layers as docs/run-file.md says."""
    run, file = trained(*settings), tmp_path / "all.npz"
    code, stdout, stderr = export(run, "--all", "--out", file)
    assert (code, stderr) == (0, "") and stdout.startswith("4 policies")
    with np.load(file) as arrays, h5py.File(run / "run.h5") as stored:
        parameters = stored["policy/parameters"][()]
        table = json.loads(stored["policy/tables"].asstr()[stored["policy/table_of"][0]])
        names = {"description"} | {f"{i}/{name}" for i in range(4) for name, _ in table}
        assert set(arrays) == names
        for i in range(4):
            layers = [arrays[f"{i}/{name}"] for name, _ in table]
            assert [list(layer.shape) for layer in layers] == [shape for _, shape in table]
            assert {layer.dtype for layer in layers} == {np.dtype(np.float32)}
            np.testing.assert_array_equal(np.concatenate([layer.ravel() for layer in layers]), parameters[i])
        description = json.loads(str(arrays["description"]))
    assert len(description["policies"]) == 4
    assert description["policies"][0]["inputs"][0]["shape"] == ["B", 37]
    assert description["horizon"] == 20


def test_policies_of_a_checkpoint(export, trained, tmp_path):
    """Those at the end of the first segment, which differ from those at the end of the run."""
    run = trained(*SMALL)
    code, stdout, _ = export(run, "--all", "--out", tmp_path / "a.npz", "--checkpoint", 128)
    assert code == 0 and "after 128 steps" in stdout
    code, stdout, _ = export(run, "--region", 1, "--out", tmp_path / "b.pt", "--checkpoint", 128)
    assert code == 0 and "after 128 steps" in stdout
    config, domain, policies = originals(SMALL, run, "checkpoint-128.h5")
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["1/head.bias"], policies[1].network.parameters["head.bias"])
        assert not np.array_equal(
            arrays["1/head.bias"], originals(SMALL, run)[2][1].network.parameters["head.bias"]
        )
    observations = episodes(config, domain, policies)[1]
    description, elsewhere = read_elsewhere(tmp_path / "b.pt", observations, tmp_path)
    assert description["env_steps"] == 128
    np.testing.assert_allclose(
        elsewhere["logits"], decisions(policies[1], observations)[0], rtol=1e-5, atol=2e-6
    )


def test_an_agent_of_a_region_of_several_is_named_by_its_own_number(export, trained, tmp_path):
    run = trained(*SMALL, "warehouse.grid=[2,4]", "warehouse.block=[2,2]")
    file = tmp_path / "seven.pt"
    code, _, stderr = export(run, "--region", 1, "--out", file)
    assert code == 2 and "region 1 holds the agents 2, 3, 6, 7: choose one with --agent" in stderr
    assert export(run, "--region", 2, "--out", file)[2].endswith("there are 0 to 1\n")
    code, stdout, _ = export(run, "--agent", 7, "--out", file)
    assert code == 0 and "agent 7" in stdout
    assert export(run, "--agent", 8, "--out", file)[2].endswith("--agent is 8: there are 0 to 7\n")


# Refused input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--region", "4", "--out", "x.pt"], ["--region is 4", "0 to 3"]),
        (["--region", "-1", "--out", "x.pt"], ["--region is -1"]),
        (["--region", "many", "--out", "x.pt"], ["--region"]),
        (["--region", "1"], ["--out"]),
        (["--out", "x.pt"], ["--region", "--all"]),
        (["--region", "1", "--all", "--out", "x.pt"], ["--all"]),
        (["--region", "1", "--out", "x.npz"], ["x.npz", ".pt"]),
        (["--all", "--out", "x.pt"], ["x.pt", ".npz"]),
        (["--all", "--out", ""], ["--out"]),
        (["--all", "--out", "nowhere/x.npz"], ["nowhere", "--out"]),
        (["--region", "0", "--out", "nowhere/x.pt"], ["nowhere", "--out"]),
        (["--all", "--out", "x.npz", "--checkpoint", "7"], ["7", "best, newest"]),
    ],
)
def test_bad_arguments(export, trained, tmp_path, monkeypatch, arguments, words):
    run = trained(*SMALL)
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = export(run, *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("dials_mpi: ") and stderr.count("\n") == 1
    assert [word for word in words if word not in stderr] == []
    assert list(tmp_path.iterdir()) == []


def test_runs_without_policies(export, trained, tmp_path):
    copy = shutil.copytree(trained(*SMALL), tmp_path / "copy")
    with rewriting(copy / "run.h5") as file:
        del file["policy"]
    for run, words in ((copy, "policy/parameters"), (tmp_path, "run.h5")):
        code, _, stderr = export(run, "--all", "--out", tmp_path / "x.npz")
        assert code == 2 and words in stderr and stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_disk_that_is_full(trained, tmp_path):
    """An OSError, though torch raises none."""
    _, _, policies = originals(SMALL, trained(*SMALL))
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        torchscript.write(policies[0], {}, full)


def test_without_torch(trained, tmp_path):
    """One sentence for the export of one policy; the arrays do not need torch."""
    run = str(trained(*SMALL))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from dials_mpi.export.__main__ import main; main(sys.argv[1:])"
    )
    refused = launch("-c", code, run, "--region", "0", "--out", "x.pt", cwd=tmp_path)
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1 and "pip install 'dials_mpi[export]'" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert launch("-c", code, run, "--all", "--out", "x.npz", cwd=tmp_path).code == 0


def test_as_a_user_starts_it(trained, tmp_path):
    result = launch("-m", "dials_mpi.export", "--help")
    assert (result.code, result.stderr) == (0, "") and "examples:" in result.stdout
    run = str(trained(*SMALL))
    result = launch("-m", "dials_mpi.export", run, "--region", "0", "--out", "x.pt", cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "") and (tmp_path / "x.pt").stat().st_size
