"""Autoregressive heads: loss, gradient and samples against enumeration, closed-form entropies, whole runs."""

import itertools
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.special
import scipy.stats
from conftest import SMALL, train
from test_protocol import PlainNetwork
from test_ranks import differing, results

from dials_mpi import config as c
from dials_mpi.domains.base import Region
from dials_mpi.learning import network, tables
from dials_mpi.learning.calibration import cross_entropies, predict
from dials_mpi.learning.influence import AutoregressiveHeads, Heads, Predictor, sample
from dials_mpi.learning.kernels.sampling import COUPLING_SCALE
from dials_mpi.learning.network import FusedNetwork

CLASSES = [(2, 4, 3, 2), (3, 2, 2), (2, 2), (5,), (2, 2, 2, 2)]
AUTOREGRESSIVE = "influence.heads=autoregressive"
ANNEAL = "ppo.anneal=false"


def couplings_of(classes, couplings):
    """added[m][u]: what class u of source m adds to all outputs [K], in plain loops."""
    widths = [1 if count == 2 else count for count in classes]
    added, at = [], 0
    for m, count in enumerate(classes):
        behind = sum(widths[m + 1 :])
        rows = [np.zeros(sum(widths))]
        for _ in range(count - 1):
            row = np.zeros(sum(widths))
            row[sum(widths) - behind :] = float(COUPLING_SCALE) * couplings[at : at + behind]
            rows.append(row)
            at += behind
        added.append(rows)
    assert at == len(couplings)
    return added


def log_probabilities(outputs, classes, added, given):
    """log p(class of source m | given[:m]) for one row of outputs [K]: one array [C_m] per source."""
    found, start, row = [], 0, np.array(outputs, float)
    for m, count in enumerate(classes):
        logits = np.array([0, row[start]]) if count == 2 else row[start : start + count]
        found.append(scipy.special.log_softmax(logits))
        start += 1 if count == 2 else count
        row = row + added[m][given[m]]
    return found


def plain_loss(classes, outputs, couplings, sources):
    """The cross-entropy per source, by the chain rule."""
    added, losses = couplings_of(classes, couplings), []
    for row, given in zip(outputs, sources, strict=True):
        found = log_probabilities(row, classes, added, given)
        losses.append(-sum(part[u] for part, u in zip(found, given, strict=True)))
    return np.mean(losses) / len(classes)


def some_heads(classes, seed=0, size=1.0):
    """Heads with random couplings and room for their gradient, outputs [5, K], sources [5, M]."""
    rng = np.random.default_rng(seed)
    (_, (length,)) = tables.couplings_table(c.Influence(heads="autoregressive"), classes)[0]
    couplings = (size * rng.normal(size=length) / COUPLING_SCALE).astype(np.float32)
    heads = AutoregressiveHeads(classes, couplings, np.full_like(couplings, np.nan))
    outputs = rng.normal(size=(5, heads.outputs)).astype(np.float32)
    sources = np.stack([rng.integers(count, size=5) for count in classes], -1).astype(np.uint8)
    return heads, outputs, sources


def made_predictor(classes, inputs=3, **changes):
    config = c.Influence(**{"architecture": "gru", "hidden": (12, 10), "heads": "autoregressive", **changes})
    made = Predictor(config, Region((0,), inputs, classes), trainable=True)
    made.network.initialise(np.random.default_rng(0))
    return made


# --- the heads themselves ---


@pytest.mark.parametrize("classes", CLASSES)
def test_the_cross_entropy_is_that_of_the_chain_rule(classes):
    heads, outputs, sources = some_heads(classes)
    added = couplings_of(classes, heads.couplings)
    assert heads.loss(outputs, sources) == pytest.approx(
        plain_loss(classes, outputs, heads.couplings, sources), rel=1e-5
    )
    ours = heads.probabilities(outputs, sources)
    for b, given in enumerate(sources):
        for m, part in enumerate(log_probabilities(outputs[b], classes, added, given)):
            np.testing.assert_allclose(ours[b, m, : classes[m]], np.exp(part), rtol=1e-4)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_gradients_are_those_of_finite_differences(classes):
    heads, outputs, sources = some_heads(classes)
    gradient, step = heads.gradient(outputs, sources), 1e-5
    outputs, couplings = outputs.astype(float), heads.couplings.astype(float)
    for values, ours in ((outputs, gradient), (couplings, heads.couplings_gradient)):
        for index in np.ndindex(values.shape):
            losses, before = [], values[index]
            for moved in (before + step, before - step):
                values[index] = moved
                losses.append(plain_loss(classes, outputs, couplings, sources))
            values[index] = before
            slope = (losses[0] - losses[1]) / (2 * step)
            assert ours[index] == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("classes", [(2, 4, 3), (2, 2, 2), (3, 2)])
def test_samples_have_the_joint_frequencies_of_enumeration(classes):
    count = 40_000
    heads, outputs, _ = some_heads(classes, size=2.0)
    added = couplings_of(classes, heads.couplings)
    every = list(itertools.product(*map(range, classes)))
    wanted = [
        sum(p[u] for p, u in zip(log_probabilities(outputs[0], classes, added, given), given, strict=True))
        for given in every
    ]
    assert np.exp(wanted).sum() == pytest.approx(1)
    uniforms = np.random.default_rng(1).random((count, len(classes)), dtype=np.float32)
    drawn = heads.draw(np.repeat(outputs[:1], count, 0), uniforms)
    seen = np.bincount(np.ravel_multi_index(drawn.T, classes), minlength=len(every))
    assert scipy.stats.chisquare(seen, count * np.exp(wanted)).pvalue > 1e-3
    alone = Heads(classes).draw(np.repeat(outputs[:1], count, 0), uniforms)
    apart = np.bincount(np.ravel_multi_index(alone.T, classes), minlength=len(every))
    assert scipy.stats.chisquare(apart, count * np.exp(wanted)).pvalue < 1e-6


@pytest.mark.quick
@pytest.mark.parametrize("classes", CLASSES)
def test_without_couplings_the_heads_are_independent_to_the_bit(classes):
    heads, outputs, sources = some_heads(classes, size=0)
    alone, uniforms = Heads(classes), np.random.default_rng(2).random(sources.shape, dtype=np.float32)
    assert heads.loss(outputs, sources) == alone.loss(outputs, sources)
    for ours, theirs in (
        (heads.gradient(outputs, sources), alone.gradient(outputs, sources)),
        (heads.probabilities(outputs, sources), alone.probabilities(outputs)),
        (heads.draw(outputs, uniforms), alone.draw(outputs, uniforms)),
    ):
        assert np.array_equal(ours, theirs)
    assert not np.isnan(heads.couplings_gradient).any()


def test_the_heads_do_not_change_their_arguments():
    heads, outputs, sources = some_heads((2, 4, 3, 2))
    before = outputs.copy()
    heads.draw(outputs, np.zeros(sources.shape, np.float32))
    heads.probabilities(outputs, sources)
    heads.gradient(outputs, sources)
    assert np.array_equal(outputs, before)


def test_probabilities_need_the_sources_before():
    heads, outputs, _ = some_heads((2, 3))
    with pytest.raises(ValueError, match="need the sources"):
        heads.probabilities(outputs)


# --- predictors ---


def test_the_parameters_are_the_networks_and_then_the_couplings():
    made, alone = made_predictor((2, 4, 3)), made_predictor((2, 4, 3), heads="independent")
    assert np.array_equal(made.vector[: len(alone.vector)], alone.vector)
    # Class 1 of source 0 adds to 4 + 3 outputs, three classes of source 1 to 3 outputs each.
    assert len(made.vector) == len(alone.vector) + 7 + 9 and not made.vector[-16:].any()
    region = Region((0,), 3, (2, 4, 3))
    table = tables.predictor_table(made.config, region)
    assert table == (*alone.network.table, ("heads.couplings", (16,)))
    assert tables.predictor_table(alone.config, region) == alone.network.table
    assert len(made.optimiser.parameters) == len(made.optimiser.gradient) == len(made.vector)
    made.vector[-1] = 5
    assert made.heads.couplings[-1] == 5
    again = Predictor(made.config, region, np.pad(made.vector, (0, 9)))
    assert np.array_equal(again.vector, made.vector) and again.heads.couplings[-1] == 5


def test_equal_tables_of_a_system_are_one_object():
    class Domain:
        agents, regions = (), (Region((0,), 3, (2, 3)), Region((1,), 3, (2, 3)), Region((2,), 3, (3, 2)))

    config = c.Config(influence=c.Influence(heads="autoregressive"))
    one, two, three = tables.tables(config, Domain())["predictor"]
    assert one is two and one == tables.predictor_table(config.influence, Domain.regions[0])
    # The network has as many outputs, but not as many couplings.
    assert three[:-1] == one[:-1] and three[-1] != one[-1]


ARCHITECTURES = ["gru", "fnn", "torch:gru", "torch:fnn", "plain-gru"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_sources_that_exclude_each_other(architecture, monkeypatch):
    """At most one of three sources is 1: with probability 1/4 each, given the history, or none."""
    monkeypatch.setitem(tables.TABLES, "plain-gru", tables.gru_table)
    monkeypatch.setitem(network.NETWORKS, "plain-gru", PlainNetwork)
    rng, shape = np.random.default_rng(0), (40, 25)
    inputs = rng.integers(2, size=(*shape, 2)).astype(np.uint8)
    sources = (rng.integers(4, size=(*shape, 1)) == np.arange(3)).astype(np.uint8)
    settings = {"architecture": architecture, "epochs": 30, "learning_rate": 1e-2, "batch_size": 12}
    made, alone = (
        made_predictor((2, 2, 2), 2, hidden=(6, 5), **settings, heads=heads)
        for heads in ("autoregressive", "independent")
    )
    fits = [one.fit(inputs, sources, np.random.default_rng(1)) for one in (made, alone)]
    assert fits[0].before == fits[1].before
    joint, apart = np.log(4) / 3, scipy.stats.entropy([0.25, 0.75])
    assert [fit.after for fit in fits] == pytest.approx([joint, apart], abs=0.06)
    assert fits[1].after - fits[0].after > 0.06  # of 0.10
    uniforms = rng.random((500, 3), dtype=np.float32)
    bits, states = inputs[0, :1].repeat(500, 0), made.network.initial_state(500)
    drawn, after = made.sample(bits, states, uniforms)
    assert (drawn.sum(1) > 1).mean() < 0.05 < (alone.sample(bits, states, uniforms)[0].sum(1) > 1).mean()
    again = sample(made.network, made.heads, bits, states, uniforms)
    assert np.array_equal(drawn, again[0]) and np.array_equal(after, again[1])
    assert isinstance(made.network, FusedNetwork) == (architecture in ("gru", "fnn"))


def excluding(shape, rng):
    """Two neighbours on one of three shelves or on none (class 0), never on the same; a third by itself."""
    inputs = rng.integers(2, size=(*shape, 3)).astype(np.uint8)
    pairs = np.array([(a, b) for a in range(4) for b in range(4) if a != b or a == 0])
    third = np.where(inputs[..., 0] == 1, rng.integers(4, size=shape), 0)
    return inputs, np.concatenate([pairs[rng.integers(len(pairs), size=shape)], third[..., None]], -1).astype(
        np.uint8
    )


@pytest.mark.parametrize(
    ("architecture", "epochs", "rate", "batch"),
    [("fnn", 10, 1e-3, 128), pytest.param("gru", 300, 1e-4, 32, marks=pytest.mark.slow)],
)
def test_the_cross_entropy_comes_near_to_the_joint_entropy(architecture, epochs, rate, batch):
    """The slow one: in the paper's setting, Table 4."""
    marginal = np.array([4, 3, 3, 3]) / 13
    joint = (np.log(13) + np.log(4) / 2) / 3
    gap = (2 * scipy.stats.entropy(marginal) - np.log(13)) / 3
    assert gap == pytest.approx(0.0636, abs=1e-4)
    rng, losses = np.random.default_rng(0), []
    data, fresh = excluding((100, 100), rng), excluding((100, 100), rng)
    for heads in ("autoregressive", "independent"):
        config = c.Influence(architecture, (64, 64), rate, batch, epochs, heads=heads)
        made = Predictor(config, Region((0,), 3, (4, 4, 4)), trainable=True)
        made.network.initialise(np.random.default_rng(1))
        made.fit(*data, np.random.default_rng(2))
        losses.append(made.cross_entropy(*fresh))
    assert losses == pytest.approx([joint, joint + gap], abs=0.012)


def test_predictions_along_episodes_give_the_same_cross_entropy():
    """``watch`` draws the probabilities given the observed sources before: their mean is the loss."""
    made, rng = made_predictor((2, 4, 3)), np.random.default_rng(3)
    made.vector[:] += rng.normal(0, 0.05, len(made.vector)).astype(np.float32)
    inputs = rng.integers(2, size=(6, 9, 3)).astype(np.uint8)
    sources = np.stack([rng.integers(count, size=(6, 9)) for count in (2, 4, 3)], -1).astype(np.uint8)
    predicted = predict(made, inputs, sources)
    losses = [
        cross_entropies(predicted[:, :, m, :count], sources[..., m])[0] for m, count in enumerate((2, 4, 3))
    ]
    assert np.mean(losses) == pytest.approx(made.cross_entropy(inputs, sources), rel=1e-5)
    apart = replace(made.config, heads="independent")
    alone = Predictor(apart, Region((0,), 3, (2, 4, 3)), made.vector)
    assert abs(alone.cross_entropy(inputs, sources) - np.mean(losses)) > 1e-3


# --- runs ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(ranks, *words): the directory of a finished run with autoregressive heads."""

    def made(ranks, *words):
        out = tmp_path_factory.mktemp("run") / "out"
        done = train(*SMALL, AUTOREGRESSIVE, ANNEAL, *words, "--output", str(out), ranks=ranks)
        assert (done.code, done.stderr) == (0, "")
        return out

    return made


@pytest.fixture(scope="module")
def alone(run):
    return run(None)


def test_any_number_of_ranks_gives_the_same_bits(run, alone):
    assert differing(results(alone), results(run(3))) == []
    with h5py.File(alone / "run.h5") as file:
        (table,) = file["predictor/tables"].asstr()
        assert '["heads.couplings", [72]]' in table
        couplings = file["predictor/parameters"][:, -72:]
    assert np.abs(couplings).max(axis=1).min() > 0


def test_a_run_that_stops_and_is_resumed_gives_the_same_bits(run, alone):
    half = run(None, "total_steps=128")
    more = train(*SMALL, AUTOREGRESSIVE, ANNEAL, "--output", str(half), "--resume")
    assert (more.code, more.stderr) == (0, "")
    assert differing(results(half), results(alone)) == []


@pytest.mark.slow
def test_untrained_predictors_have_no_couplings_and_draw_the_same_sources(run, trained):
    ours, theirs = (
        results(folder) for folder in (run(None, "mode=untrained"), trained(*SMALL, ANNEAL, "mode=untrained"))
    )
    changed = {name for name in differing(ours, theirs) if not name.startswith("predictor/")}
    assert changed == set()
