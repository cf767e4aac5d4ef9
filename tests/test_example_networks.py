"""The networks in examples/networks keep the contract; planes and lanes are where they belong."""

import sys
from pathlib import Path

import city_common
import numpy as np
import pytest
import torch

from dials_mpi.check import network as check
from dials_mpi.check.findings import Verdict
from dials_mpi.config import load
from dials_mpi.domains import create
from dials_mpi.domains.warehouse.region import SHELF_CELLS, observe

sys.path.append(str(Path(__file__).parents[1] / "examples" / "networks"))
import floor
import lanes

CASES = {
    "floor": (["warehouse.grid=[2,2]"], "floor:Floor", "policy"),
    "floor as a predictor": (["warehouse.grid=[2,2]"], "floor:Floor", "influence"),
    "lanes": (city_common.settings("policy.sequence_length=7"), "lanes:Lanes", "policy"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_example_keeps_the_contract(case, monkeypatch):
    monkeypatch.setattr(check, "SECONDS", 0.01)
    words, name, role = CASES[case]
    config = load(None, [*words, f"{role}.architecture={name}"])
    domain = create(config.domain, config.domain_section)
    found = list(check.check_network(config, domain, role))
    assert len(found) >= 11 and not [finding for finding in found if finding.verdict is Verdict.WRONG]


def test_the_convolution_sees_robot_and_items_in_their_cells():
    config = load(None, ["warehouse.grid=[2,2]"])
    (agent, *_) = create(config.domain, config.domain_section).agents
    module = floor.Floor(agent.observation_size, 5, agent.description)
    ages = np.zeros((12, 13), int)
    ages[np.arange(12), np.arange(1, 13)] = 1
    seen = []
    module.convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.from_numpy(observe(ages, np.arange(12))).float(), module.initial_state(12))
    for k, (row, column) in enumerate(SHELF_CELLS):
        robot, items = seen[0][k]
        assert robot.nonzero().tolist() == [[k // 5, k % 5]]
        assert items.nonzero().tolist() == [[row, column]]


def test_the_parameters_of_the_attention_are_the_same_at_every_junction():
    """And lanes that change places, with their greens, change no output."""
    config = load(None, city_common.settings())
    domain = create(config.domain, config.domain_section)
    agents = domain.agents
    modules = [lanes.Lanes(a.observation_size, a.actions + 1, a.description) for a in agents]
    assert len({tuple((n, p.shape) for n, p in module.named_parameters()) for module in modules}) == 1
    agent, module = agents[0], modules[0]
    order = np.random.default_rng(0).permutation(len(module.lanes[0].rows))
    moved = tuple(
        part._replace(actions=tuple(part.actions[k] for k in order)) if part.actions else part
        for part in agent.description
    )
    other = lanes.Lanes(agent.observation_size, agent.actions + 1, moved)
    other.load_state_dict({**module.state_dict(), "serves": other.serves})
    x = torch.rand(3, agent.observation_size)
    changed = x.clone()
    for part in module.lanes:
        changed[:, part.start : part.stop] = x[:, part.start + torch.from_numpy(order)]
    assert torch.allclose(module(x, None)[0], other(changed, None)[0], atol=1e-5)
