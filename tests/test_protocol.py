"""A network from outside the package, in plain numpy, trained and used through the protocol of networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL, launch

from dials_mpi import config as c
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Agent, Region
from dials_mpi.export import arrays
from dials_mpi.learning import network, tables, torchscript
from dials_mpi.learning.influence import Predictor, sample
from dials_mpi.learning.network import FusedNetwork, Network
from dials_mpi.learning.policy import Policy, act
from dials_mpi.learning.ppo import PPO

AGENT, CLASSES = Agent(observation_size=5, actions=3), (2, 4, 3)
REGION = Region((0,), 4, CLASSES)
ENVS, SEQUENCE = 4, 4
PLAIN = {"gru": "plain-gru", "fnn": "plain-fnn"}
"""Architectures of ``PlainNetwork`` by those of the built-in networks."""


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class PlainNetwork:
    """A GRU or an FNN whose gradient is computed in double precision, layer by layer."""

    def __init__(
        self, config: tables.NetworkConfig, inputs: int, outputs: int, vector: np.ndarray | None = None
    ) -> None:
        self.table = tables.network_table(config, inputs, outputs)
        self.recurrent = config.architecture == "plain-gru"
        self.state_size = config.hidden[0] if self.recurrent else 0
        length = tables.size(self.table)
        self.vector = np.zeros(length, np.float32) if vector is None else vector[:length]
        self.gradient: np.ndarray | None = None

    def initialise(self, stream: np.random.Generator) -> None:
        self.vector[:] = stream.normal(0, 0.3, len(self.vector))

    def require_gradient(self) -> np.ndarray:
        if self.gradient is None:
            self.gradient = np.zeros_like(self.vector)
        return self.gradient

    def initial_state(self, batch: int) -> np.ndarray:
        return np.zeros((batch, self.state_size), np.float32)

    def advance(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs, after, _ = self.step(x.astype(float), state.astype(float))
        return outputs.astype(np.float32), after.astype(np.float32)

    def forward(self, x: np.ndarray, state: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        self.keep = np.ones(x.shape[:2]) if keep is None else keep
        self.steps, outputs, after = [], [], state.astype(float)
        for s in range(len(x)):
            output, after, saved = self.step(x[s].astype(float), after * self.keep[s][:, None])
            outputs.append(output)
            self.steps.append(saved)
        return np.stack(outputs).astype(np.float32)

    def predict(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        return self.forward(x, state)

    def release(self) -> None:
        self.steps = []

    def step(self, x, state):
        w = self.weights()
        if self.recurrent:
            left = np.split(x @ w["gru.weight_ih"].T + w["gru.bias_ih"], 3, axis=1)
            right = np.split(state @ w["gru.weight_hh"].T + w["gru.bias_hh"], 3, axis=1)
            r, z = sigmoid(left[0] + right[0]), sigmoid(left[1] + right[1])
            n = np.tanh(left[2] + r * right[2])
            features = after = (1 - z) * n + z * state
            cell = r, z, n, right[2]
        else:
            features, after, cell = np.maximum(x @ w["first.weight"].T + w["first.bias"], 0), state, ()
        second = np.maximum(features @ w["second.weight"].T + w["second.bias"], 0)
        return second @ w["head.weight"].T + w["head.bias"], after, (x, state, cell, features, second)

    def backward(self, grad_outputs: np.ndarray) -> None:
        w, d = self.weights(), {name: np.zeros(shape) for name, shape in self.table}

        def linear(layer, suffix, d_out, x):
            d[f"{layer}.weight{suffix}"] += d_out.T @ x
            d[f"{layer}.bias{suffix}"] += d_out.sum(0)
            return d_out @ w[f"{layer}.weight{suffix}"]

        d_state = 0.0
        for s, (x, state, cell, features, second) in reversed(list(enumerate(self.steps))):
            d_second = linear("head", "", grad_outputs[s].astype(float), second) * (second > 0)
            d_features = linear("second", "", d_second, features)
            if not self.recurrent:
                linear("first", "", d_features * (features > 0), x)
                continue
            (r, z, n, right), d_after = cell, d_features + d_state
            d_n = d_after * (1 - z) * (1 - n * n)
            d_r, d_z = d_n * right * r * (1 - r), d_after * (state - n) * z * (1 - z)
            linear("gru", "_ih", np.hstack([d_r, d_z, d_n]), x)
            d_state = linear("gru", "_hh", np.hstack([d_r, d_z, d_n * r]), state) + d_after * z
            d_state = d_state * self.keep[s][:, None]
        self.require_gradient()[:] = np.concatenate([part.ravel() for part in d.values()])

    def weights(self):
        return tables.layers(self.table, self.vector.astype(float))


@pytest.fixture(autouse=True)
def plain_networks(monkeypatch) -> None:
    """What a package from outside would add: two entries for each architecture."""
    for ours, theirs in PLAIN.items():
        monkeypatch.setitem(tables.TABLES, theirs, tables.TABLES[ours])
        monkeypatch.setitem(network.NETWORKS, theirs, PlainNetwork)


def pairs(make, seed=0) -> Iterator:
    """The built-in and the plain one, with equal parameters."""
    for ours, theirs in PLAIN.items():
        made = make(ours), make(theirs)
        vectors = [getattr(one, "policy", one).network.vector for one in made]
        vectors[0][:] = vectors[1][:] = np.random.default_rng(seed).normal(0, 0.4, len(vectors[0]))
        yield made


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def test_the_plain_network_is_no_fused_one_and_the_built_in_is():
    for ours, theirs in pairs(lambda name: Policy(c.Policy(name, (6, 5)), AGENT)):
        made: list[Network] = [ours.network, theirs.network]
        assert [isinstance(one, FusedNetwork) for one in made] == [True, False]


def test_both_networks_draw_the_same_actions():
    for policies in pairs(lambda name: Policy(c.Policy(name, (6, 5)), AGENT)):
        rng = np.random.default_rng(1)
        states = [policy.network.initial_state(300) for policy in policies]
        for _ in range(5):
            observations = rng.integers(2, size=(300, 5)).astype(np.uint8)
            uniforms = rng.random(300, dtype=np.float32)
            both = list(zip(policies, states, strict=True))
            values = [policy.value(observations, state) for policy, state in both]
            made = [policy.act(observations, state, uniforms) for policy, state in both]
            assert np.array_equal(made[0].actions, made[1].actions) and len(set(made[0].actions)) == 3
            close(made[0].log_probabilities, made[1].log_probabilities)
            close(*values)
            close(made[1].values, values[1])
            close(made[0].state, made[1].state)
            assert made[1].state.shape == states[1].shape and made[1].state.dtype == np.float32
            states = [decision.state for decision in made]
            for state in states:
                state[::7] = 0


def test_both_networks_draw_the_same_sources():
    for predictors in pairs(lambda name: Predictor(c.Influence(name, (6, 5)), REGION)):
        rng = np.random.default_rng(1)
        states = [predictor.network.initial_state(300) for predictor in predictors]
        for _ in range(5):
            inputs = rng.integers(2, size=(300, 4)).astype(np.uint8)
            uniforms = rng.random((300, 3), dtype=np.float32)
            known = [p.probabilities(inputs, state)[0] for p, state in zip(predictors, states, strict=True)]
            close(*known)
            drawn = [p.sample(inputs, state, uniforms) for p, state in zip(predictors, states, strict=True)]
            assert np.array_equal(drawn[0][0], drawn[1][0])
            assert [len(set(column)) for column in drawn[1][0].T] == list(CLASSES)
            close(drawn[0][1], drawn[1][1])
            states = [state for _, state in drawn]


@pytest.mark.parametrize("architecture", PLAIN)
def test_the_fused_calls_of_the_built_in_network_give_the_bits_of_the_separate_ones(architecture):
    rng = np.random.default_rng(1)
    bits, uniforms = rng.integers(2, size=(50, 5)).astype(np.uint8), rng.random((50, 3), dtype=np.float32)
    policy = Policy(c.Policy(architecture, (16, 8)), AGENT)
    predictor = Predictor(c.Influence(architecture, (16, 8)), REGION)
    for one in (policy.network, predictor.network):
        one.initialise(rng)
    state = rng.normal(size=(50, policy.network.state_size)).astype(np.float32)
    fused = policy.act(bits, state, uniforms[:, 0]), predictor.sample(bits[:, 1:], state, uniforms)
    separate = (
        act(policy.network, bits, state, uniforms[:, 0]),
        sample(predictor.network, predictor.heads, bits[:, 1:], state, uniforms),
    )
    for one, other in zip(fused, separate, strict=True):
        assert all(np.array_equal(*parts) for parts in zip(one, other, strict=True))


def test_ppo_trains_both_networks_alike():
    config = c.PPO(
        rollout_steps=4,
        memory_size=64,
        minibatch_size=16,
        learning_rate=1e-2,
        max_gradient_norm=1.0,
        epochs=2,
    )
    for agents in pairs(lambda name: PPO(c.Policy(name, (6, 5), SEQUENCE), config, AGENT, ENVS)):
        start = agents[0].policy.network.vector.copy()
        rng = np.random.default_rng(1)
        for agent in agents:
            agent.begin_segment(np.random.default_rng(2), np.random.default_rng(3))
        for update in range(3):
            for _ in range(agents[0].length):
                observations, final = rng.normal(size=(2, ENVS, 5)).astype(np.float32)
                rewards, done = rng.normal(size=ENVS).astype(np.float32), rng.random(ENVS) < 0.2
                actions = [agent.act(observations) for agent in agents]
                assert np.array_equal(*actions)
                for agent in agents:
                    agent.observe(rewards, done, final)
            for agent in agents:
                agent.update(observations, update / 3)
        close(agents[0].mean_metrics(), agents[1].mean_metrics())
        vectors = [agent.policy.network.vector for agent in agents]
        assert np.abs(vectors[0] - start).max() > 0.05
        np.testing.assert_allclose(*vectors, atol=2e-3)


@pytest.mark.parametrize("architecture", PLAIN)
def test_a_fit_trains_both_networks_alike(architecture):
    rng = np.random.default_rng(1)
    inputs = rng.integers(2, size=(20, 6, 4)).astype(np.uint8)
    sources = np.stack([inputs[..., 0], 2 * inputs[..., 1] + inputs[..., 2], inputs[..., 3]], axis=-1)
    config = c.Influence(architecture, (6, 5), batch_size=6, epochs=25, learning_rate=1e-2)
    ours, theirs = (
        Predictor(replace(config, architecture=name), REGION, trainable=True)
        for name in (architecture, PLAIN[architecture])
    )
    start = np.random.default_rng(0).normal(0, 0.4, len(ours.network.vector))
    ours.network.vector[:] = theirs.network.vector[:] = start
    fits = [one.fit(inputs, sources, np.random.default_rng(5)) for one in (ours, theirs)]
    close(*fits)
    assert fits[0].after < 0.8 * fits[0].before
    assert np.abs(ours.network.vector - start).max() > 0.1
    np.testing.assert_allclose(ours.network.vector, theirs.network.vector, atol=5e-3)


def test_the_plain_network_is_exported_as_arrays(tmp_path):
    _, policy = next(pairs(lambda name: Policy(c.Policy(name, (6, 5)), AGENT)))
    arrays.write(
        [tables.layers(policy.network.table, policy.network.vector)], {"seed": 3}, tmp_path / "all.npz"
    )
    with np.load(tmp_path / "all.npz") as stored:
        assert json.loads(str(stored["description"])) == {"seed": 3}
        flat = np.concatenate([stored[f"0/{name}"].ravel() for name, _ in policy.network.table])
    assert np.array_equal(flat, policy.network.vector)


def test_an_architecture_without_a_torch_module_is_refused(tmp_path):
    _, policy = next(pairs(lambda name: Policy(c.Policy(name, (6, 5)), AGENT)))
    with pytest.raises(BadInput, match=r"plain-gru .* --all"):
        torchscript.write(policy, {}, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


# --- tables ---


def test_tables_are_those_of_the_networks_that_are_built():
    class Domain:
        agents = (AGENT, Agent(3, 2), AGENT)
        regions = (REGION, Region((1, 2), 7, (2, 2)))

    config = c.Config(policy=c.Policy("gru", (6, 5)), influence=c.Influence("fnn", (4, 3)))
    found = tables.tables(config, Domain())
    policies = [Policy(config.policy, agent).network for agent in Domain.agents]
    predictors = [Predictor(config.influence, region).network for region in Domain.regions]
    assert found == {"policy": [p.table for p in policies], "predictor": [p.table for p in predictors]}
    lengths = {"policy": len(policies[0].vector), "predictor": max(len(p.vector) for p in predictors)}
    assert tables.widths(found) == lengths
    assert tables.policy_table(config.policy, AGENT) == policies[0].table
    assert tables.predictor_table(config.influence, REGION) == predictors[0].table
    assert set(tables.tables(c.Config(mode="global"), Domain())) == {"policy"}


def test_an_architecture_that_nobody_offers_is_no_feed_forward_network():
    with pytest.raises(BadInput, match="other"):
        tables.network_table(c.Influence("other", (4, 3)), 3, 2)
    assert set(tables.TABLES) == set(network.NETWORKS) >= {"gru", "fnn"}


def test_checking_a_checkpoint_loads_no_compiler(trained, tmp_path):
    """Its shapes follow from the configuration and the domain."""
    script = """
import sys
from pathlib import Path
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import create
from dials_mpi.results.checkpoints import require_same_run
from dials_mpi.run import state
from dials_mpi.storage.checkpoint import Checkpoint

directory, *words = sys.argv[1:]
config = load(None, words)
domain = create(config.domain, config.domain_section)
checkpoint = Checkpoint(Path(directory) / "checkpoint-128.h5")
require_same_run(checkpoint, config)
entries = state.entries(config, domain)
state.verify(checkpoint, entries, domain)
wider = [entry._replace(width=entry.width + 1) for entry in entries]
try:
    state.verify(checkpoint, wider, domain)
except BadInput as refusal:
    print("refused")
print({"numba", "llvmlite", "dials_mpi.learning.network"} & set(sys.modules))
"""
    result = launch("-c", script, str(trained(*SMALL)), *SMALL)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.split() == ["refused", "set()"]
