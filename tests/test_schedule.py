"""Global simulators side by side, and beside the training: the same results however the work is shared."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import content, generators, launch, train
from hypothesis import given
from hypothesis import strategies as st
from test_faults import ACTIONS, fail, require_good_end
from test_ranks import differing, results
from test_survive import Session, ranks_of, require_end
from test_train import refused

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import blocks, collect, shares
from dials_mpi.algorithm.division import Division
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.learners import Learners
from dials_mpi.config import Config, load
from dials_mpi.config.schedule import segments
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.timing import Stopwatch
from dials_mpi.domains import create
from dials_mpi.learning.tables import tables, widths
from dials_mpi.parallel.layout import Layout
from dials_mpi.run.global_ranks import GlobalRank
from dials_mpi.storage.checkpoint import present

COMMON = (
    "ppo.anneal=false",  # so that a run's beginning does not depend on its end
    "influence.hidden=[8,8]",
    "influence.epochs=5",
    "influence.learning_rate=0.03",  # so that it matters to the policies what the predictors were fitted to
    "policy.hidden=[16,8]",
)
WAREHOUSE = (
    *COMMON,
    "warehouse.grid=[2,2]",
    "warehouse.horizon=20",
    "total_steps=640",
    "evaluate_every=128",
    "retrain_every=256",
    "dataset_size=760",  # 38 episodes, in 5 blocks
    "evaluation_episodes=20",  # in 3
)
TRAFFIC = (
    *COMMON,
    "domain=traffic",
    "traffic.grid=[2,2]",
    "traffic.horizon=30",
    "total_steps=512",
    "evaluate_every=128",
    "retrain_every=256",
    "dataset_size=540",
    "evaluation_episodes=20",
    "envs_per_region=8",
    "ppo.rollout_steps=16",
    "policy.architecture=fnn",
    "influence.architecture=fnn",
)
DOMAINS = {"warehouse": WAREHOUSE, "traffic": TRAFFIC}
OVERLAPPED = "schedule=overlapped"


def last_checkpoint(directory: Path) -> dict[str, bytes]:
    """All in it but what was measured, and the configuration, whose number of global ranks may differ."""
    everything, other = content(present(directory)[0]), ("config", "unrecorded", "rank")
    return {name: repr(value.tolist()).encode() for name, value in everything.items() if name not in other}


def assert_same(one: Path, other: Path) -> None:
    """Two runs have the same results and the same last checkpoint, to the bit."""
    assert differing(results(one), results(other)) == []
    assert present(one)[0].name == present(other)[0].name
    assert differing(last_checkpoint(one), last_checkpoint(other)) == []


# Global simulators side by side --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "schedule", "ranks", "players"),
    [
        ("warehouse", "synchronous", 4, 2),
        ("warehouse", "synchronous", 5, 3),
        ("warehouse", "overlapped", 3, 1),
        ("warehouse", "overlapped", 5, 2),
        ("warehouse", "overlapped", 6, 5),  # in groups of 1, 2 and 2
        ("traffic", "overlapped", 4, 3),
        pytest.param("traffic", "synchronous", 5, 2, marks=pytest.mark.slow),
        pytest.param("warehouse", "synchronous", 7, 3, marks=pytest.mark.slow),
        pytest.param("warehouse", "overlapped", 4, 3, marks=pytest.mark.slow),
        pytest.param("traffic", "synchronous", 4, 3, marks=pytest.mark.slow),
        pytest.param("traffic", "overlapped", 3, 1, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_global_ranks_gives_the_same_results(trained, domain, schedule, ranks, players):
    settings = (*DOMAINS[domain], f"schedule={schedule}")
    shared = trained(*settings, f"global_ranks={players}", ranks=ranks)
    assert_same(trained(*settings), shared)
    with h5py.File(shared / "run.h5") as run:
        assert run["placement/rank"][:].tolist() == [players + i * (ranks - players) // 4 for i in range(4)]
        played = np.array([run[f"timing/{phase}"][..., 0].sum(axis=0) for phase in ("collect", "evaluate")])
        trained_for = run["timing/train"][..., 0].sum(axis=0)
    assert (played[:, :players] > 0).all() and (played[:, players:] == 0).all()
    assert (trained_for[:players] < 0.1 * trained_for[players:].min()).all()


def test_more_global_ranks_than_blocks_of_episodes(trained):
    """They share the agents."""
    settings = (*WAREHOUSE, "evaluation_episodes=3", "dataset_size=200")
    assert_same(trained(*settings), trained(*settings, "global_ranks=3", ranks=4))


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_training_on_the_global_simulator_is_evaluated_side_by_side(trained, schedule):
    settings = (*WAREHOUSE, "mode=global", f"schedule={schedule}")
    shared = trained(*settings, "global_ranks=2", ranks=3)
    assert_same(trained(*WAREHOUSE, "mode=global"), shared)
    with h5py.File(shared / "run.h5") as run:
        assert run["placement/rank"][:].tolist() == [0] * 4
        assert (run["timing/evaluate"][..., 0].sum(axis=0) > 0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("ranks", "players", "parts"),
    [
        (2, 2, ("2 ranks and global_ranks=2 leave none for the regions", "at least 3 ranks, or one")),
        (3, 5, ("at least 6 ranks, or one", "at most global_ranks=2")),
        (7, 2, ("7 ranks are more than 4 regions and global_ranks=2 can use: start at most 6",)),
    ],
)
def test_ranks_that_cannot_share_the_work_are_refused(tmp_path, ranks, players, parts):
    message = refused(tmp_path, [*WAREHOUSE, f"global_ranks={players}"], ranks)
    assert all(part in message for part in parts)


class Sized:
    """What decides how many episodes are played side by side, and how the agents are shared."""

    def __init__(self, agents: int, side_by_side: int | None) -> None:
        self.agents = self.regions = range(agents)
        self.side_by_side = side_by_side


@given(
    episodes=st.integers(1, 300),
    players=st.integers(1, 12),
    regions=st.integers(1, 50),
    side_by_side=st.one_of(st.none(), st.integers(1, 200)),
)
def test_shares_are_whole_blocks_in_order(episodes, players, regions, side_by_side):
    domain = Sized(regions, side_by_side)
    dealt, found = blocks(domain, episodes), shares(domain, episodes, players)
    assert [e for block in dealt for e in range(episodes)[block]] == list(range(episodes))
    assert [e for share in found for e in range(episodes)[share]] == list(range(episodes))
    assert len(found) == players
    counts = [sum(share.start <= block.start < share.stop for block in dealt) for share in found]
    assert sum(counts) == len(dealt) and max(counts) - min(counts) <= 1
    # A share that is played apart falls into the same blocks.
    for share in found:
        own = [block for block in dealt if share.start <= block.start < share.stop]
        apart = blocks(domain, share.stop - share.start)
        assert [(b.start + share.start, b.stop + share.start) for b in apart] == [
            (b.start, b.stop) for b in own
        ]


@pytest.mark.quick
@given(
    evaluated=st.integers(1, 60),
    collected=st.integers(2, 300),
    players=st.integers(1, 20),
    agents=st.integers(1, 30),
    side_by_side=st.one_of(st.none(), st.integers(1, 200)),
)
def test_each_agent_acts_once_in_each_episode(evaluated, collected, players, agents, side_by_side):
    config = Config(evaluation_episodes=evaluated, dataset_size=collected * Config().domain_section.horizon)
    division = Division(config, Sized(agents, side_by_side), players)
    for episodes in (evaluated, collected):
        acting, recording = np.zeros((episodes, agents), int), np.zeros(episodes, int)
        for rank in range(players):
            share = division.played(episodes)[rank]
            part = division.part(rank, agents)
            acting[share, part.start : part.stop] += 1
            recording[division.recorded(division.played(episodes))[rank]] += 1
            # Those of a group play together, and none is without an agent.
            assert all(division.played(episodes)[other] == share for other in division.group(rank))
            assert part or not division.group(rank)
        assert (acting == 1).all() and (recording == 1).all()
    if side_by_side is None:
        assert all(division.of_groups(episodes)[-1] != slice(0, 0) for episodes in (evaluated, collected))
        blocks_of_8 = -(-evaluated // 8), -(-collected // 8)
        assert len(division.groups) == min(players, *blocks_of_8)
    else:
        assert all(len(group) == 1 for group in division.groups)


@pytest.mark.parametrize("rank", range(4))
def test_a_global_rank_gets_the_networks_that_it_computes(rank):
    """Twelve evaluated episodes are two blocks: two groups of two ranks. Root has all only for callbacks."""
    config = load(None, [*WAREHOUSE, "evaluation_episodes=12", "warehouse.grid=[1,5]", "global_ranks=4"])
    domain = create(config.domain, config.domain_section)
    layout = Layout(rank, 5, [region.agents for region in domain.regions], False, 4)
    group = SimpleNamespace(rank=rank % 2)
    comm = SimpleNamespace(rank=rank, is_root=rank == 0, group=lambda ranks: group)
    own = GlobalRank(config, domain, comm, layout, Stopwatch(), Failures())
    halves = [range(2), range(2, 5)] * 2
    assert own.wanted("policy") == own.wanted("predictor") == halves
    assert (own.partners.agents, own.partners.regions) == (halves[rank], halves[rank])
    own.keeps_policies = True
    wanted = own.wanted("policy")
    assert wanted == [range(5), *halves[1:]]
    rows = np.arange(5)[:, None] * np.ones((5, widths(tables(config, domain))["policy"]), np.float32)
    own.set_parameters("policy", rows[wanted[rank].start : wanted[rank].stop])
    assert [policy.network.vector[0] for policy in own.policies] == list(halves[rank])
    assert own.all_policies is None if rank else np.array_equal(own.all_policies, rows)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_episodes_played_apart_are_the_same_to_the_bit(architecture):
    """With the paper's networks, whose last bits depend on how many rows a product has."""
    config = load(
        None, ["warehouse.grid=[2,2]", "warehouse.horizon=20", f"policy.architecture={architecture}"]
    )
    domain = create(config.domain, config.domain_section)
    width = widths(tables(config, domain))["policy"]
    parameters = np.random.default_rng(5).normal(0, 0.1, (4, width)).astype(np.float32)
    policies, seen = joint.policies(config, domain, parameters), {}

    def play(share, note):
        simulators, actions = generators(23)[share], generators(23, seed=1)[share]

        def policy(_, part):
            trained = joint.TrainedPolicies(policies, actions[part])

            def act(observations):
                chosen = trained(observations)
                note.append(np.concatenate([np.concatenate(own) for own in trained.states], axis=1))
                return chosen

            return act

        return collect(domain, simulators, policy)

    whole = play(slice(0, 23), seen.setdefault("whole", []))
    for share in shares(domain, 23, 2):
        apart = play(share, seen.setdefault(share.start, []))
        assert (apart.returns == whole.returns[share]).all()
        for one, other in zip(apart.datasets, whole.datasets, strict=True):
            assert (one.inputs == other.inputs[share]).all()
        states = [state[share] for state in seen["whole"]]
        assert all(map(np.array_equal, seen[share.start], states)) and len(states) == 20


# While the others train ----------------------------------------------------------------------------------


def test_with_a_single_refit_both_schedules_are_the_same(trained):
    once = (*WAREHOUSE, "total_steps=384", "retrain_every=384")
    ahead = trained(*once, OVERLAPPED, ranks=3)
    assert differing(results(trained(*once)), results(ahead)) == []
    with h5py.File(ahead / "run.h5") as run:
        assert run["evaluation/env_steps"][:].tolist() == [0, 128, 256, 384]
        assert (np.diff(run["evaluation/wall_time"][:]) > 0).all()
        assert run["timing/env_steps"][:].tolist() == [0, 128, 256, 384]
        assert (run["timing/evaluate"][:, 0, 0] > 0).all(), "a row has the evaluation that it belongs to"


class ByHand:
    """The schedule overlapped as a plain loop in one process."""

    def __init__(self, config: Config) -> None:
        domain = create(config.domain, config.domain_section)
        everyone = range(len(domain.regions))
        learners = Learners(config, domain, list(everyone))
        joint_policies, self.evaluations = [], []

        def remember():
            policies, predictors = (
                np.stack([vectors[i].copy() for i in everyone])
                for vectors in map(learners.vectors, ("policy", "predictor"))
            )
            joint_policies.append(policies)
            networks = joint.policies(config, domain, policies), joint.predictors(config, domain, predictors)
            segment = len(self.evaluations)
            self.evaluations.append(evaluate(config, domain, *networks, config.evaluation_episodes, segment))
            return policies, predictors

        for segment in segments(config):
            remember()
            if segment.refit:
                episodes = config.dataset_episodes
                policies = joint.policies(config, domain, joint_policies[max(segment.index - 1, 0)])
                random = streams(config.seed, Purpose.COLLECT_ACTIONS, episodes, segment.index)
                played = collect(
                    domain,
                    streams(config.seed, Purpose.COLLECT, episodes, segment.index),
                    lambda _, part, p=policies, r=random: joint.TrainedPolicies(p, r[part]),
                )
                learners.fit(dict(enumerate(played.datasets)), segment)
            learners.train(segment)
        self.policies, self.predictors = remember()


def test_a_refit_has_data_of_the_joint_policy_one_segment_older(trained):
    expected = ByHand(load(None, [*WAREHOUSE, OVERLAPPED]))
    ahead = results(trained(*WAREHOUSE, OVERLAPPED, ranks=3))
    assert ahead["policy/parameters"] == expected.policies.tobytes()
    assert ahead["predictor/parameters"] == expected.predictors.tobytes()
    returns = np.stack([evaluation.returns for evaluation in expected.evaluations])
    losses = np.stack([evaluation.cross_entropy for evaluation in expected.evaluations])
    assert ahead["evaluation/returns"] == returns.tobytes()
    assert ahead["evaluation/cross_entropy"] == losses.tobytes()
    waited = results(trained(*WAREHOUSE))
    different = differing(ahead, waited)
    assert {"policy/parameters", "predictor/parameters"} <= set(different)
    assert not any(name.endswith("env_steps") or name.startswith("reference") for name in different)


def test_segments_shorter_than_the_time_between_evaluations(trained):
    """Of a joint policy one segment older, not one evaluation."""
    settings = (*WAREHOUSE, OVERLAPPED, "evaluate_every=256", "segment_every=128", "total_steps=768")
    assert_same(trained(*settings), trained(*settings, "global_ranks=2", ranks=4))
    with h5py.File(trained(*settings) / "run.h5") as run:
        assert run["evaluation/env_steps"][:].tolist() == [0, 256, 512, 768]
        assert run["timing/env_steps"][:].tolist() == [0, 256, 512, 768]
        assert run["influence/env_steps"][:].tolist() == [0, 256, 512]


@pytest.mark.parametrize(
    "settings",
    [WAREHOUSE, pytest.param((*TRAFFIC, "total_steps=384"), marks=pytest.mark.slow)],
    ids=list(DOMAINS),
)
def test_an_overlapped_run_goes_on_from_any_segment(trained, tmp_path, settings):
    """After each segment the run ends, and is made longer on other ranks: before a refit too."""
    settings, shapes = (*settings, OVERLAPPED), [(3, 1), (None, 1), (4, 2), (6, 5), (2, 1)]
    whole = int(next(s for s in reversed(settings) if s.startswith("total_steps")).partition("=")[2])
    for k, steps in enumerate(range(128, whole + 1, 128)):
        ranks, players = shapes[k]
        more = (f"total_steps={steps}", f"global_ranks={players}", "--resume", "--output", str(tmp_path))
        result = train(*settings, *more, ranks=ranks)
        assert (result.code, result.stderr) == (0, "")
    assert_same(trained(*settings), tmp_path)


def test_the_policies_that_play_for_the_next_refit_are_in_the_checkpoint(trained):
    directory = trained(*WAREHOUSE, OVERLAPPED, "checkpoint_keep=9")
    held = {}
    for path in present(directory):
        held[int(path.stem.rpartition("-")[2])] = content(path)
    earlier = {steps: "earlier_policy/parameters" in datasets for steps, datasets in held.items()}
    assert earlier == {128: False, 256: True, 384: False, 512: True, 640: False}
    for steps in (256, 512):
        before = held[steps - 128]["policy/parameters"]
        assert (held[steps]["earlier_policy/parameters"] == before).all()
        assert (held[steps]["policy/parameters"] != before).any()


def test_an_overlapped_run_that_is_killed_goes_on(trained, tmp_path):
    settings = (*WAREHOUSE, OVERLAPPED)
    session = Session(tmp_path / "out", *settings, "global_ranks=2", ranks=4)
    session.wait_for(lambda: len(present(tmp_path / "out")) > 1)
    os.kill(ranks_of(session.program)["1"], signal.SIGKILL)
    session.program.wait()
    where = ("--resume", "--output", str(tmp_path / "out"))
    result = train(*settings, *where, ranks=3)
    assert (result.code, result.stderr) == (0, "")
    require_end(tmp_path / "out", trained(*settings))


@pytest.mark.parametrize(
    ("place", "rank", "call", "action"),
    [
        ("play ahead", 0, 3, "raise"),
        ("play ahead", 1, 3, "hang, kill"),
        ("examine", 1, 4, "kill"),
        pytest.param("examine", 0, 6, "vanish", marks=pytest.mark.slow),
        pytest.param("train", 2, 3, "kill", marks=pytest.mark.slow),
        pytest.param("bring", 2, 2, "raise", marks=pytest.mark.slow),
    ],
)
def test_an_overlapped_run_goes_on_after_a_fault(trained, tmp_path, place, rank, call, action):
    settings = (*WAREHOUSE, OVERLAPPED)
    how = (*settings, "global_ranks=2")
    result = fail(tmp_path, place, rank, ACTIONS[action], ranks=4, call=call, settings=how)
    assert result.code not in (2, 75)
    require_good_end(tmp_path / "out", trained(*settings), settings)


def test_the_best_checkpoint_is_known_after_its_evaluation(tmp_path):
    """A checkpoint is written before its policies are evaluated; the best one is kept all the same."""
    settings = (*WAREHOUSE, OVERLAPPED, "ppo.learning_rate=0.02", "total_steps=1280", "checkpoint_keep=1")
    assert train(*settings, "--output", str(tmp_path), ranks=3).code == 0
    with h5py.File(tmp_path / "run.h5") as run:
        steps, means = run["evaluation/env_steps"][:], run["evaluation/returns"][:].mean(axis=(1, 2))
    best = steps[1:-1][means[1:-1].argmax()]  # the last one is evaluated when nothing is removed any more
    kept = [int(path.stem.rpartition("-")[2]) for path in present(tmp_path)]
    assert kept == [1280, best]
    winner = max(kept, key=lambda checkpoint: means[steps == checkpoint])
    said = [
        launch("-m", "dials_mpi.evaluate", str(tmp_path), "--episodes", "3", "--checkpoint", which).stdout
        for which in ("best", str(winner))
    ]
    assert said[0] == said[1] and said[0].startswith("mean return")
