"""The benchmark: its count of operations against torch's own counter, and the program as it is started."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import SMALL, launch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dials_mpi.bench import flop_per_agent_step, forward_flop, training_flop
from dials_mpi.config import load
from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.throughput import reset_often, throughput
from dials_mpi.provenance import memory

STEPS, BATCH = 4, 3


def counted(model: nn.ModuleDict, inputs: int, first: int) -> tuple[int, int]:
    """Operations of a forward pass, and of forward and backward, over STEPS steps and BATCH sequences."""
    x = torch.zeros(STEPS, BATCH, inputs)
    with FlopCounterMode(display=False) as counter:
        h, outputs = torch.zeros(BATCH, first), []
        for step in x:
            h = model["first"](step, h) if "gru" in model else torch.relu(model["first"](step))
            outputs.append(model["head"](torch.relu(model["second"](h))))
        forward = counter.get_total_flops()
        torch.stack(outputs).sum().backward()
        return forward, counter.get_total_flops()


@pytest.mark.parametrize(("inputs", "hidden", "outputs"), [(37, (256, 128), 5), (7, (12, 10), 3)])
def test_operations_of_an_fnn_are_those_that_torch_counts(inputs, hidden, outputs):
    first, second = hidden
    layers = nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, outputs)
    model = nn.ModuleDict(dict(zip(("first", "second", "head"), layers, strict=True)))
    forward, both = counted(model, inputs, first)
    counts = forward_flop("fnn", inputs, hidden, outputs)
    assert forward == STEPS * BATCH * sum(counts)
    assert both == STEPS * BATCH * training_flop(*counts)


@pytest.mark.parametrize(("inputs", "hidden", "outputs"), [(37, (64, 64), 16), (7, (12, 10), 3)])
def test_operations_of_a_gru_are_those_that_torch_counts(inputs, hidden, outputs):
    first, second = hidden
    layers = nn.GRUCell(inputs, first), nn.Linear(first, second), nn.Linear(second, outputs)
    model = nn.ModuleDict(dict(zip(("first", "second", "head"), layers, strict=True)))
    model["gru"] = nn.Identity()
    forward, both = counted(model, inputs, first)
    counts = forward_flop("gru", inputs, hidden, outputs)
    assert forward == STEPS * BATCH * sum(counts)
    # Nothing flows back into the state before the first step.
    assert both == STEPS * BATCH * training_flop(*counts) - BATCH * 2 * 3 * first * first


def test_the_papers_warehouse_costs_five_million_operations_per_agent_step():
    # By hand: policy 37 -> GRU 256 -> 128 -> 5, predictor 37 -> GRU 64 -> 64 -> 16.
    policy_in, policy_rest = 2 * 37 * 768, 2 * (256 * 768 + 256 * 128 + 128 * 5)
    predictor = 2 * (37 * 192 + 64 * 192 + 64 * 64 + 64 * 16)
    by_hand = policy_in + policy_rest + predictor + 3 * (2 * policy_in + 3 * policy_rest)
    assert flop_per_agent_step(load(None)) == by_hand


@pytest.mark.parametrize("ranks", [None, 3])
def test_the_program_writes_what_it_measured(tmp_path, ranks):
    file = tmp_path / "bench.json"
    done = launch("-m", "dials_mpi.bench", *SMALL, "--updates", "2", "--json", str(file), ranks=ranks)
    assert (done.code, done.stderr) == (0, "")
    figures = json.loads(file.read_text())
    assert figures["ranks"] == (ranks or 1)
    assert figures["agent_steps_per_second"] > 0
    assert 0 < figures["utilisation"] < 1
    for name in figures:
        assert name in done.stdout


@pytest.mark.parametrize("tiles", [1, 5])
def test_local_crossings_are_measured_beside_sumos_own_stepping(tiles):
    rate, bare = throughput(Traffic(TrafficConfig(horizon=30)), tiles, seconds=0.2)
    assert 0 < rate < bare < 1e7


def test_resets_leave_nothing_behind():
    """A leak of one vehicle's parameters, some hundred bytes, per vehicle would be far more than this."""
    domain = Traffic(TrafficConfig())
    reset_often(domain, 10)
    before = memory()[1]
    reset_often(domain, 60)
    assert memory()[1] - before < 1e6


def test_bad_input_is_one_sentence(tmp_path):
    for arguments in (["--updates", "0"], ["ppo.clipp=1"], ["--json", str(tmp_path / "no" / "file"), *SMALL]):
        done = launch("-m", "dials_mpi.bench", *arguments)
        assert done.code == 2
        assert len(done.stderr.splitlines()) == len(done.ours()) == 1
