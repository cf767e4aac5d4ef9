"""Influence predictors against scipy's formulas, torch's optimiser and a dataset of known entropy."""

import gc
import tracemalloc

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_twin import TorchTwin, assert_close

from dials_mpi import config as c
from dials_mpi.domains.base import Region
from dials_mpi.learning import builtin, influence
from dials_mpi.learning.influence import Heads, Predictor, baseline_cross_entropy, first_of_kind
from dials_mpi.learning.kernels.inputs import scaled

CLASSES = [(2, 4, 3, 2), (4, 4, 4, 4), (2, 2), (3,), (2,), (5, 2)]
NEARLY_ONE = 1 - 2**-24
"""The largest float32 that a uniform draw can be."""


def predictor(classes, seed=0, inputs=3, input_type="uint8", spread=1.0, **changes):
    config = c.Influence(**{"architecture": "gru", "hidden": (12, 10), **changes})
    made = Predictor(config, Region((0,), inputs, classes, input_type), trainable=True)
    made.network.initialise(np.random.default_rng(seed))
    made.network.vector[:] *= spread
    return made


def bits(*shape, seed=0):
    return np.random.default_rng(seed).integers(2, size=shape).astype(np.uint8)


def some_sources(classes, *shape, seed=1):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(count, size=shape) for count in classes], -1).astype(np.uint8)


def log_probabilities_by_source(outputs, classes):
    """One array [..., C_m] per source, from outputs [..., K] cut by hand: sigmoid or softmax."""
    parts, start = [], 0
    for count in classes:
        if count == 2:
            logit = outputs[..., start]
            parts.append(np.stack([scipy.special.log_expit(-logit), scipy.special.log_expit(logit)], -1))
            start += 1
        else:
            parts.append(scipy.special.log_softmax(outputs[..., start : start + count], -1))
            start += count
    assert start == outputs.shape[-1]
    return parts


def twin_log_probabilities(made, inputs):
    """By source, [K, T, C_m], from whole episodes inputs [K, T, D]."""
    x = torch.from_numpy(inputs.astype(np.float64)).transpose(0, 1)
    x = 2 * x - 1 if inputs.dtype == np.uint8 else x
    state = made.network.initial_state(len(inputs))
    outputs = TorchTwin(made.network)(x, state).detach().numpy().swapaxes(0, 1)
    return log_probabilities_by_source(outputs, made.heads.classes)


# --- heads ---


@settings(deadline=None, max_examples=80)
@given(
    classes=st.lists(st.integers(2, 6), min_size=1, max_size=5).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_heads_give_every_source_its_own_sigmoid_or_softmax(classes, seed, size):
    heads = Heads(classes)
    outputs = size * np.random.default_rng(seed).normal(size=(3, heads.outputs))
    ours = heads.probabilities(outputs)
    assert ours.shape == (3, len(classes), max(classes))
    for m, expected in enumerate(log_probabilities_by_source(outputs, classes)):
        np.testing.assert_allclose(ours[:, m, : classes[m]], np.exp(expected), rtol=1e-6, atol=1e-37)
        assert not ours[:, m, classes[m] :].any()


@settings(deadline=None, max_examples=50)
@given(classes=st.lists(st.integers(2, 6), min_size=1, max_size=5).map(tuple), seed=st.integers(0, 2**32 - 1))
def test_the_cross_entropy_and_its_gradient_are_those_of_every_sources_own_softmax(classes, seed):
    heads, rng = Heads(classes), np.random.default_rng(seed)
    outputs = rng.normal(size=(4, heads.outputs)).astype(np.float32)
    sources = some_sources(classes, 4, seed=seed)
    gradient, losses = np.zeros((4, heads.outputs)), []
    start = 0
    for m, part in enumerate(log_probabilities_by_source(outputs.astype(np.float64), classes)):
        losses.append(-np.take_along_axis(part, sources[:, m, None].astype(int), 1).mean())
        difference = np.exp(part) - np.eye(classes[m])[sources[:, m]]
        difference = difference[:, 1:] if classes[m] == 2 else difference
        gradient[:, start : start + difference.shape[1]] = difference / sources.size
        start += difference.shape[1]
    assert heads.loss(outputs, sources) == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_allclose(heads.gradient(outputs, sources), gradient, atol=1e-6)


def test_bits_become_minus_one_and_one_and_floats_stay():
    assert scaled(np.array([[0, 1, 1]], np.uint8)).tolist() == [[-1.0, 1.0, 1.0]]
    assert scaled(np.array([[0.0, 0.5, -3.0]], np.float32)).tolist() == [[0.0, 0.5, -3.0]]


# --- probabilities and samples ---


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
@pytest.mark.parametrize("classes", CLASSES)
def test_probabilities_step_by_step_agree_with_scipy(classes, architecture):
    made = predictor(classes, architecture=architecture, spread=3)
    inputs = bits(5, 7, 3)
    expected = twin_log_probabilities(made, inputs)
    state = made.network.initial_state(5)
    for t in range(7):
        ours, state = made.probabilities(inputs[:, t], state)
        for m, part in enumerate(expected):
            assert_close(ours[:, m, : classes[m]], np.exp(part[:, t]))
            assert not ours[:, m, classes[m] :].any()


@pytest.mark.parametrize("classes", CLASSES)
def test_samples_have_the_predicted_frequencies(classes):
    made = predictor(classes, spread=4)
    inputs, count = np.repeat(bits(1, 3), 20_000, 0), 20_000
    uniforms = np.random.default_rng(5).random((count, len(classes)), dtype=np.float32)
    sources, _ = made.sample(inputs, made.network.initial_state(count), uniforms)
    assert sources.shape == (count, len(classes))
    for m, part in enumerate(twin_log_probabilities(made, inputs[:1, None])):
        expected = np.exp(part[0, 0])
        counts = np.bincount(sources[:, m], minlength=classes[m])
        assert scipy.stats.chisquare(counts, count * expected / expected.sum()).pvalue > 1e-3


def test_sources_of_one_step_are_drawn_independently():
    made = predictor((2, 2), spread=0)
    uniforms = np.random.default_rng(5).random((20_000, 2), dtype=np.float32)
    sources, _ = made.sample(bits(20_000, 3), made.network.initial_state(20_000), uniforms)
    table = np.histogram2d(*sources.T, bins=2)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("uniform", [0.0, NEARLY_ONE])
def test_a_sample_is_always_one_of_the_sources_own_classes(classes, uniform):
    made = predictor(classes, spread=2, input_type="float32")
    inputs = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    uniforms = np.full((3000, len(classes)), uniform, np.float32)
    sources, _ = made.sample(inputs, made.network.initial_state(3000), uniforms)
    assert (sources >= 0).all()
    assert (sources < np.array(classes)).all()
    assert (sources == (0 if uniform == 0 else np.array(classes) - 1)).mean() > 0.99


# --- cross-entropy ---


@pytest.mark.quick
@pytest.mark.parametrize("architecture", ["gru", "fnn"])
@pytest.mark.parametrize("classes", CLASSES)
def test_cross_entropy_agrees_with_scipy(classes, architecture):
    made = predictor(classes, architecture=architecture, spread=3)
    inputs, sources = bits(6, 9, 3), some_sources(classes, 6, 9)
    losses = [
        -np.take_along_axis(part, sources[..., m, None].astype(int), -1).mean()
        for m, part in enumerate(twin_log_probabilities(made, inputs))
    ]
    assert made.cross_entropy(inputs, sources) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("classes", CLASSES)
def test_baseline_cross_entropy_agrees_with_counting(classes):
    train, test = some_sources(classes, 4, 5), some_sources(classes, 2, 5, seed=2)
    losses = []
    for m, count in enumerate(classes):
        seen = list(train[..., m].flat)
        for u in test[..., m].flat:
            losses.append(-np.log((seen.count(u) + 1) / (len(seen) + count)))
    assert baseline_cross_entropy(train, test, classes) == pytest.approx(np.mean(losses))


def test_baseline_cross_entropy_of_a_class_never_seen_is_finite():
    train, test = np.zeros((8, 3, 1), np.uint8), np.full((1, 3, 1), 3, np.uint8)
    assert baseline_cross_entropy(train, test, (4,)) == pytest.approx(np.log(28))


# --- fitting ---

KNOWN_CLASSES = (2, 3)


def known_data(episodes, seed, steps=12):
    """Source 0 is the input bit of the step before with probability 0.9; source 1 depends on today's bit."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(2, size=(episodes, steps, 1)).astype(np.uint8)
    before = np.concatenate([np.zeros((episodes, 1), np.uint8), inputs[:, :-1, 0]], 1)
    first = np.where(rng.random((episodes, steps)) < 0.9, before, 1 - before)
    edges = np.cumsum(KNOWN_TABLE, 1)[inputs[..., 0]]
    second = (rng.random((episodes, steps, 1)) > edges[..., :-1]).sum(-1)
    return inputs, np.stack([first, second], -1).astype(np.uint8)


KNOWN_TABLE = np.array([[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]])


def known_entropy():
    first = scipy.stats.entropy([0.9, 0.1])
    return (first + scipy.stats.entropy(KNOWN_TABLE, axis=1).mean()) / 2


@pytest.mark.parametrize(("architecture", "reaches"), [("gru", True), ("fnn", False)])
def test_fit_reaches_the_known_entropy_if_the_network_is_recurrent(architecture, reaches):
    made = predictor(
        KNOWN_CLASSES, inputs=1, architecture=architecture, epochs=25, learning_rate=1e-2, hidden=(16, 16)
    )
    inputs, sources = known_data(400, seed=0)
    fit = made.fit(inputs, sources, np.random.default_rng(0))
    fresh = made.cross_entropy(*known_data(2000, seed=1))
    assert fit.before > known_entropy() + 0.3
    assert fit.after < fit.before - 0.1
    memoryless = (np.log(2) + scipy.stats.entropy(KNOWN_TABLE, axis=1).mean()) / 2
    assert fresh == pytest.approx(known_entropy() if reaches else memoryless, abs=0.02)
    constant = (np.log(2) + scipy.stats.entropy(KNOWN_TABLE.mean(0))) / 2
    assert fit.constant == pytest.approx(constant, abs=0.02)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_two_refits_agree_with_torch_optim_continuing_from_the_first(architecture):
    classes = (2, 4, 3)
    made = predictor(classes, architecture=architecture, batch_size=6, epochs=3, learning_rate=5e-3)
    twin = TorchTwin(made.network)
    reference = torch.optim.Adam(twin.parameters(), lr=5e-3, eps=made.config.adam_epsilon)
    before = made.network.vector.copy()
    for refit in range(2):
        inputs, sources = bits(20, 5, 3, seed=refit), some_sources(classes, 20, 5, seed=refit)
        made.fit(inputs, sources, np.random.default_rng(refit))
        x, u = 2.0 * torch.from_numpy(inputs[:18]) - 1, torch.from_numpy(sources[:18]).long()
        if architecture == "fnn":  # single steps, numbered episode by episode
            x, u = (part.flatten(0, 1).unsqueeze(1) for part in (x, u))
        stream = np.random.default_rng(refit)
        for _ in range(3):
            order = stream.permutation(len(x))
            for start in range(0, len(x), 6):
                chosen = order[start : start + 6]
                state = torch.zeros(len(chosen), made.network.state_size)
                outputs = twin(x[chosen].transpose(0, 1), state)
                wanted, total, column = u[chosen].transpose(0, 1), 0, 0
                for m, count in enumerate(classes):
                    if count == 2:
                        logit, column = outputs[..., column], column + 1
                        total += torch.nn.functional.binary_cross_entropy_with_logits(
                            logit, wanted[..., m].double()
                        )
                    else:
                        logits, column = outputs[..., column : column + count], column + count
                        total += torch.nn.functional.cross_entropy(
                            logits.flatten(0, 1), wanted[..., m].flatten()
                        )
                reference.zero_grad()
                (total / len(classes)).backward()
                reference.step()
        assert_close(made.network.vector - before, twin.flat() - torch.from_numpy(before), 1e-3)


def test_a_fit_reports_the_held_out_cross_entropy_before_and_after():
    made = predictor((3, 2), epochs=2, learning_rate=1e-2)
    inputs, sources = bits(30, 4, 3), some_sources((3, 2), 30, 4)
    held_out = inputs[27:], sources[27:]
    before = made.cross_entropy(*held_out)
    first = made.fit(inputs, sources, np.random.default_rng(0))
    between = made.cross_entropy(*held_out)
    second = made.fit(inputs, sources, np.random.default_rng(1))
    assert (first.before, first.after, second.before) == (before, between, between)
    assert second.after == made.cross_entropy(*held_out)
    assert len({before, between, second.after}) == 3
    assert first.constant == baseline_cross_entropy(sources[:27], sources[27:], (3, 2))


@pytest.mark.quick
@pytest.mark.parametrize(("architecture", "patience"), [("gru", 2), ("fnn", 3)])
def test_with_patience_a_fit_ends_with_the_state_of_the_lowest_loss(architecture, patience):
    """Against fits of 0, 1, 2, ... epochs, which have the same minibatches."""
    inputs, sources = bits(30, 4, 3), some_sources((3, 2), 30, 4)
    held_out = inputs[27:], sources[27:]

    def fitted(epochs, **how):
        made = predictor((3, 2), architecture=architecture, epochs=epochs, learning_rate=1e-2, **how)
        fit = made.fit(inputs, sources, np.random.default_rng(0))
        return fit, made.cross_entropy(*held_out), made.optimiser.state()

    (first, before, _), most = fitted(0), 14
    losses = [before, *(fitted(epochs)[1] for epochs in range(1, most))]
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best == patience:
            break
    assert 0 < best < most - patience - 1 and min(losses) in (losses[best], *losses[best + patience :])
    found, loss, state = fitted(most, patience=patience)
    assert (found.before, found.after, found.constant) == (first.before, losses[best], first.constant)
    assert loss == losses[best]
    for name, array in fitted(best)[2].items():
        np.testing.assert_array_equal(state[name], array)


@pytest.mark.parametrize(
    ("episodes", "share", "kept"), [(20, 0.1, 2), (4, 0.1, 1), (10, 0.25, 2), (10, 0.5, 5)]
)
def test_the_last_episodes_and_only_they_are_held_out(episodes, share, kept):
    def fitted(changed=None):
        made = predictor((3, 2), epochs=2, learning_rate=1e-2, held_out=share)
        inputs, sources = bits(episodes, 4, 3), some_sources((3, 2), episodes, 4)
        if changed is not None:
            inputs[changed] = 1 - inputs[changed]
            sources[changed] = 1
        made.fit(inputs, sources, np.random.default_rng(0))
        return made.network.vector

    untouched = fitted()
    assert np.array_equal(fitted(slice(episodes - kept, None)), untouched)
    assert not np.array_equal(fitted(slice(episodes - kept - 1, episodes - kept)), untouched)
    assert not np.array_equal(fitted(slice(0, 1)), untouched)


def test_measuring_does_not_change_the_predictor():
    made = predictor((3, 2))
    before = made.network.vector.copy()
    made.cross_entropy(bits(4, 5, 3), some_sources((3, 2), 4, 5))
    made.probabilities(bits(4, 3), made.network.initial_state(4))
    assert np.array_equal(made.network.vector, before)


# --- memory ---


def bytes_of_arrays(*roots):
    """The size of all arrays that can be reached from some objects, each counted once."""
    todo, seen, total = list(roots), set(), 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            total += thing.nbytes if thing.base is None else 0
            todo += [] if thing.base is None else [thing.base]
        else:
            todo += gc.get_referents(thing)
    return total


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_a_fitted_predictor_holds_its_vectors_alone(architecture):
    """However large its dataset was: parameters, gradient and two moments, and the optimiser's count."""
    for episodes in (10, 40):
        made = predictor((3, 2), architecture=architecture, batch_size=4, epochs=1)
        made.fit(bits(episodes, 50, 3), some_sources((3, 2), episodes, 50), np.random.default_rng(0))
        vectors = 4 * made.network.vector.nbytes
        assert vectors <= bytes_of_arrays(made) < vectors + 500
        assert builtin.workspace.cache_info().currsize == 0


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_a_cross_entropy_in_blocks_has_the_bits_of_one_at_once(architecture, monkeypatch):
    made = predictor((3, 2), architecture=architecture, spread=2.0)
    inputs, sources = bits(150, 20, 3), some_sources((3, 2), 150, 20)
    known = {}
    for most in (400, 1000, 10**9):
        monkeypatch.setattr(influence, "AT_ONCE", most)
        known[most] = made.cross_entropy(inputs, sources)
    assert len(set(known.values())) == 1
    with pytest.raises(RuntimeError, match="forward"):
        made.network.backward(np.zeros((20, 150, 4), np.float32))


def test_the_workspace_of_a_cross_entropy_does_not_grow_with_the_dataset():
    made = predictor((3, 2))
    peaks = []
    for episodes in (2000, 20_000):
        inputs, sources = bits(episodes, 20, 3), some_sources((3, 2), episodes, 20)
        tracemalloc.start()
        made.cross_entropy(inputs, sources)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 18_000 * 20 * 40  # outputs and sources of 18,000 more episodes


def test_the_first_region_of_each_kind():
    """Equal are the number of inputs and the classes of every source, in their order."""
    sizes = [(5, (4, 2)), (5, (3,)), (4, (2,)), (5, (4, 2)), (5, (2, 4)), (4, (2,))]
    regions = [Region((k,), inputs, classes) for k, (inputs, classes) in enumerate(sizes)]
    assert first_of_kind(regions) == [0, 1, 2, 0, 4, 2]
