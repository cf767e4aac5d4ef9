"""Random streams: equal keys give equal streams, in any order of calls."""

import itertools

import numpy as np
import pytest
import scipy.stats

from dials_mpi.core.seeding import Purpose, stream, streams

KEYS = list(itertools.product((0, 1, 2**32 - 1), Purpose, (0, 1, 99), (0, 1, 40)))


def first_words(key):
    return tuple(stream(*key).integers(0, 2**63, 4))


@pytest.mark.quick
def test_distinct_keys_give_distinct_streams():
    assert len({first_words(key) for key in KEYS}) == len(KEYS)


@pytest.mark.quick
def test_a_key_gives_the_same_stream_in_any_order_of_calls():
    forwards = {key: first_words(key) for key in KEYS}
    np.random.seed(1)  # noqa: NPY002 - global state must not matter
    backwards = {key: first_words(key) for key in reversed(KEYS)}
    assert forwards == backwards


def test_two_streams_of_one_key_do_not_share_their_position():
    first, second = stream(3, Purpose.ACTIONS, 1, 2), stream(3, Purpose.ACTIONS, 1, 2)
    taken = first.random(10)
    assert np.array_equal(second.random(10), taken)


def test_streams_of_neighbouring_keys_are_uncorrelated():
    neighbours = [
        stream(0, Purpose.SIMULATOR, region, segment) for region in range(10) for segment in range(10)
    ]
    draws = np.stack([one.random(2000) for one in neighbours])
    correlations = np.corrcoef(draws)[np.triu_indices(100, 1)]
    # Correlations of independent streams are normal with deviation 1/sqrt(2000).
    assert scipy.stats.kstest(correlations * np.sqrt(2000), "norm").pvalue > 1e-3


def test_streams_by_number_and_by_range_are_those_of_their_regions():
    for regions in (4, range(4)):
        many = [one.random() for one in streams(5, Purpose.SOURCES, regions, 2)]
        assert many == [stream(5, Purpose.SOURCES, region, 2).random() for region in range(4)]
    assert streams(5, Purpose.SOURCES, range(2, 3), 2)[0].random() == many[2]


@pytest.mark.quick
def test_purposes_keep_their_numbers_so_that_old_runs_can_be_repeated():
    names = ("SIMULATOR", "ACTIONS", "MINIBATCHES", "COLLECT", "EVALUATION", "GLOBAL_TRAINING")
    for name, number in zip(names, (2, 4, 5, 6, 9, 11), strict=True):
        expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, number, 3, 1])))
        assert stream(7, Purpose[name], 3, 1).random() == expected.random()
