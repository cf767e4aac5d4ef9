"""Exported policies of PyTorch modules, in both formats, loaded without this package and the module."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dials_mpi import config as c
from dials_mpi import learning
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Agent
from dials_mpi.export.describe import describe_policy
from dials_mpi.learning import torchscript
from dials_mpi.learning.policy import Policy

AGENT = Agent(observation_size=7, actions=3)
NAMES = (
    "gru",
    "fnn",
    "torch:gru",
    "torch:fnn",
    "torch_modules:Plain",
    "torch_modules:Pair",
    "torch_modules:Whole",
)
ENDINGS = (".pt", ".pt2")
EXPORTED = ("gru", "torch_modules:Plain", "torch_modules:Pair")
"""Those of which torch.export, which is slow, makes a .pt2, too."""

READER = """
import sys
sys.modules["dials_mpi"] = sys.modules["torch_modules"] = None  # to import them fails
import numpy, torch

x, found = torch.from_numpy(numpy.load("x.npy")), {}
for name, size in (line.split() for line in open("files")):
    extra = {"description.json": ""}
    if name.endswith(".pt2"):
        program = torch.export.load(name, extra_files=extra).module()
    else:
        program = torch.jit.load(name, _extra_files=extra)
    assert "meaning" in str(extra["description.json"])
    state, steps = torch.zeros(x.shape[1], int(size)), []
    for observation in x:
        logits, value, state = program(observation, state)
        steps.append(torch.cat([logits, value[:, None]], 1).detach().numpy())
    found[name] = numpy.stack(steps)
numpy.savez("found.npz", **found)
"""


def policy(name, seed=4):
    made = Policy(c.Policy(name, (9, 8)), AGENT)
    made.network.initialise(np.random.default_rng(seed))
    return made


def outputs(own, x):
    """Of the original [T, B, A + 1], along an episode."""
    state, steps = own.network.initial_state(x.shape[1]), []
    for observation in x:
        found, state = own.network.advance(observation, state)
        steps.append(found)
    return np.stack(steps)


def test_programs_give_the_outputs_of_the_originals(tmp_path):
    """Along an episode of 6 steps of 4 environments; the batch of the export was another."""
    x = np.random.default_rng(0).random((6, 4, 7), np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "reader.py").write_text(READER)
    expected, lines = {}, []
    for k, name in enumerate(NAMES):
        own = policy(name)
        for ending in ENDINGS if name in EXPORTED else ENDINGS[:1]:
            torchscript.write(own, {"meaning": json.dumps(name)}, tmp_path / f"{k}{ending}")
            expected[f"{k}{ending}"] = outputs(own, x)
            lines.append(f"{k}{ending} {own.network.state_size}\n")
    (tmp_path / "files").write_text("".join(lines))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-I", "reader.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
    assert np.abs(expected["4.pt"] - expected["5.pt"]).max() > 1e-3


ONNX_READER = """
import sys
sys.modules["dials_mpi"] = sys.modules["torch"] = None  # to import them fails
import json, numpy, onnxruntime

x, found = numpy.load("x.npy"), {}
for name in open("files").read().split():
    model = onnxruntime.InferenceSession(name)
    description = json.loads(model.get_modelmeta().custom_metadata_map["description.json"])
    sizes = {part["name"]: part["shape"][1] for part in description["inputs"]}
    assert {part.name: part.shape for part in model.get_inputs()} == {k: ["B", n] for k, n in sizes.items()}
    state, steps = numpy.zeros((x.shape[1], sizes["state"]), numpy.float32), []
    for observation in x:
        logits, value, state = model.run(
            ["logits", "value", "next_state"], {"observation": observation, "state": state}
        )
        steps.append(numpy.concatenate([logits, value[:, None]], 1))
    found[name] = numpy.stack(steps)
numpy.savez("found.npz", **found)
"""


def test_models_of_onnx_give_the_outputs_of_the_originals(tmp_path):
    """In onnxruntime, in a process without PyTorch."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    x = np.random.default_rng(0).random((6, 4, 7), np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "reader.py").write_text(ONNX_READER)
    originals = {f"{k}.onnx": policy(name) for k, name in enumerate(NAMES)}
    for name, own in originals.items():
        torchscript.write(own, describe_policy(own), tmp_path / name)
    (tmp_path / "files").write_text(" ".join(originals))
    command = [sys.executable, "-W", "ignore", "-I", "reader.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "found.npz") as found:
        for name, own in originals.items():
            np.testing.assert_allclose(found[name], outputs(own, x), rtol=0, atol=1e-5)
        assert np.abs(found["4.onnx"] - found["5.onnx"]).max() > 1e-3


def test_a_model_of_onnx_that_would_differ_is_refused(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(BadInput, match=r"exported as \.onnx \(.*gives other outputs\)"):
        torchscript.write(policy("torch_modules:Branches"), {}, tmp_path / "one.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "dials_mpi.learning.onnx_model", raising=False)
    monkeypatch.delattr(learning, "onnx_model", raising=False)
    with pytest.raises(
        BadInput, match=r"needs the package onnx .*pip install 'dials_mpi\[onnx\]'"
    ) as refusal:
        torchscript.write(policy("fnn"), {}, tmp_path / "one.onnx")
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_a_policy_that_cannot_be_converted_is_refused_with_what_pytorch_says_at_last(tmp_path, ending):
    with pytest.raises(BadInput, match=r"docs/networks\.md says what a module must leave out") as refusal:
        torchscript.write(policy("torch_modules:FixedBatch"), {}, tmp_path / f"one{ending}")
    assert "--all" in str(refusal.value) and "choose a name that ends with .pt" not in str(refusal.value)
    if ending == ".pt":  # its last line, behind a listing of the code that PyTorch made
        assert "dimension 0" in str(refusal.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_policy_whose_program_would_differ_is_refused(tmp_path, ending):
    """Python decides by the values: a trace and an exported program keep one of the branches."""
    with pytest.raises(BadInput, match=rf"cannot be exported as \{ending} \(") as refusal:
        torchscript.write(policy("torch_modules:Branches"), {}, tmp_path / f"one{ending}")
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())
