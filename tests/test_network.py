"""GRU, networks and Adam on a flat vector, against torch's own layers, autograd and optimiser."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch_twin import TorchTwin, assert_close, network

from dials_mpi.config import Influence, Policy
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.builtin import NO_KEEP, BuiltinNetwork
from dials_mpi.learning.kernels.adam import AT_ONCE
from dials_mpi.learning.kernels.gemm import CHUNK, of_weights
from dials_mpi.learning.kernels.gru import gru_backward, gru_forward

# steps, batch, inputs, units
SHAPES = [(1, 1, 1, 1), (1, 5, 3, 4), (8, 4, 73, 64), (5, 1, 2, 7), (20, 3, 6, 16)]
SIZES = [("gru", 5, (16, 8), 4), ("gru", 1, (3, 2), 1), ("fnn", 5, (16, 8), 4), ("fnn", 2, (1, 9), 3)]


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def resets(steps, batch, share=0.3, seed=1):
    return (np.random.default_rng(seed).random((steps, batch)) >= share).astype(np.float32)


def cell_and_weights(inputs, units):
    torch.manual_seed(inputs + units)
    cell = nn.GRUCell(inputs, units)
    return cell, arrays(cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)


def arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def run_cell(cell, x, h, keep):
    states, x, h = [], torch.from_numpy(x), torch.from_numpy(h)
    for s in range(len(x)):
        h = cell(x[s], h if keep is None else h * torch.from_numpy(keep)[s].unsqueeze(1))
        states.append(h)
    return torch.stack(states)


class Pass:
    """One forward and backward pass of the built-in GRU, with its workspace."""

    def __init__(self, x, h0, keep, weights):
        (steps, batch), size = x.shape[:2], h0.shape[1]
        widths = 3 * size, 3 * size, size, size
        *self.left, self.states = (np.full((steps, batch, width), np.nan, np.float32) for width in widths)
        self.x, self.keep, self.weights = x, NO_KEEP if keep is None else keep, weights
        gru_forward(x, h0, self.keep, *weights, *self.left, self.states)

    def backward(self, d_states):
        gradients = [np.full_like(weight, np.nan) for weight in self.weights]
        gru_backward(d_states.copy(), self.keep, self.weights[1], *self.left)
        d_gates, d_products, entering = (part.reshape(-1, part.shape[2]) for part in self.left)
        d_w_ih, d_w_hh, d_b_ih, d_b_hh = gradients
        of_weights(d_gates, self.x.reshape(-1, self.x.shape[2]), d_w_ih, d_b_ih)
        of_weights(d_products, entering, d_w_hh, d_b_hh)
        return gradients


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize(("steps", "batch", "inputs", "units"), SHAPES)
def test_gru_agrees_with_torchs_cell_and_autograd(steps, batch, inputs, units, with_resets):
    cell, weights = cell_and_weights(inputs, units)
    x, h0, upstream = (
        some(steps, batch, inputs),
        some(batch, units, seed=1),
        some(steps, batch, units, seed=2),
    )
    keep = resets(steps, batch) if with_resets else None
    states = run_cell(cell, x, h0, keep)
    (states * torch.from_numpy(upstream)).sum().backward()
    ours = Pass(x, h0, keep, weights)
    assert_close(ours.states, states)
    gradients = zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), ours.backward(upstream), strict=True)
    for name, gradient in gradients:
        assert_close(gradient, getattr(cell, name).grad)


def test_every_place_of_a_single_reset_cuts_state_and_gradient_there():
    cell, weights = cell_and_weights(3, 6)
    x, h0, upstream = some(5, 2, 3), some(2, 6, seed=1), some(5, 2, 6, seed=2)
    for place in range(5):
        keep = np.ones((5, 2), np.float32)
        keep[place, 1] = 0
        cell.zero_grad()
        states = run_cell(cell, x, h0, keep)
        (states * torch.from_numpy(upstream)).sum().backward()
        ours = Pass(x, h0, keep, weights)
        assert_close(ours.states, states)
        assert_close(ours.backward(upstream)[1], cell.weight_hh.grad)


def test_gru_agrees_with_torchs_gru_layer_on_each_episode_of_a_cut_sequence():
    layer = nn.GRU(4, 9)
    weights = arrays(layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    x, keep = some(12, 1, 4), np.ones((12, 1), np.float32)
    keep[5], keep[6] = 0, 0
    h0 = some(1, 9, seed=1)
    first, second, third = (torch.from_numpy(part) for part in (x[:5], x[5:6], x[6:]))
    episodes = [layer(first, torch.from_numpy(h0)[None])[0], layer(second)[0], layer(third)[0]]
    assert_close(Pass(x, h0, keep, weights).states, torch.cat(episodes))


# --- networks ---


def sequences(net, steps=6, batch=4, seed=0):
    return (
        some(steps, batch, net.sizes.inputs, seed=seed),
        some(batch, net.state_size, seed=seed + 1),
        resets(steps, batch, seed=seed) if net.state_size else None,
    )


def twin_gradient(net, x, state, keep, upstream):
    twin = TorchTwin(net)
    (twin(x, state, keep) * torch.from_numpy(upstream)).sum().backward()
    return twin.flat_gradient()


@pytest.mark.quick
@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_network_outputs_and_gradient_agree_with_torch_modules(architecture, inputs, hidden, outputs):
    net = network(architecture, inputs, hidden, outputs)
    x, state, keep = sequences(net)
    upstream = some(6, 4, outputs, seed=9)
    assert_close(net.forward(x, state, keep), TorchTwin(net)(x, state, keep))
    net.gradient[:] = np.nan
    net.backward(upstream)
    assert_close(net.gradient, twin_gradient(net, x, state, keep, upstream))


@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_gradient_is_that_of_the_last_pass_only(architecture, inputs, hidden, outputs):
    net = network(architecture, inputs, hidden, outputs)
    for seed, steps in ((0, 6), (10, 3), (20, 6)):
        x, state, keep = sequences(net, steps=steps, seed=seed)
        upstream = some(steps, 4, outputs, seed=seed + 5)
        net.forward(x, state, keep)
        net.backward(upstream)
        assert_close(net.gradient, twin_gradient(net, x, state, keep, upstream))


@pytest.mark.quick
@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_advance_step_by_step_gives_what_forward_gives(architecture, inputs, hidden, outputs):
    net = network(architecture, inputs, hidden, outputs)
    x, state, keep = sequences(net)
    expected = net.forward(x, state, keep)
    for s in range(len(x)):
        if keep is not None:
            state = state * keep[s][:, None]
        output, state = net.advance(x[s], state)
        assert_close(output, expected[s])


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_two_networks_of_equal_sizes_that_share_a_workspace_have_their_own_gradients(architecture):
    nets = [network(architecture, 5, (16, 8), 4, seed=seed) for seed in (0, 1)]
    data = [sequences(net, seed=10 * k) for k, net in enumerate(nets)]
    upstream = some(6, 4, 4, seed=9)
    for net, (x, state, keep) in zip(nets, data, strict=True):
        net.forward(x, state, keep)
        net.backward(upstream)
    for net, (x, state, keep) in zip(nets, data, strict=True):
        assert_close(net.gradient, twin_gradient(net, x, state, keep, upstream))


def test_outputs_stay_valid_after_another_pass():
    net = network("gru", 5, (16, 8), 4)
    x, state, keep = sequences(net)
    outputs = net.forward(x, state, keep)
    copy = outputs.copy()
    net.forward(-x, state, keep)
    assert np.array_equal(outputs, copy)


def test_parameters_are_views_of_a_given_vector_that_may_be_longer():
    config = Influence("gru", (16, 8))
    size = len(BuiltinNetwork(config, 5, 4).vector)
    vector = np.arange(size + 3, dtype=np.float32)
    net = BuiltinNetwork(config, 5, 4, vector)
    assert len(net.vector) == size
    assert np.array_equal(np.concatenate([part.ravel() for part in net.parameters.values()]), vector[:size])
    vector[0] = -7
    assert net.parameters["gru.weight_ih"][0, 0] == -7


@pytest.mark.parametrize(("architecture", "inputs", "hidden", "outputs"), SIZES)
def test_table_names_and_shapes_are_those_of_torchs_modules(architecture, inputs, hidden, outputs):
    net = network(architecture, inputs, hidden, outputs)
    twin = TorchTwin(net)
    named = {name: tuple(parameter.shape) for name, parameter in twin.named_parameters()}
    assert named == dict(net.table)
    assert np.array_equal(twin.flat().float(), net.vector)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_initialisation_has_the_distribution_of_torchs_default(architecture):
    inputs, hidden, outputs = 30, (64, 48), 40
    net = network(architecture, inputs, hidden, outputs)
    torch.manual_seed(0)
    first = nn.GRUCell(inputs, 64) if architecture == "gru" else nn.Linear(inputs, 64)
    layers = {"gru": first, "first": first, "second": nn.Linear(64, 48), "head": nn.Linear(48, outputs)}
    for name, ours in net.parameters.items():
        layer, parameter = name.split(".")
        theirs = getattr(layers[layer], parameter).detach().flatten().numpy()
        ours = ours.flatten()
        fan_in = {"gru": 64, "first": inputs, "second": 64, "head": 48}[layer]
        assert np.abs(ours).max() <= fan_in**-0.5
        assert np.abs(ours).max() >= 0.8 * fan_in**-0.5
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3, name


def test_initialisation_depends_on_the_stream_alone():
    first, again, other = (network("gru", 5, (16, 8), 4, seed=seed).vector for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


# --- Adam ---


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_adam_agrees_with_torch_optim_under_a_changing_learning_rate(epsilon):
    vector = some(301)
    theirs = nn.Parameter(torch.from_numpy(vector.copy()))
    reference = torch.optim.Adam([theirs], eps=epsilon)
    gradient = np.zeros_like(vector)
    ours = Adam(vector, gradient, epsilon)
    for step, rate in enumerate((1e-2, 1e-2, 5e-3, 1e-1, 0.0, 1e-4, 2e-3)):
        gradient[:] = some(301, seed=step) * 10.0 ** (step - 4)
        theirs.grad = torch.from_numpy(gradient.copy())
        reference.param_groups[0]["lr"] = rate
        reference.step()
        ours.step(rate)
        assert_close(vector, theirs, 1e-6)


def test_moments_of_a_weight_that_no_input_reaches_end_at_zero_and_never_get_denormal():
    gradient = np.full(40, 1e-6, np.float32)
    optimiser = Adam(np.ones(40, np.float32), gradient, 1e-8)
    optimiser.step(1e-3)
    gradient[:] = 0
    for _ in range(2000):
        optimiser.step(1e-3)
        for moment in (optimiser.first_moment, optimiser.second_moment):
            assert not ((abs(moment) > 0) & (abs(moment) < np.finfo(np.float32).tiny)).any()
    assert not optimiser.first_moment.any()


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_gradient_and_step_at_once_give_the_bits_of_both_in_turn(architecture):
    """With several groups of rows of the largest weights, and more samples than a sum takes at a time."""
    config = Policy(architecture=architecture, hidden=(90, 130))
    found = []
    for at_once in (False, True):
        net = BuiltinNetwork(config, 45, 3)
        net.initialise(np.random.default_rng(0))
        optimiser = Adam(net.vector, net.require_gradient(), 1e-8)
        draws = np.random.default_rng(1)
        for _ in range(3):
            x, upstream = (draws.standard_normal((5, 30, width), np.float32) for width in (45, 3))
            net.forward(x, net.initial_state(30))
            if at_once:
                net.descend(upstream, optimiser, 0.01)
            else:
                net.backward(upstream)
                optimiser.step(0.01)
        found.append([part.copy() for part in optimiser.state().values()])
    assert max(90 * 130, 45 * 90) > AT_ONCE and CHUNK < 150
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    assert not net.gradient.any()
    with pytest.raises(RuntimeError, match="forward"):
        net.descend(upstream, optimiser, 0.01)
