"""Memory that grows with regions and episodes: the formula of docs/speed.md against allocations of runs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from conftest import SMALL, generators

import dials_mpi
from dials_mpi.algorithm import collect as collecting
from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.evaluation import evaluate_scripted
from dials_mpi.bench.memory import Growth
from dials_mpi.config import load
from dials_mpi.domains import create
from dials_mpi.run import state_exchange

WORDS = ["total_steps=128", "dataset_size=640", "evaluation_episodes=32", "influence.epochs=1", *SMALL[-2:]]


def growth(*words: str) -> Growth:
    config = load(None, [*SMALL, *words])
    return Growth(config, create(config.domain, config.domain_section))


def peak(work: Callable[[], object]) -> int:
    """The most bytes that are allocated at a time while it runs, beside those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "networks",
    [("policy.architecture=fnn", "policy.hidden=[64,64]"), ("influence.architecture=fnn",)],
    ids=["feed-forward policies", "recurrent policies"],
)
def test_what_a_run_allocates_grows_as_the_formula_says(networks, monkeypatch, tmp_path):
    # Of what does not grow, this is larger than these networks.
    monkeypatch.setattr(state_exchange, "BLOCK_BYTES", 1 << 15)
    found, expected = {}, {}
    for side in (1, 6, 9):  # the first loads and compiles what the others need
        words = [*WORDS, *networks, f"warehouse.grid=[{side},{side}]"]
        config, run = load(None, [*SMALL, *words]), tmp_path / str(side)
        found[side] = peak(lambda config=config, run=run: dials_mpi.train(config, run, quiet=True))
        expected[side] = growth(*words).alone()
    assert found[9] - found[6] == pytest.approx(expected[9] - expected[6], rel=0.1)


def test_each_term_by_hand():
    """Two workers with 18 regions each; policies of 37 + 16 x 8 and predictors with 8 + 8 units."""
    own = growth("warehouse.grid=[6,6]", "dataset_size=1280", "policy.architecture=fnn", "collect_chunk=8")
    policy = 4 * (38 * 16 + 17 * 8 + 9 * (own.domain.agents[0].actions + 1))
    predictor = 4 * (3 * 8 * (37 + 8 + 2) + 9 * 8 + 9 * 16)
    memory = 128 * (4 * 37 + 21)
    objects = 8000
    assert own.learners(range(18)) == pytest.approx(18 * (3 * (policy + predictor) + 8 + memory + objects))
    sample = 5 + 4  # 37 bits, 4 sources
    assert own.datasets(range(18)) == 18 * 1280 * sample
    assert own.sent(range(18)) == 18 * max(policy, predictor)
    assert own.worker(range(18)) == own.learners(range(18)) + own.datasets(range(18)) + own.sent(range(18))
    assert own.networks() == 36 * (policy + predictor + objects)
    assert own.collected() == 36 * 8 * 20 * (2 * sample + 5)  # a copy on its way; actions and rewards


def test_what_plays_does_not_grow_with_episodes(monkeypatch):
    """Datasets of an evaluation are held for as many episodes as are played side by side."""
    monkeypatch.setattr(collecting, "AT_ONCE", 8)
    config = load(None, [*SMALL, "warehouse.grid=[4,4]"])
    domain = create(config.domain, config.domain_section)

    def evaluation(episodes: int) -> int:
        return peak(lambda: evaluate_scripted(config, domain, "random", episodes, 0))

    evaluation(8)
    more = 64 * (16 + 20) * 8  # a row of returns for each episode, and the streams of a part
    assert evaluation(72) - evaluation(8) < more


def test_a_collection_grows_with_its_chunk():
    """The formula's chunk is what a collection allocates; test_datasets.py shows that it is one at a time."""
    own = growth("warehouse.grid=[6,6]", "datasets=none")

    def collection(episodes: int) -> int:
        streams = generators(episodes)
        acting = lambda simulator, part: joint.scripted("random", own.domain, simulator, streams[part])  # noqa: E731
        return peak(lambda: collect(own.domain, generators(episodes, 1), acting))

    collection(8)
    assert collection(64) - collection(8) >= own.recorded(56)
