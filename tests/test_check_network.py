"""``check --network``: a network that keeps the contract, and ones that break it in one place each."""

import pytest

from dials_mpi.check import network
from dials_mpi.check.__main__ import main

WRONG = {
    "OneOutput": "shapes, types, no noise: policy.architecture is 'torch_modules:OneOutput', but its",
    "Remembers": "the same outputs for the same inputs: two equal calls differ by 1",
    "Mixes": "a row of a batch does not depend on the others: other rows change its outputs by",
    "KeepsState": "whole sequences agree with single steps: step 1 of a sequence differs by",
    "Unreached": "gradients reach every parameter: none reaches unused",
    "Unseeded": "the same parameters from the same seed: two modules built with one seed differ",
    "OtherBuffer": "saving and loading repeats the outputs: a module with the stored parameters differs by",
}


@pytest.fixture
def check(in_process, monkeypatch):
    """check(words): the command, without long measurements."""
    monkeypatch.setattr(network, "SECONDS", 0.01)
    return in_process(main)


@pytest.mark.parametrize(
    "name", ["gru", "torch:fnn", "torch:gru", "torch_modules:Pair", "torch_modules:Scaled"]
)
@pytest.mark.parametrize("role", ["policy", "influence"])
def test_a_good_network_passes(check, name, role):
    said = check("--network", name, "--role", role, f"{role}.hidden=[8,8]")
    assert (said.code, said.stderr) == (0, "")
    lines = said.stdout.splitlines()
    assert len(lines) == 11 + 3 * (role == "policy") and not any(line.startswith("wrong") for line in lines)
    sizes = {"policy": "37 inputs, 5 outputs", "influence": "37 inputs, 16 outputs"}
    assert sizes[role] in lines[0] and "times as long" in lines[-1]


def test_formats_that_a_policy_cannot_be_exported_in_are_notes(check):
    """Its programs are for one number of rows."""
    said = check("--network", "torch_modules:FixedBatch")
    script, exported, model = (line for line in said.stdout.splitlines() if "export as" in line)
    assert said.code == 0
    for line, ending in ((script, ".pt"), (exported, ".pt2")):
        assert line.startswith(f"      export as {ending}: no: this policy cannot be exported as {ending} (")
    assert "export as .onnx" in model


@pytest.mark.parametrize("name", WRONG)
def test_what_breaks_the_contract_is_named(check, name):
    said = check("--network", f"torch_modules:{name}")
    assert (said.code, said.stderr) == (1, "")
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("wrong"))
    assert line.removeprefix("wrong ").startswith(WRONG[name])
    assert said.stdout.splitlines()[-1] == line


def test_each_kind_of_agent_is_checked(check, tmp_path):
    said = check("--network", "torch_modules:Plain", "unequal_domain:Unequal", "dataset_size=100")
    assert said.code == 0, said.stdout + said.stderr
    assert len({line for line in said.stdout.splitlines() if "shapes, types" in line}) > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network", "no_such:Net"], "No module named 'no_such'"),
        (["--network", "torch_modules:Missing"], "has no class Missing"),
        (["--network", "torch_modules:NoModule"], "not derived from torch.nn.Module"),
        (["--network", "perceptron"], "choose one of gru, fnn"),
        (["--network", "torch:fnn", "--survey"], "--network is given beside"),
    ],
)
def test_what_cannot_be_checked_is_refused(check, words, said):
    found = check(*words)
    assert (found.code, found.stdout) == (2, "")
    assert said in found.stderr and found.stderr.count("\n") == 1
