"""How good predicted probabilities are: cross-entropy and calibration on observed sources.

The true probabilities of a source at a step are not known, only the class that it had. The calibration
compares the observed frequency of each class with its predicted probability, over many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.learning.influence import Predictor

BINS = 10
"""Bins of the predicted probabilities, of equal width."""

_Z = 1.96  # standard deviations of a 95 % interval


class Calibration(NamedTuple):
    """Calibration of one source: arrays [BINS], NaN in bins without predictions.

    predicted: the mean of the predicted probabilities; observed: the observed frequency; low, high: its 95 %
    interval; number: the number of predictions.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    number: np.ndarray


def predict(predictor: Predictor, inputs: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Probabilities float32 [K, T, M, C] of the sources' classes along K episodes of inputs [K, T, D].

    sources [K, T, M]: those observed; autoregressive heads predict each from those before it.
    """
    state, predicted = predictor.network.initial_state(len(inputs)), []
    for t in range(inputs.shape[1]):
        probabilities, state = predictor.probabilities(inputs[:, t], state, sources[:, t])
        predicted.append(probabilities)
    return np.stack(predicted, axis=1)


def cross_entropies(probabilities: np.ndarray, sources: np.ndarray) -> tuple[float, float]:
    """Cross-entropies of one source in nats: of the predictor, and of the baseline, the class frequencies.

    probabilities: [K, T, C]; sources: int [K, T], the observed classes.
    """
    taken = np.take_along_axis(probabilities, sources[..., None].astype(np.intp), axis=-1)
    frequency = np.bincount(sources.ravel()) / sources.size
    frequency = frequency[frequency > 0]
    return float(-np.log(taken, dtype=np.float64).mean()), float(-(frequency @ np.log(frequency)))


def calibrate(probabilities: np.ndarray, sources: np.ndarray) -> Calibration:
    """The calibration of one source; probabilities: [K, T, C]; sources: int [K, T], the observed classes.

    Each class counts separately, of a binary source only the second. The intervals are Wilson's with the
    effective number of samples: the steps of an episode depend on each other, so the variance of the observed
    frequency is estimated over episodes; where that is not possible, an episode counts as one sample.
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
        low, high = wilson(share, _effective_samples(number, hits))
        columns.append((predicted[inside].mean(), share, low, high, total))
    return Calibration(*(np.array(values) for values in zip(*columns, strict=True)))


def _effective_samples(number: np.ndarray, hits: np.ndarray) -> float:
    """The effective number of independent samples; number, hits: samples and hits in each episode, [K]."""
    total, share, episodes = number.sum(), hits.sum() / number.sum(), np.count_nonzero(number)
    between = ((hits - share * number) ** 2).sum()
    if episodes < 2 or not between:
        return float(episodes)
    variance = between / total**2 * episodes / (episodes - 1)
    return float(min(total, share * (1 - share) / variance))


def wilson(share: float, number: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a probability; share: the hits in ``number`` samples."""
    middle = share + _Z**2 / (2 * number)
    half = _Z * np.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    scale = 1 + _Z**2 / number
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def calibration_error(calibrations: Sequence[Calibration]) -> float:
    """The mean distance between predicted probability and observed frequency over all predictions.

    A constant prediction of the class frequencies has none: it says that a predictor's probabilities can be
    trusted, not that they are useful.
    """
    number = np.concatenate([one.number for one in calibrations])
    distance = np.concatenate([np.abs(one.predicted - one.observed) for one in calibrations])
    known = number > 0
    return float((distance[known] * number[known]).sum() / number[known].sum())
