"""Fit the variants to the data of some regions, as a run does at its refits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Region
from dials_mpi.influence.variants import HISTORY, SAMPLES, Variant
from dials_mpi.learning.calibration import Calibration, calibrate, calibration_error, predict
from dials_mpi.learning.influence import Fit, Predictor, fit_anew


class Fitted(NamedTuple):
    """A variant fitted to the data of R regions.

    fits, calibrations: of each region; of the latter one for each source. parameters: of the largest network.
    seconds: of all regions.
    """

    variant: Variant
    fits: Sequence[Fit]
    calibrations: Sequence[Sequence[Calibration]]
    parameters: int
    seconds: float

    @property
    def loss(self) -> float:
        """Mean cross-entropy over the regions on the held-out episodes, nats per source."""
        return float(np.mean([fit.after for fit in self.fits]))

    @property
    def baseline(self) -> float:
        """As ``loss``, of the class frequencies of the episodes that it was fitted to."""
        return float(np.mean([fit.constant for fit in self.fits]))

    @property
    def calibration_error(self) -> float:
        """See ``calibration.calibration_error``, over all regions and sources."""
        return calibration_error([one for region in self.calibrations for one in region])


class Data(NamedTuple):
    """The datasets of some regions; numbers: which ones."""

    numbers: Sequence[int]
    regions: Sequence[Region]
    datasets: Sequence[Dataset]


def fit(variant: Variant, data: Data, seed: int, segment: int = 0) -> Iterator[Fitted | int]:
    """Fit the variant to one region after another; yields a region's number when it is done, at last the
    result.

    The held-out episodes are the same for all variants. With all samples and the run's settings, the result
    is that of the run's own refit at the beginning, to the bit. seed, segment: of the random streams.

    BadInput: the data have fewer samples, or shorter episodes, than the variant wants.
    """
    begun, fits, calibrations, parameters = time.perf_counter(), [], [], 0
    for k, region, dataset in zip(*data, strict=True):
        settings, own = _of_variant(variant, dataset)
        predictor, losses = fit_anew(settings, region, k, (own.inputs, own.sources), seed, segment)
        fits.append(losses)
        held_out = settings.held_out_episodes(len(own.inputs))
        calibrations.append(_calibrations(predictor, own.inputs[-held_out:], own.sources[-held_out:]))
        parameters = max(parameters, len(predictor.vector))
        yield k
    yield Fitted(variant, fits, calibrations, parameters, time.perf_counter() - begun)


def _of_variant(variant: Variant, dataset: Dataset) -> tuple:
    """The settings, and the episodes that they are fitted to, with the held-out ones at the end."""
    episodes, horizon = dataset.inputs.shape[:2]
    held_out = variant.influence.held_out_episodes(episodes)
    train = episodes - held_out
    if variant.samples is not None:
        wanted = -(-variant.samples // horizon)
        if wanted > train:
            raise BadInput(
                f"{SAMPLES}={variant.samples} is more than the {train * horizon} samples per region that are "
                "not held out: give a smaller number, or all"
            )
        train = wanted
    chosen = [*range(train), *range(episodes - held_out, episodes)]
    parts = [_pieces(array[chosen], variant.history) for array in dataset]
    share = held_out / (train + held_out)
    return replace(variant.influence, held_out=share), Dataset(*parts)


def _pieces(episodes: np.ndarray, history: int | None) -> np.ndarray:
    """Episodes [K, T, ...] cut into pieces of so many steps; steps that fill no piece are left out."""
    if history is None:
        return episodes
    number, horizon = episodes.shape[:2]
    if history > horizon:
        raise BadInput(f"{HISTORY}={history} is longer than an episode, which has {horizon} steps: give less")
    whole = horizon // history
    cut = episodes[:, : whole * history]
    return np.ascontiguousarray(cut.reshape(number * whole, history, *episodes.shape[2:]))


def _calibrations(predictor: Predictor, inputs: np.ndarray, sources: np.ndarray) -> list[Calibration]:
    predicted = predict(predictor, inputs, sources)
    classes = predictor.heads.classes
    return [calibrate(predicted[:, :, m, :count], sources[:, :, m]) for m, count in enumerate(classes)]
