"""Networks in PyTorch: twins against the built-in ones, modules of a user's own, and what is refused."""

import numpy as np
import pytest
import torch
import torch_modules
from conftest import SMALL
from torch_twin import assert_close

from dials_mpi import config as c
from dials_mpi.algorithm.networks import require_networks
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import create as create_domain
from dials_mpi.learning import devices, tables
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.network import Network, create
from dials_mpi.learning.torch_modules import device
from dials_mpi.settings.mappings import PlainMapping

SIZES = [("gru", 5, (16, 8), 4), ("gru", 1, (3, 2), 1), ("fnn", 5, (16, 8), 4), ("fnn", 2, (1, 9), 3)]
GOOD = ("Plain", "Pair", "Whole", "Frozen", "Greedy")


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def resets(steps, batch, share=0.3, seed=1):
    return (np.random.default_rng(seed).random((steps, batch)) >= share).astype(np.float32)


def made(name, inputs=7, outputs=3, seed=0, vector=None, **arguments) -> Network:
    config = c.Policy(f"torch_modules:{name}", arguments=PlainMapping(arguments))
    network = create(config, inputs, outputs, vector)
    network.initialise(np.random.default_rng(seed))
    network.require_gradient()
    return network


def pair(architecture, inputs, hidden, outputs):
    """The built-in network and its twin, both initialised from the same stream."""
    found = [
        create(c.Policy(name, hidden), inputs, outputs) for name in (architecture, f"torch:{architecture}")
    ]
    for network in found:
        network.initialise(np.random.default_rng(3))
        network.require_gradient()
    return found


# Twins ---------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_twins_have_the_table_and_the_first_parameters_of_the_built_in_networks(
    architecture, inputs, hidden, outputs
):
    ours, twin = pair(architecture, inputs, hidden, outputs)
    assert (twin.table, twin.state_size) == (ours.table, ours.state_size)
    assert np.array_equal(twin.vector, ours.vector) and ours.vector.any()


@pytest.mark.quick
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_outputs_gradient_and_a_step_of_twins_agree(architecture, inputs, hidden, outputs, with_resets):
    networks = pair(architecture, inputs, hidden, outputs)
    keep = resets(6, 4) if with_resets and networks[0].state_size else None
    x, state, upstream = (
        some(6, 4, inputs),
        some(4, networks[0].state_size, seed=1),
        some(6, 4, outputs, seed=2),
    )
    optimisers = [Adam(network.vector, network.gradient, 1e-8) for network in networks]
    for _ in range(3):
        found = [network.forward(x, state, keep) for network in networks]
        assert_close(found[1], found[0], 1e-5)
        predicted = [network.predict(x, state) for network in networks]
        assert_close(predicted[1], predicted[0], 1e-5)
        for network, optimiser in zip(networks, optimisers, strict=True):
            network.backward(upstream)
            optimiser.step(1e-2)
        assert_close(networks[1].gradient, networks[0].gradient, 1e-5)
        assert np.allclose(networks[1].vector, networks[0].vector, rtol=0, atol=1e-5)
    outputs, after = zip(*(network.advance(x[0], state) for network in networks), strict=True)
    assert_close(outputs[1], outputs[0], 1e-5)
    assert_close(after[1], after[0], 1e-5)


# Modules of one's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_parameters_are_views_of_a_given_vector_that_may_be_longer(name):
    length = len(made(name).vector)
    vector = np.full(length + 3, 7, np.float32)
    network = made(name, vector=vector)
    assert len(network.vector) == length and (vector[length:] == 7).all() and (vector[:length] != 7).any()
    for (_, parameter), view in zip(
        network.module.named_parameters(), tables.layers(network.table, vector).values(), strict=True
    ):
        assert np.array_equal(parameter.detach().numpy(), view)
        view[...] = 5
        assert (parameter == 5).all()


@pytest.mark.parametrize("name", GOOD)
def test_the_first_parameters_are_those_of_the_constructor_and_depend_on_the_stream_alone(name):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    vectors = [made(name, seed=seed).vector for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(vectors[0], vectors[1]) and not np.array_equal(vectors[0], vectors[2])
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng(0).integers(2**63)))
        module = getattr(torch_modules, name)(7, 3, ())
    theirs = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    assert np.array_equal(theirs.numpy(), vectors[0])


def unrolled(network, x, state, keep):
    """A module's outputs, step by step, by a plain loop."""
    module, found = network.module, []
    state = network.memory.unpack(torch.from_numpy(state.copy()))
    for s in range(len(x)):
        if keep is not None and state is not None:
            parts = state if isinstance(state, tuple) else (state,)
            parts = tuple(
                torch.stack([row * float(k) for row, k in zip(part, keep[s], strict=True)]) for part in parts
            )
            state = parts if isinstance(state, tuple) else parts[0]
        outputs, state = module(torch.from_numpy(x[s].copy()), state)
        found.append(outputs)
    return torch.stack(found)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_sequences_and_gradients_are_those_of_a_plain_loop(name, with_resets):
    network = made(name)
    keep = resets(5, 4) if with_resets and network.state_size else None
    x, state, upstream = some(5, 4, 7), some(4, network.state_size, seed=1), some(5, 4, 3, seed=2)
    expected = unrolled(network, x, state, keep)
    (expected * torch.from_numpy(upstream)).sum().backward()
    kept = x.copy(), state.copy()
    network.gradient[:] = np.nan
    assert_close(network.forward(x, state, keep), expected, 1e-6)
    network.backward(upstream)
    theirs = [
        torch.zeros_like(part) if part.grad is None else part.grad for part in network.module.parameters()
    ]
    assert_close(network.gradient, torch.cat([part.flatten() for part in theirs]), 1e-6)
    assert np.array_equal(x, kept[0]) and np.array_equal(state, kept[1])
    with pytest.raises(RuntimeError, match="forward"):
        network.backward(upstream)


@pytest.mark.parametrize("name", GOOD)
def test_a_step_leaves_its_arguments_alone_and_agrees_with_sequences(name):
    network = made(name)
    x, state = some(1, 4, 7), some(4, network.state_size, seed=1)
    kept = x.copy(), state.copy()
    outputs, after = network.advance(x[0], state)
    assert np.array_equal(x, kept[0]) and np.array_equal(state, kept[1])
    assert_close(outputs, network.predict(x, state)[0], 1e-6)
    assert outputs.dtype == after.dtype == np.float32 and after.shape == state.shape
    after[:] = 7  # callers set rows to zero
    assert np.array_equal(state, kept[1])


def test_arguments_reach_the_constructor_and_an_exponent_is_a_number():
    config = load(None, ["policy.architecture=torch_modules:Plain", "policy.arguments={width: 5}"])
    assert create(config.policy, 7, 3).table[0] == ("first.weight", (5, 7))
    words = ["policy.architecture=a:B", "policy.arguments={rate: 1e-4, sizes: [1, 2], deep: {bias: true}}"]
    config = load(None, words)
    assert config.policy.arguments == {"rate": 1e-4, "sizes": [1, 2], "deep": {"bias": True}}
    assert c.from_yaml(config.to_yaml()) == config
    assert config.digest() != load(None, words[:1]).digest()


def test_a_run_without_arguments_keeps_its_digest():
    """That of a file written before there were arguments."""
    config = load(None, [])
    assert "policy.arguments" in config.decisive()
    changed = load(None, ["policy.architecture=a:B", "policy.arguments={}"])
    assert changed.digest() == load(None, ["policy.architecture=a:B"]).digest()


# Refusals ------------------------------------------------------------------------------------------------

BROKEN = {
    "NoParameters": "it has no parameters",
    "Double": "its parameter first.weight is float64: make it float32",
    "OneOutput": r"its forward returns outputs of shape \(3, 1\): return \(3, 4\)",
    "OutputsAlone": r"its forward returns something else than \(outputs, state\)",
    "Running": "its buffer norm.running_var changes in forward",
    "Drops": "its forward draws random numbers",
    "OtherState": r"returns a state of shapes \(3, 2, 6\), \(3, 1\): return \(3, 2, 6\), \(3, 2\)",
    "OneTensor": "its forward returns a state of shapes",
    "Ones": "is not zero",
    "NoBatch": r"return a float32 tensor \[batch, ...\]",
    "Detached": "do not depend on its parameters",
    "WrongSequence": r"its sequence returns outputs of shape \(3, 4\): return \(2, 3, 4\)",
    "Raises": "forward fails: ValueError: three lines of text",
    "NoModule": "is not derived from torch.nn.Module",
    "Missing": "has no class Missing",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_module_is_refused_in_one_sentence(name):
    config = c.Influence(f"torch_modules:{name}")
    with pytest.raises(BadInput, match=BROKEN[name]) as refusal:
        tables.network_table(config, 7, 4)
    said = str(refusal.value)
    assert said.startswith("influence.architecture is 'torch_modules:") and "\n" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["policy.architecture=no_such_module:A"], "No module named 'no_such_module'"),
        (["policy.architecture=torch_modules:Plain", "policy.arguments={heads: 2}"], "unexpected keyword"),
        (
            ["policy.architecture=torch_modules:Plain", "policy.arguments={width: wide}"],
            "description, width='wide'",
        ),
        (["policy.architecture=torch:gru", "policy.arguments={hidden: 2}"], "Twin"),
    ],
)
def test_a_module_that_cannot_be_built_is_refused_in_one_sentence(words, said):
    config = load(None, [*SMALL, *words])
    with pytest.raises(BadInput) as refusal:
        tables.tables(config, create_domain(config.domain, config.domain_section))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["policy.architecture=transformer"], "choose one of gru, fnn, torch:gru, torch:fnn"),
        (["policy.arguments={heads: 2}"], "policy.arguments is given, and the network gru takes none"),
        (["policy.arguments=3"], "must be a mapping of plain values"),
        (["policy.arguments={a b: 3}"], "must be a mapping of plain values"),
        (["policy.arguments={a: .nan}"], "must be a mapping of plain values"),
        (["policy.arguments={a:3}"], "with a space after the colon"),
        (["policy.arguments.width=3"], "set it as 'policy.arguments={width: 1}'"),
    ],
)
def test_settings_of_networks_are_checked_without_torch(words, said):
    with pytest.raises(BadInput) as refusal:
        load(None, words)
    assert said in str(refusal.value)


# Devices -------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """A device that does not share the vector's memory: cpu:0 is handled as a GPU would be."""
    monkeypatch.setattr(devices, "_chosen", [devices.Device("cpu:0")])


@pytest.mark.parametrize("name", GOOD)
def test_a_device_with_memory_of_its_own_gives_the_same(name, elsewhere):
    network = made(name)
    assert network.device != torch.device("cpu")
    first = next(network.module.parameters())
    assert first.data_ptr() != network.vector.ctypes.data
    devices.choose(devices.Device())
    shared = made(name)
    assert np.array_equal(network.vector, shared.vector)
    x, state, upstream = some(5, 4, 7), some(4, network.state_size, seed=1), some(5, 4, 3, seed=2)
    optimisers = [Adam(each.vector, each.gradient, 1e-8) for each in (network, shared)]
    for _ in range(3):
        outputs = [each.forward(x, state, None) for each in (network, shared)]
        assert np.array_equal(*outputs)
        for each, optimiser in zip((network, shared), optimisers, strict=True):
            each.backward(upstream)
            optimiser.step(0.01)
        assert np.array_equal(network.gradient, shared.gradient)
        for one, two in zip(network.advance(x[0], state), shared.advance(x[0], state), strict=True):
            assert np.array_equal(one, two)
    assert np.array_equal(network.vector, shared.vector)


def test_cuda_is_refused_in_one_sentence_where_there_is_none():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for name in ("cuda", "cuda:auto"):
        config = load(None, ["policy.architecture=torch:gru", f"learning.device={name}"])
        with pytest.raises(BadInput, match=f"learning.device is {name}, and PyTorch finds no CUDA device"):
            devices.require(config.learning.device)
    devices.require("cpu")
    with pytest.raises(BadInput, match="the built-in networks compute on the CPU"):
        load(None, ["learning.device=cuda"])


def test_ranks_take_the_devices_of_their_machine_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = [device(devices.Device("cuda:auto", place)).index for place in range(6)]
    assert found == [0, 1, 2, 3, 0, 1]
    assert device(devices.Device("cuda", 3)).index == 0


# Sequences -----------------------------------------------------------------------------------------------


def test_only_a_policy_with_a_state_needs_whole_sequences():
    words = [*SMALL, "policy.sequence_length=5", "ppo.minibatch_size=32"]
    for name, needs in (("Plain", False), ("Pair", True)):
        config = load(None, [*words, f"policy.architecture=torch_modules:{name}"])
        domain = create_domain(config.domain, config.domain_section)
        if not needs:
            require_networks(config, domain)
            continue
        with pytest.raises(BadInput, match="sequence_length is 5, which does not divide"):
            require_networks(config, domain)
    with pytest.raises(BadInput, match="sequence_length is 5"):
        load(None, [*words, "policy.architecture=torch:gru"])
    load(None, [*words, "policy.architecture=torch:fnn"])


def test_an_installed_package_registers_a_network_by_name(tmp_path, monkeypatch):
    info = tmp_path / "nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dials_mpi.networks]\nplain = torch_modules:Plain\n")
    words = ["policy.architecture=plain", "policy.arguments={width: 5}"]
    with pytest.raises(BadInput, match="choose one of gru, fnn, torch:gru, torch:fnn, or"):
        load(None, words)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = load(None, words)
    assert create(config.policy, 7, 3).table[0] == ("first.weight", (5, 7))
    with pytest.raises(BadInput, match="torch:fnn, plain, or"):
        load(None, ["policy.architecture=plan"])
