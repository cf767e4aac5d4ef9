"""A region's influence predictor beside what happened: along one episode, and over many of them.

Nobody knows the true probability of a source at a step; what is known is which class it then had. So there
are two pictures: the predicted probabilities along one episode with what happened, and, over all episodes,
how often something happens of all times that it was predicted with a certain probability (calibration).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.collect import Dataset, Recorder, parts
from dials_mpi.algorithm.collect import play as play_episodes
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, streams
from dials_mpi.learning.influence import Predictor
from dials_mpi.results.choice import Choice

BINS = 10
"""Of equal width, of predicted probabilities."""

_Z = 1.96  # of a 95 % interval


class Calibration(NamedTuple):
    """Of one source, in each of BINS bins; NaN where nothing was predicted.

    predicted: the mean of the predicted probabilities; observed: the share of them that came true; low, high:
    its 95 % interval; number: how many there are.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    number: np.ndarray


def play(choice: Choice, region: int, episodes: int, seed: int, beat: Callable[[int], None]) -> Dataset:
    """The region's dataset of so many episodes of the global simulator; beat: told of each that is done."""
    domain, numbers, datasets = choice.domain, range(episodes), []
    for here in parts(domain, episodes):
        acting, simulators = (
            streams(seed, purpose, numbers[here], OTHER_EPISODES)
            for purpose in (Purpose.EVALUATION_ACTIONS, Purpose.EVALUATION)
        )
        recorder = Recorder(domain, len(acting), [region])
        play_episodes(
            domain,
            simulators,
            lambda simulator, part, acting=acting: choice.joint_policy(simulator, acting[part]),
            record=recorder,
        )
        datasets += recorder.datasets
        beat(len(acting))
    return Dataset(*(np.concatenate(arrays) for arrays in zip(*datasets, strict=True)))


def predict(predictor: Predictor, inputs: np.ndarray) -> np.ndarray:
    """Probabilities float32 [K, T, M, C] of the sources' classes along K episodes of inputs [K, T, D]."""
    state, predicted = predictor.network.initial_state(len(inputs)), []
    for t in range(inputs.shape[1]):
        probabilities, state = predictor.probabilities(inputs[:, t], state)
        predicted.append(probabilities)
    return np.stack(predicted, axis=1)


def cross_entropies(probabilities: np.ndarray, sources: np.ndarray) -> tuple[float, float]:
    """Of one source, in nats: of the predicted probabilities, and of the frequencies of the classes.

    probabilities: [K, T, C]; sources: int [K, T], the class that it had.
    """
    taken = np.take_along_axis(probabilities, sources[..., None].astype(np.intp), axis=-1)
    frequency = np.bincount(sources.ravel()) / sources.size
    frequency = frequency[frequency > 0]
    return float(-np.log(taken, dtype=np.float64).mean()), float(-(frequency @ np.log(frequency)))


def calibrate(probabilities: np.ndarray, sources: np.ndarray) -> Calibration:
    """Of one source: probabilities [K, T, C] of its classes, and the class that it had, int [K, T].

    Every class counts by itself, of a binary source only the second. The intervals are Wilson's, for as many
    samples as are worth those that there are: the steps of an episode depend on each other, so the variance
    of the observed share is taken over episodes, and where it cannot be had, an episode counts as one sample.
    """
    count = probabilities.shape[2]
    classes = np.arange(1 if count == 2 else 0, count)
    predicted = probabilities[..., classes].astype(np.float64).reshape(len(sources), -1)
    true = (sources[..., None] == classes).reshape(len(sources), -1)
    where = np.minimum((predicted * BINS).astype(int), BINS - 1)
    columns = []
    for k in range(BINS):
        inside = where == k
        number, hits = inside.sum(axis=1), (inside & true).sum(axis=1)
        total = number.sum()
        if not total:
            columns.append((np.nan, np.nan, np.nan, np.nan, 0))
            continue
        share = hits.sum() / total
        low, high = wilson(share, _worth(number, hits))
        columns.append((predicted[inside].mean(), share, low, high, total))
    return Calibration(*(np.array(values) for values in zip(*columns, strict=True)))


def _worth(number: np.ndarray, hits: np.ndarray) -> float:
    """How many independent samples the hits among a number of samples in each episode, [K], are worth."""
    total, share, episodes = number.sum(), hits.sum() / number.sum(), np.count_nonzero(number)
    between = ((hits - share * number) ** 2).sum()
    if episodes < 2 or not between:
        return float(episodes)
    variance = between / total**2 * episodes / (episodes - 1)
    return float(min(total, share * (1 - share) / variance))


def wilson(share: float, number: float) -> tuple[float, float]:
    """The 95 % interval (Wilson's score) of a probability after so many samples, a share of which hit."""
    middle = share + _Z**2 / (2 * number)
    half = _Z * np.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    scale = 1 + _Z**2 / number
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))
