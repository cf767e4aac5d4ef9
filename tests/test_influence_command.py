"""The command ``influence``: predictors fitted to the kept data of a run, apart from any training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SMALL, content

from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import Purpose, stream
from dials_mpi.influence import picture
from dials_mpi.influence.__main__ import main, verdict
from dials_mpi.influence.fits import Data, Fitted, fit
from dials_mpi.influence.variants import variants
from dials_mpi.learning.calibration import Calibration, calibrate, calibration_error
from dials_mpi.learning.influence import Fit, Predictor
from dials_mpi.results.run import Run

SETTINGS = (*SMALL, "datasets=all", "retrain_every=256")


@pytest.fixture
def run(trained):
    return Run.open(trained(*SETTINGS))


@pytest.fixture
def data(run):
    kept, numbers = run.datasets[0], [1, 3]
    own = [kept.file.region(k) for k in numbers]
    return Data(numbers, [run.domain.regions[k] for k in numbers], [Dataset(*one[:2]) for one in own])


def fitted(run, data, *vary: str) -> list[Fitted]:
    return [list(fit(variant, data, run.config.seed))[-1] for variant in variants(run.config, vary)]


@pytest.mark.quick
def test_the_run_s_own_fit_is_repeated_to_the_bit(run, data):
    (own,) = fitted(run, data)
    recorded = content(run.recorded.path)
    for place, k in enumerate(data.numbers):
        for name in Fit._fields:
            found = recorded[f"influence/cross_entropy_{name}"][0, k]
            assert getattr(own.fits[place], name) == found, (k, name)


def test_all_combinations_are_compared(run):
    found = variants(
        run.config, ["influence.architecture=fnn,gru", "influence.hidden=[8,8],[16,8]", "samples=20,all"]
    )
    assert len(found) == 8 and {one.influence.architecture for one in found} == {"fnn", "gru"}
    assert {one.influence.hidden for one in found} == {(8, 8), (16, 8)}
    assert {one.samples for one in found} == {20, None}
    assert found[0].name == "architecture fnn, hidden [8, 8], samples 20"


def test_fewer_samples_and_the_same_held_out_episodes(run, data):
    """5 episodes of 20 steps, one held out: 30 samples are the first two episodes."""
    (own,) = fitted(run, data, "samples=30")
    for place, k in enumerate(data.numbers):
        inputs, sources = (array[[0, 1, 4]] for array in data.datasets[place])
        predictor = Predictor(run.config.influence, data.regions[place], trainable=True)
        predictor.network.initialise(stream(run.config.seed, Purpose.PREDICTOR_INITIALISATION, k))
        wanted = predictor.fit(inputs, sources, stream(run.config.seed, Purpose.INFLUENCE_FIT, k, 0))
        assert own.fits[place] == wanted


def test_a_short_history_cuts_the_episodes(run, data):
    """With one step of history a GRU gives each step what it gives the first one of an episode."""
    (one,) = fitted(run, data, "history=1")
    (three,) = fitted(run, data, "history=3")
    assert one.loss != three.loss
    inputs, sources = data.datasets[0]
    singles = Dataset(inputs.reshape(-1, 1, inputs.shape[2]), sources.reshape(-1, 1, sources.shape[2]))
    assert singles.inputs.shape[0] == 100
    again = Data([data.numbers[0]], [data.regions[0]], [singles])
    (own,) = fitted(run, again, "influence.held_out=0.2")  # 20 of 100 pieces: the last episode
    assert own.fits[0] == one.fits[0]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("ppo.clip=0.1,0.2", "has the key 'ppo.clip': give samples, history, or a setting of the predictors"),
        ("samples", "give KEY=VALUE,VALUE"),
        ("samples=0", "samples='0': give whole numbers from 1, or all"),
        ("samples=81", "more than the 80 samples per region"),
        ("history=21", "longer than an episode, which has 20 steps"),
        ("influence.epochs=0", "influence.epochs"),
        ("influence.nothing=1,2", "unknown key influence.nothing"),
        ("samples=" + ",".join(map(str, range(1, 66))), "65 combinations: give at most 64"),
        ("samples=[1", "cannot be read as settings"),
    ],
)
def test_what_cannot_be_varied_is_refused(run, data, vary, message):
    with pytest.raises(BadInput) as caught:
        fitted(run, data, vary)
    assert message in str(caught.value)


def test_the_command(run, tmp_path, capsys):
    words = [str(run.recorded.directory), "influence.epochs=2", "--regions", "0", "2", "--steps", "0"]
    files = ["--out", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--vary", "influence.architecture=fnn,gru", "--vary", "samples=40,all", *files])
    said = capsys.readouterr()
    assert ended.value.code == 0 and "4 of 4: architecture gru, samples all" in said.err
    assert "Means over 2 of 4 regions (0, 2), on the held-out ones of 5 episodes" in said.out
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["samples"] for row in rows] == ["40", "all"] * 2
    for row in rows:
        by_region = [one["after"] for one in row["by_region"].values()]
        assert row["cross_entropy"] == np.mean(by_region) and f"{row['cross_entropy']:.4f}" in said.out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_input_that_cannot_be_used(run, trained, tmp_path, capsys):
    directory = str(run.recorded.directory)
    without = str(trained(*SMALL, "datasets=none"))
    for words, message in (
        ([without], "there are no datasets in"),
        ([str(tmp_path)], "there is no run.h5"),
        ([directory, "--regions", "9"], "--regions has 9: there are 0 to 3"),
        ([directory, "--steps", "7"], "no dataset of 7 steps"),
        ([directory, "--out", "a.txt"], "--out is a.txt"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and message in said and said.count("\n") == 1, words


# What is said of the results -----------------------------------------------------------------------------


def made(after: float, constant: float, **varied: str) -> Fitted:
    (variant,) = variants(
        Run.of_config(None, SMALL).config, [f"{key}={value}" for key, value in varied.items()]
    )
    nothing = Calibration(*(np.zeros(10) for _ in range(5)))
    return Fitted(variant, [Fit(2.0, after, constant)], [[nothing]], 1, 1.0)


def test_the_verdict_names_the_best():
    poor, good = made(0.99, 1.0, samples="10"), made(0.4, 1.0, samples="all")
    assert verdict([poor, good]).startswith("Learnt: the best predictor (samples all) leaves 40%")
    assert verdict([poor]).startswith("Not learnt: the best predictor (samples 10) leaves 99%")


def test_the_calibration_error_is_the_mean_distance():
    """0.8 predicted 10 times and true 6 times; 0.1 predicted 30 times and never true."""
    likely = np.full((10, 1, 2), [0.2, 0.8], np.float32)
    rare = np.full((30, 1, 2), [0.9, 0.1], np.float32)
    observed = np.array([1] * 6 + [0] * 4)[:, None]
    found = [calibrate(likely, observed), calibrate(rare, np.zeros((30, 1), int))]
    assert calibration_error(found) == pytest.approx((10 * 0.2 + 30 * 0.1) / 40, abs=1e-6)
    assert calibration_error([calibrate(likely, np.array([1] * 8 + [0] * 2)[:, None])]) == pytest.approx(
        0, abs=1e-6
    )


def test_the_picture_shows_each_variant(run, data):
    figure = picture.draw(fitted(run, data, "samples=20,all"))
    losses, calibration = figure.axes
    assert [tick.get_text() for tick in losses.get_yticklabels()] == ["samples 20", "samples all"]
    assert len(calibration.collections) == 2
