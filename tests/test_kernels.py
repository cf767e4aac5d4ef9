"""Matrix products and activations against numpy in double precision; the cache of compiled code."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dials_mpi.learning.kernels.activations import exp, exp_double, log, sigmoid, tanh
from dials_mpi.learning.kernels.gemm import CHUNK, MANY, linear, of_weights, through_weights

SAMPLES = st.one_of(st.integers(1, 40), st.sampled_from([CHUNK, CHUNK + 3, MANY - 1, MANY, MANY + 7]))
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 37, 63, 64, 65, 100, 128, 130]))


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def bordered(*shape):
    """Memory with a border of NaN, which shows when a block writes outside its matrix."""
    whole = np.full(np.prod(shape) + 64, np.nan, np.float32)
    return whole, whole[32:-32].reshape(shape)


def assert_only_inside(whole):
    assert np.isnan(whole[:32]).all() and np.isnan(whole[-32:]).all()


@pytest.mark.quick
@settings(deadline=None, max_examples=150)
@given(samples=SAMPLES, inputs=SIZES, outputs=SIZES)
def test_a_layer_and_its_gradients_are_numpys_products(samples, inputs, outputs):
    x, d_out = some(samples, inputs), some(samples, outputs, seed=1)
    weight, bias = some(outputs, inputs, seed=2), some(outputs, seed=3)
    exact = {name: part.astype(float) for name, part in (("x", x), ("d", d_out), ("w", weight), ("b", bias))}

    whole, out = bordered(samples, outputs)
    linear(x, weight, bias, out)
    np.testing.assert_allclose(out, exact["x"] @ exact["w"].T + exact["b"], atol=2e-4)
    assert_only_inside(whole)

    whole, d_x = bordered(samples, inputs)
    through_weights(d_out, weight, d_x, 0)
    np.testing.assert_allclose(d_x, exact["d"] @ exact["w"], atol=2e-4)
    through_weights(d_out, weight, d_x, 1)
    np.testing.assert_allclose(d_x, 2 * exact["d"] @ exact["w"], atol=4e-4)
    assert_only_inside(whole)

    whole, d_weight = bordered(outputs, inputs)
    border, d_bias = bordered(outputs)
    of_weights(d_out, x, d_weight, d_bias)
    np.testing.assert_allclose(d_weight, exact["d"].T @ exact["x"], atol=5e-4)
    np.testing.assert_allclose(d_bias, exact["d"].sum(0), atol=5e-4)
    assert_only_inside(whole)
    assert_only_inside(border)


def test_the_layer_of_one_sample_does_not_depend_on_its_place():
    """Results of a region must not depend on what else is in the memory around it."""
    x, weight, bias = some(16, 37), some(48, 37, seed=1), some(48, seed=2)
    shifted = np.full(16 * 37 + 5, np.nan, np.float32)[5:].reshape(16, 37)
    shifted[:] = x
    one, other = np.empty((2, 16, 48), np.float32)
    linear(x, weight, bias, one)
    linear(shifted, weight, bias, other)
    assert np.array_equal(one, other)


def test_activations_agree_with_double_precision():
    x = np.concatenate([np.linspace(-90, 90, 200_001), [0.0, -0.0, 1e-30, 1e6, -1e6]]).astype(np.float32)
    wide = x.astype(float)
    held = np.clip(wide, -87, 87)
    np.testing.assert_allclose([exp(part) for part in x], np.exp(held), rtol=3e-7)
    np.testing.assert_allclose([sigmoid(part) for part in x], 1 / (1 + np.exp(-held)), rtol=3e-7, atol=1e-38)
    np.testing.assert_allclose([tanh(part) for part in x], np.tanh(wide), atol=2e-7)


def test_functions_in_double_precision_agree_with_the_c_library():
    x = np.concatenate([np.linspace(-708, 709, 2001), np.linspace(-1, 1, 2001), [0.0, -0.0, 1e-300]])
    np.testing.assert_allclose([exp_double(part) for part in x], np.exp(x), rtol=4e-16)
    y = np.concatenate([np.exp(np.linspace(-700, 700, 2001)), np.linspace(0.5, 2, 2001), [1 + 1e-15, 1e15]])
    np.testing.assert_allclose([log(part) for part in y], np.log(y), rtol=7e-16)
    assert (log(1.0), exp_double(0.0)) == (0, 1)
    assert [exp_double(part) for part in (-709.0, -np.inf, 710.0, np.inf)] == [0, 0, np.inf, np.inf]


def test_nan_is_not_hidden_by_the_functions():
    """A run must end when its numbers break."""
    nan = np.float32(np.nan)
    assert np.isnan(sigmoid(nan)) and np.isnan(tanh(nan))
    assert np.isnan(exp_double(np.nan)) and np.isnan(log(np.nan)) and log(np.inf) == np.inf


@pytest.mark.parametrize(("inputs", "outputs"), [(37, 48), (100, 5), (16, 4)])
def test_a_row_has_the_same_bits_alone_and_among_others(inputs, outputs):
    x, weight, bias = some(9, inputs), some(outputs, inputs, seed=1), some(outputs, seed=2)
    together, alone = np.empty((9, outputs), np.float32), np.empty((1, outputs), np.float32)
    linear(x, weight, bias, together)
    for m in range(9):
        linear(x[m : m + 1], weight, bias, alone)
        assert np.array_equal(alone[0], together[m])


@pytest.mark.parametrize("home", ["writable", "not writable"])
def test_machine_code_is_stored_where_that_can_be_done(home, tmp_path):
    """A second process loads what the first compiled; without a store each compiles for itself."""
    program = (
        "import numpy as np\n"
        "from dials_mpi.core.jit import code_folder\n"
        "from dials_mpi.learning.kernels.activations import exp\n"
        "value = exp(np.float32(1.0))\n"
        "print(value, sum(exp.stats.cache_hits.values()), code_folder())"
    )
    cache = tmp_path / "cache"
    if home == "not writable":
        cache.write_text("a file where a folder should be")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        value, hit, *store = done.stdout.split()
        assert float(value) == pytest.approx(np.e, rel=1e-6)
        hits.append(int(hit))
    assert hits == ([0, 1] if home == "writable" else [0, 0])
    assert store and Path(store[0]).is_dir() == (home == "writable")
