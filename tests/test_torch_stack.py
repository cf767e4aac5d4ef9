"""Equal networks in PyTorch computed together: the same bits as one after another."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

torch = pytest.importorskip("torch")

from dials_mpi.algorithm.learners import Learners  # noqa: E402
from dials_mpi.config import load  # noqa: E402
from dials_mpi.config.schedule import Segment  # noqa: E402
from dials_mpi.domains import create as domain_of  # noqa: E402
from dials_mpi.learning import devices, torch_stack  # noqa: E402
from dials_mpi.learning.adam import Adam  # noqa: E402
from dials_mpi.learning.network import create  # noqa: E402
from dials_mpi.learning.side_by_side import together  # noqa: E402
from dials_mpi.learning.torch_stack import Stack, stack  # noqa: E402


@pytest.fixture
def always_faster(monkeypatch):
    """Together is taken to be faster wherever the bits are the same."""
    monkeypatch.setattr(torch_stack, "_is_faster", lambda alone, together: True)


def networks(count: int, architecture: str = "torch:fnn", inputs: int = 9, **arguments):
    """Networks with parameters of their own, and their optimisers."""
    words = [f"policy.architecture={architecture}", "policy.hidden=[16,8]", f"policy.arguments={arguments}"]
    made = [create(load(None, words).policy, inputs, 4) for _ in range(count)]
    for k, network in enumerate(made):
        network.initialise(np.random.default_rng(k))
    return made, [Adam(one.vector, one.require_gradient(), 1e-5) for one in made]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def transposes_alike(rows: int, sizes: tuple[int, ...] = (9, 16, 8, 4)) -> bool:
    """Whether PyTorch gives the transposed products of several matrices the bits of each alone.

    On some processors its library adds in another order.
    """
    layers = [(numbers(3, rows, i), numbers(3, rows, o)) for i, o in itertools.pairwise(sizes)]
    pairs = [(torch.from_numpy(x), torch.from_numpy(g)) for x, g in layers]
    return all(
        torch.equal(torch.bmm(x.mT, g).mT, torch.stack([b.T @ a for a, b in zip(x, g, strict=True)]))
        for x, g in pairs
    )


@pytest.mark.parametrize("count", [2, 7])
def test_outputs_and_gradients_are_those_of_each_network_alone(count):
    x, given = numbers(count, 1, 20, 9), numbers(count, 1, 20, 4)
    states = np.zeros((count, 20, 0), np.float32)
    alone, _ = networks(count)
    outputs, gradients, steps = [], [], []
    for network, own, gradient in zip(alone, x, given, strict=True):
        outputs.append(network.forward(own, states[0]))
        network.backward(gradient)
        gradients.append(network.require_gradient().copy())
        steps.append(network.advance(own[0], states[0])[0])
    made = Stack(*networks(count))
    np.testing.assert_array_equal(made.forward(x, states, None), outputs)
    made.backward(given)
    if transposes_alike(20):
        np.testing.assert_array_equal(made.gradient, gradients)
    else:
        np.testing.assert_allclose(made.gradient, gradients, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.advance(x[:, 0], states)[0], steps)


def test_each_optimiser_moves_its_own_network():
    alone, single = networks(3)
    stacked, optimisers = networks(3)
    made = Stack(stacked, optimisers)
    for k, gradient in enumerate(numbers(3, made.gradient.shape[1])):
        single[k].gradient[:] = optimisers[k].gradient[:] = gradient
        single[k].step(0.1)
        optimisers[k].step(0.1)
        np.testing.assert_array_equal(stacked[k].vector, alone[k].vector)
        np.testing.assert_array_equal(made.parameters[k], alone[k].vector)
        x, state = numbers(5, 9), np.zeros((5, 0), np.float32)
        np.testing.assert_array_equal(stacked[k].advance(x, state)[0], alone[k].advance(x, state)[0])


def test_a_device_with_memory_of_its_own_gets_what_the_optimisers_change(monkeypatch):
    alone, single = networks(3)
    monkeypatch.setattr(devices, "_chosen", [devices.Device("cpu:0")])
    stacked, optimisers = networks(3)
    made = Stack(stacked, optimisers)
    assert not stacked[0].on_cpu
    x, states = numbers(3, 20, 9), np.zeros((3, 20, 0), np.float32)
    for k, gradient in enumerate(numbers(3, made.gradient.shape[1])):
        single[k].gradient[:] = optimisers[k].gradient[:] = gradient
        single[k].step(0.1)
        optimisers[k].step(0.1)
        found = made.advance(x, states)[0][k]
        np.testing.assert_array_equal(found, alone[k].advance(x[k], states[k])[0])


def test_equal_networks_are_computed_together_where_that_is_faster(always_faster):
    acts, learns = stack(*networks(4), 16, [(1, 20)])
    assert acts
    assert (learns is not None) == transposes_alike(20)


def test_they_learn_together_only_where_all_minibatches_give_the_same_bits(always_faster):
    sizes = 9, 1  # PyTorch multiplies a few rows in another way where there are several matrices
    each = [stack(*networks(4), 16, [(1, size)])[1] is not None for size in sizes]
    assert (stack(*networks(4), 16, [(1, size) for size in sizes])[1] is not None) == all(each)
    assert stack(*networks(4), 16, [])[1] is None


def test_unequal_networks_and_a_single_one_are_computed_alone(always_faster):
    assert stack(*networks(1), 5, [(1, 20)]) == (None, None)
    mixed, optimisers = networks(2)
    other, more = networks(1, inputs=8)
    assert stack([*mixed, *other], [*optimisers, *more], 5, [(1, 20)]) == (None, None)
    assert together(*networks(3, "gru"), 5, [(1, 20)]) == (None, None)


@pytest.mark.parametrize("module", ["Branches", "DiffersTogether"])
def test_a_module_that_cannot_be_mapped_or_differs_is_computed_alone(always_faster, monkeypatch, module):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert stack(*networks(3, f"torch_modules:{module}"), 5, [(1, 20)]) == (None, None)


def trained(monkeypatch, *settings: str) -> tuple[dict, dict, int]:
    """What a segment of training gives on one rank: parameters, figures, and how many stacks there were."""
    config = load(None, [*SMALL, *settings])
    domain = domain_of(config.domain, config.domain_section)
    learners = Learners(config, domain, list(range(len(domain.regions))))
    figures = learners.train(Segment(0, 0, 2, 64, False, False))
    used = [one for pair in learners._stacks.values() for one in pair if one]
    for predictor in learners.predictors.values():  # moved into a matrix with the others
        assert np.shares_memory(predictor.vector, predictor.optimiser.parameters)
    vectors = {i: vector.copy() for i, vector in learners.vectors("policy").items()}
    return vectors, figures, len(used)


@pytest.mark.parametrize("more", [(), ("mode=global",)])
def test_training_gives_the_same_bits(always_faster, monkeypatch, more):
    words = ("policy.architecture=torch:fnn", "influence.architecture=torch:fnn", *more)
    vectors, figures, used = trained(monkeypatch, *words)
    assert used >= 1 + (not more or transposes_alike(32))
    monkeypatch.setattr(torch_stack, "LEAST", 1000)
    alone, those, none = trained(monkeypatch, *words)
    assert none == 0
    for i in alone:
        np.testing.assert_array_equal(vectors[i], alone[i])
        np.testing.assert_array_equal(figures[i], those[i])
