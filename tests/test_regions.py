"""Regions that differ in all sizes, and of several agents: who is where, the same results on any ranks."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import unequal_domain
from conftest import SMALL, content, launch, train
from hypothesis import given
from hypothesis import strategies as st
from test_ranks import differing, results
from unequal_domain import AGENTS, REGIONS, Locally, Unequal, UnequalConfig, World

from dials_mpi import config as c
from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.algorithm.learners import TRAINING, Learners
from dials_mpi.config.schedule import segments as segments_of
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Region
from dials_mpi.domains.members import Members
from dials_mpi.parallel.layout import Layout

CONFIG = c.Config(
    domain="unequal_domain:Unequal",
    seed=5,
    total_steps=256,
    evaluate_every=128,
    retrain_every=128,
    dataset_size=100,
    evaluation_episodes=3,
    envs_per_region=8,
    domain_section=UnequalConfig(),
    policy=c.Policy(hidden=(16, 8)),
    influence=c.Influence(hidden=(8, 8), epochs=3),
)
DOMAIN = Unequal(CONFIG.domain_section)


# Who is where --------------------------------------------------------------------------------------------


def some_regions(sizes, seed):
    """Regions of so many agents, whose numbers are dealt out at random."""
    dealt = iter(np.random.default_rng(seed).permutation(sum(sizes)).tolist())
    return [Region(tuple(itertools.islice(dealt, size)), 1, (2,)) for size in sizes]


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 99), data=st.data())
def test_agents_are_on_the_rank_of_their_region(sizes, seed, data):
    regions = some_regions(sizes, seed)
    agents = [region.agents for region in regions]
    size = data.draw(st.integers(1, len(sizes)).map(lambda workers: workers + 1))
    layout = Layout(0, size, agents, on_root=data.draw(st.booleans()))
    assert sorted(i for own in layout.owned["agent"] for i in own) == list(range(sum(sizes)))
    for rank in range(size):
        held = layout.owned["region"][rank]
        assert list(layout.owned["agent"][rank]) == Members(regions).of(held)
    assert Members(regions).numbers(["policy", "predictor"]) == {
        "policy": sum(sizes),
        "predictor": len(sizes),
    }


@pytest.mark.parametrize("agents", [[(0, 1), (1,)], [(0,), (2,)], [(0, 1), ()]])
def test_regions_that_do_not_share_out_the_agents_are_refused(agents):
    with pytest.raises(ValueError, match="the regions hold the agents"):
        Members([Region(own, 1, (2,)) for own in agents])


# The domain of these tests -------------------------------------------------------------------------------


def test_its_local_simulators_repeat_the_whole_under_the_true_sources():
    """Definition 3; without slips, as each draws its own."""
    rng, section = np.random.default_rng(0), replace(CONFIG.domain_section, horizon=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unequal_domain, "SLIP", -1.0)
        world = World(section, [np.random.default_rng(0)] * 6)
        local = Locally(section, [2, 0, 1], 6, [np.random.default_rng(0)] * 3)
        state, own, order = world.reset(), local.reset(), [3, 2, 0, 1]
        for _ in range(60):
            for n, i in enumerate(order):
                assert np.array_equal(own.observations[n], state.observations[i])
            for r, k in enumerate([2, 0, 1]):
                assert np.array_equal(own.inputs[r], state.inputs[k])
            actions = np.stack([rng.integers(agent.actions, size=6) for agent in AGENTS])
            state, sources, paid, _ = world.step(actions)
            own, own_paid, _ = local.step(actions[order], [sources[k] for k in (2, 0, 1)])
            assert np.array_equal(own_paid, paid[order]) and 0 < paid.mean() < 1


# Learning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_by_side", [0, 8, 16, 24])
def test_agents_learn_the_same_together_apart_and_in_groups(side_by_side):
    section = UnequalConfig(side_by_side=side_by_side)
    segment = segments_of(CONFIG)[1]
    whole = Learners(CONFIG, Unequal(section), [0, 1, 2])
    rows = whole.train(segment)
    assert sorted(rows) == [0, 1, 2, 3] and all(len(row) == len(TRAINING) for row in rows.values())
    for k, region in enumerate(REGIONS):
        alone = Learners(CONFIG, DOMAIN, [k])
        assert sorted(alone.agents) == sorted(region.agents) and list(alone.predictors) == [k]
        for i, row in alone.train(segment).items():
            np.testing.assert_array_equal(row, rows[i])
            assert np.array_equal(alone.vectors("policy")[i], whole.vectors("policy")[i])


SETTINGS = (
    *(
        "domain=unequal_domain:Unequal",
        "seed=5",
        "total_steps=256",
        "evaluate_every=128",
        "retrain_every=128",
    ),
    *("dataset_size=100", "evaluation_episodes=3", "envs_per_region=8", "influence.epochs=3"),
    *("influence.hidden=[8,8]", "policy.hidden=[16,8]"),
)


def program(name: str, *arguments: str, ranks: int | None = None):
    path = f"import sys; sys.path.append({str(Path(unequal_domain.__file__).parent)!r}); "
    run = "from importlib import import_module as get; get('dials_mpi.' + sys.argv[1]).main(sys.argv[2:])"
    done = launch("-c", path + run, name, *arguments, ranks=ranks, preloaded=True)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """finished(*settings, ranks=None): the directory of a run of the domain; equal calls share it."""
    runs: dict[tuple, Path] = {}

    def run(*settings: str, ranks: int | None = None) -> Path:
        if (settings, ranks) not in runs:
            directory = tmp_path_factory.mktemp("unequal") / "out"
            program("train", *SETTINGS, *settings, "--output", str(directory), ranks=ranks)
            runs[settings, ranks] = directory
        return runs[settings, ranks]

    return run


def test_a_run_is_what_plain_calls_give(finished):
    """Rows of the file: of agents, in their own order, what is theirs, and of regions what is theirs."""
    learners = Learners(CONFIG, DOMAIN, [0, 1, 2])
    metrics, fits = [], []
    for segment in segments_of(CONFIG):
        networks = networks_of(learners)
        random = streams(5, Purpose.COLLECT_ACTIONS, 5, segment.index)
        played = collect(
            DOMAIN,
            streams(5, Purpose.COLLECT, 5, segment.index),
            lambda _, part, p=networks[0], r=random: joint.TrainedPolicies(p, r[part]),
        )
        fits.append(learners.fit(dict(enumerate(played.datasets)), segment))
        metrics.append(learners.train(segment))
    last = evaluate(CONFIG, DOMAIN, *networks_of(learners), 3, segment=2)
    file = content(finished() / "run.h5")
    assert np.array_equal(file["evaluation/returns"][2], last.returns) and last.returns.shape == (3, 4)
    assert np.array_equal(file["evaluation/cross_entropy"][2], last.cross_entropy)
    assert file["evaluation/cross_entropy"].shape == (3, 3)
    assert file["influence/cross_entropy_after"].shape == (2, 3)
    assert file["placement/rank"].tolist() == [0, 0, 0]
    for s in range(2):
        for i in range(4):
            row = [file[f"training/{name}"][s, i] for name in TRAINING]
            np.testing.assert_array_equal(row, metrics[s][i])
        for k in range(3):
            assert file["influence/cross_entropy_after"][s, k] == fits[s][k].after
    for kind in ("policy", "predictor"):
        vectors = learners.vectors(kind)
        assert len(file[f"{kind}/parameters"]) == len(vectors)
        for row, number, table in zip(
            file[f"{kind}/parameters"], vectors, file[f"{kind}/table_of"], strict=True
        ):
            vector = vectors[number]
            assert np.array_equal(row[: len(vector)], vector) and not row[len(vector) :].any()
            shapes = json.loads(file[f"{kind}/tables"][table])
            assert sum(np.prod(shape, dtype=int) for _, shape in shapes) == len(vector)


def networks_of(learners):
    """Copies of all policies and predictors."""
    config, domain = learners.config, learners.domain
    rows = [
        [vectors[number].copy() for number in sorted(vectors)]
        for vectors in map(learners.vectors, ("policy", "predictor"))
    ]
    return joint.policies(config, domain, rows[0]), joint.predictors(config, domain, rows[1])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_unequal_regions_give_the_same_results_at_any_number_of_ranks(finished, ranks):
    assert differing(results(finished()), results(finished(ranks=ranks))) == []


@pytest.mark.parametrize("mode", ["global", "untrained"])
def test_so_do_the_other_modes(finished, mode):
    assert differing(results(finished(f"mode={mode}")), results(finished(f"mode={mode}", ranks=3))) == []


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_unequal_regions_go_on_from_a_checkpoint_on_other_ranks(finished, tmp_path, schedule):
    settings = ("total_steps=512", f"schedule={schedule}", "ppo.anneal=false", "checkpoint_keep=9")
    how = (*SETTINGS, *settings, "--output", str(tmp_path))
    program("train", *how, "total_steps=256", ranks=3)
    with h5py.File(tmp_path / "checkpoint-256.h5") as file:
        assert file["policy/first_moment"].shape[0] == 4 and file["predictor/first_moment"].shape[0] == 3
        assert ("earlier_policy/parameters" in file) == (schedule == "overlapped")
    program("train", *how, "--resume", ranks=4)
    assert differing(results(finished(*settings)), results(tmp_path)) == []


def test_a_run_of_unequal_regions_is_evaluated_by_agent(finished, tmp_path):
    directory, figures = finished(), tmp_path / "figures.json"
    said = program("evaluate", str(directory), "--episodes", "3", "--json", str(figures)).stdout
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == [f"agent {i}" for i in range(4)]
    found = json.loads(figures.read_text())
    assert len(found["returns_by_agent"]) == 4 and len(found["cross_entropy_by_region"]) == 3


# Blocks --------------------------------------------------------------------------------------------------

BLOCKS = {
    "warehouse": (*SMALL, "warehouse.grid=[2,4]", "warehouse.block=[2,2]"),
    "traffic": (
        *(setting for setting in SMALL if not setting.startswith("warehouse")),
        *("domain=traffic", "traffic.grid=[2,4]", "traffic.block=[1,2]", "traffic.horizon=20"),
    ),
}


@pytest.mark.parametrize("domain", BLOCKS)
def test_blocks_give_the_same_results_at_any_number_of_ranks(trained, domain):
    regions = 2 if domain == "warehouse" else 4
    alone = trained(*BLOCKS[domain])
    with h5py.File(alone / "run.h5") as file:
        assert file["evaluation/returns"].shape[2] == file["training/entropy"].shape[1] == 8
        assert file["evaluation/cross_entropy"].shape[1] == len(file["placement/rank"]) == regions
        assert len(file["policy/parameters"]) == 8 and len(file["predictor/parameters"]) == regions
    for ranks in (2, 3):
        assert differing(results(alone), results(trained(*BLOCKS[domain], ranks=ranks))) == []


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_blocks_go_on_from_a_checkpoint_on_other_ranks(trained, tmp_path, schedule):
    settings = (*BLOCKS["warehouse"], f"schedule={schedule}", "ppo.anneal=false")
    how = ("--output", str(tmp_path))
    assert train(*settings, *how, ranks=3).code == 0
    assert train(*settings, "total_steps=512", *how, "--resume", ranks=1).code == 0
    assert differing(results(trained(*settings, "total_steps=512")), results(tmp_path)) == []


def test_blocks_change_how_agents_learn_and_neither_who_they_are_nor_where_they_act(trained):
    settings = (*SMALL, "warehouse.ring=false")
    block, apart = (
        content(trained(*settings, f"warehouse.block={block}") / "run.h5") for block in ("[2,2]", "[1,1]")
    )
    assert np.array_equal(block["evaluation/returns"][0], apart["evaluation/returns"][0])
    assert np.array_equal(block["reference/oldest"], apart["reference/oldest"])
    assert block["policy/parameters"].shape == apart["policy/parameters"].shape
    assert not np.array_equal(block["policy/parameters"], apart["policy/parameters"])
