"""Playing: data collection, joint policies, the IALS and the learners, on small made-up domains."""

import numpy as np
import pytest
import scipy.stats
import torch
from conftest import generators
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_twin import TorchTwin

from dials_mpi import config as c
from dials_mpi.algorithm import collect as collecting
from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.failures import MOST_IN_A_ROW, Failures
from dials_mpi.algorithm.ials import IALS, GlobalEnvironment, Outcome
from dials_mpi.algorithm.learners import TRAINING, Learners, NonFinite
from dials_mpi.algorithm.returns import EpisodeReturns
from dials_mpi.config.schedule import segments as segments_of
from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, SimulatorFailure, State, Statistic
from dials_mpi.learning import tables as parameter_tables
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.learning.ppo import PPO

# Regions of one agent that differ in everything.
AGENTS = (Agent(3, 2), Agent(4, 5), Agent(2, 3))
REGIONS = (
    Region((0,), input_size=2, source_classes=(2,), input_type="float32"),
    Region((1,), input_size=3, source_classes=(3, 2), input_type="float32"),
    Region((2,), input_size=1, source_classes=(4, 4), input_type="uint8"),
)
HORIZON = 10


def drawn(probabilities, uniform):
    """The class whose share of [0, 1) holds the uniform."""
    return int(np.searchsorted(np.cumsum(probabilities)[:-1], uniform, side="right"))


# --- a deterministic world: every region counts modulo 7, its left neighbour is its influence ---


def observation(i, position, t):
    return np.array(
        [position / 7, t / HORIZON, i - 1, 0.5 * position][: AGENTS[i].observation_size], np.float32
    )


def predictor_input(i, position, t):
    if REGIONS[i].input_type == "uint8":  # bits
        return np.array([(position + t) % 2][: REGIONS[i].input_size], np.uint8)
    return np.array([position + 10 * t, i, -position][: REGIONS[i].input_size], np.float32)


def sources_of(i, positions, actions):
    left = i - 1
    return [(positions[left] + actions[left] + m) % n for m, n in enumerate(REGIONS[i].source_classes)]


def moved(i, position, action, sources):
    return (3 * position + action + 2 * sum(sources) + i) % 7


class World:
    """The global simulator of some episodes: number e begins with region i at position (e + 2 i) mod 7."""

    def __init__(self, numbers):
        self.numbers, self.episodes = numbers, len(numbers)

    def reset(self, where=None, elapsed=None):
        self.t = 0
        self.positions = np.array([[(e + 2 * i) % 7 for e in self.numbers] for i in range(3)])
        return self.state()

    def statistics(self):
        return {"last_position": self.positions.sum(0).astype(float)}

    def state(self):
        seen, inputs = (
            [np.stack([of(i, self.positions[i, e], self.t) for e in range(self.episodes)]) for i in range(3)]
            for of in (observation, predictor_input)
        )
        return State(seen, inputs)

    def step(self, actions):
        sources = [
            np.array([sources_of(i, self.positions[:, e], actions[:, e]) for e in range(self.episodes)])
            for i in range(3)
        ]
        self.positions = np.array(
            [
                [moved(i, self.positions[i, e], actions[i, e], sources[i][e]) for e in range(self.episodes)]
                for i in range(3)
            ]
        )
        self.t += 1
        done = np.full(self.episodes, self.t == HORIZON)
        return GlobalStep(self.state(), sources, self.positions.astype(np.float32), done)


class WorldDomain:
    """Its episodes' streams are their numbers."""

    name, horizon, agents, regions, hand_coded = "world", HORIZON, AGENTS, REGIONS, ()
    statistics = (Statistic("last_position", "cells", "sum over the regions at the end"),)
    side_by_side = None

    def global_simulator(self, numbers):
        return World(numbers)


def lone_episode(e, choose):
    """Episode e by itself in plain loops; choose(i, observation) -> action."""
    positions = [(e + 2 * i) % 7 for i in range(3)]
    inputs, sources, returns = [[] for _ in range(3)], [[] for _ in range(3)], np.zeros(3)
    for t in range(HORIZON):
        actions = choose([observation(i, positions[i], t) for i in range(3)])
        acted = [sources_of(i, positions, actions) for i in range(3)]
        for i in range(3):
            inputs[i].append(predictor_input(i, positions[i], t))
            sources[i].append(acted[i])
        positions = [moved(i, positions[i], actions[i], acted[i]) for i in range(3)]
        returns += positions
    return inputs, sources, returns


def assert_trajectories(ours, choosers):
    for e, choose in enumerate(choosers):
        inputs, sources, returns = lone_episode(e, choose)
        for i, region in enumerate(REGIONS):
            assert ours.datasets[i].inputs.dtype == region.input_type
            assert ours.datasets[i].sources.dtype == np.uint8
            assert np.array_equal(ours.datasets[i].inputs[e], inputs[i])
            assert np.array_equal(ours.datasets[i].sources[e], sources[i])
        assert np.array_equal(ours.returns[e], returns)


# --- collect and joint policies ---


@pytest.mark.quick
def test_a_dataset_pairs_the_input_before_a_step_with_the_sources_of_that_step():
    episodes = 4
    script = np.random.default_rng(0).integers(2, size=(HORIZON, 3, episodes))
    steps = iter(script)
    ours = collect(WorldDomain(), range(episodes), lambda simulator, part: lambda seen: next(steps))

    def chooser(e):
        mine = iter(script[:, :, e])
        return lambda observations: next(mine)

    assert len(ours.datasets) == 3 and ours.returns.shape == (episodes, 3)
    assert_trajectories(ours, [chooser(e) for e in range(episodes)])


def made_policies(architecture, seed=0):
    config = c.Policy(architecture, (9, 7), 8)
    made = [Policy(config, agent) for agent in AGENTS]
    for i, policy in enumerate(made):
        policy.network.initialise(np.random.default_rng([seed, i]))
        policy.network.vector[:] *= 3
    return made


def lone_policy(policies, stream):
    """One episode's agents by torch twins: a state each, one uniform each and step from the stream."""
    twins = [TorchTwin(policy.network) for policy in policies]
    states = [torch.zeros(1, policy.network.state_size, dtype=torch.float64) for policy in policies]

    def choose(observations):
        uniforms, actions = stream.random(len(policies), dtype=np.float32), []
        for i, (twin, seen) in enumerate(zip(twins, observations, strict=True)):
            with torch.no_grad():
                outputs, states[i] = twin.step(torch.from_numpy(seen)[None].double(), states[i])
            actions.append(drawn(outputs[0, :-1].softmax(-1).numpy(), uniforms[i]))
        return actions

    return choose


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_trained_policies_act_in_every_episode_as_if_it_were_played_alone(architecture):
    policies, episodes = made_policies(architecture), 5
    streams = generators(episodes)
    ours = collect(
        WorldDomain(), range(episodes), lambda _, part: joint.TrainedPolicies(policies, streams[part])
    )
    assert len({tuple(dataset) for dataset in ours.datasets[1].inputs[:, :, 0]}) > 1
    assert_trajectories(ours, [lone_policy(policies, stream) for stream in generators(episodes)])


def lone_greedy(policies):
    """One episode's agents by torch twins, each with its most probable action."""
    twins = [TorchTwin(policy.network) for policy in policies]
    states = [torch.zeros(1, policy.network.state_size, dtype=torch.float64) for policy in policies]

    def choose(observations):
        actions = []
        for i, (twin, seen) in enumerate(zip(twins, observations, strict=True)):
            with torch.no_grad():
                outputs, states[i] = twin.step(torch.from_numpy(seen)[None].double(), states[i])
            actions.append(int(outputs[0, :-1].argmax()))
        return actions

    return choose


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_greedy_policies_take_the_most_probable_action_in_every_episode(architecture):
    policies, episodes = made_policies(architecture), 11
    ours = collect(
        WorldDomain(),
        range(episodes),
        lambda _, part: joint.GreedyPolicies(policies, part.stop - part.start),
    )
    assert_trajectories(ours, [lone_greedy(policies) for _ in range(episodes)])


def same_trajectories(one, other):
    same = [np.array_equal(x.inputs, y.inputs) for x, y in zip(one.datasets, other.datasets, strict=True)]
    same += [np.array_equal(x.sources, y.sources) for x, y in zip(one.datasets, other.datasets, strict=True)]
    same += [np.array_equal(one.statistics[name], other.statistics[name]) for name in one.statistics]
    return all(same) and np.array_equal(one.returns, other.returns)


def test_episodes_that_are_played_in_parts_are_the_same(monkeypatch):
    whole = collected(WorldDomain(), episodes=21)
    monkeypatch.setattr(collecting, "AT_ONCE", 8)
    assert len(collecting.parts(WorldDomain(), 21)) == 3
    assert same_trajectories(collected(WorldDomain(), episodes=21), whole)


def collected(domain, episodes=7, failures=None):
    streams, policies = generators(episodes), made_policies("gru")
    maker = lambda _, part: joint.TrainedPolicies(policies, streams[part])  # noqa: E731
    return collect(domain, range(episodes), maker, failures)


@pytest.mark.parametrize("side_by_side", [1, 3, 6, 8, 9, 1000])
def test_episodes_that_are_played_in_parts_are_those_played_all_at_once(side_by_side):
    class Parted(WorldDomain):
        def global_simulator(self, numbers):
            sizes.append(len(numbers))
            return World(numbers)

    sizes, domain = [], Parted()
    domain.side_by_side = side_by_side
    ours = collected(domain)
    at_once = min(7, max(1, side_by_side // 3))
    assert max(sizes) == at_once and sum(sizes) == 7 and len(sizes) == -(-7 // at_once)
    assert ours.statistics["last_position"].shape == (7,)
    assert same_trajectories(ours, collected(WorldDomain()))


class Breaking(WorldDomain):
    """Its simulators break down in these calls of step, counted over all of them."""

    side_by_side = 6

    def __init__(self, calls):
        self.calls, self.count, self.began = calls, 0, []

    def global_simulator(self, numbers):
        self.began.append(list(numbers))
        world = World(numbers)
        step = world.step

        def breaking(actions):
            self.count += 1
            if self.count in self.calls:
                raise SimulatorFailure("it broke")
            return step(actions)

        world.step = breaking
        return world


def test_only_the_episodes_in_a_broken_simulator_are_played_again(capsys):
    failures, domain = Failures(rank=4), Breaking({HORIZON + 3, HORIZON + 5})
    ours = collected(domain, failures=failures)
    assert domain.began == [[0, 1], [2, 3], [2, 3], [2, 3], [4, 5], [6]]
    whole = collected(WorldDomain())
    assert np.array_equal(ours.returns[[0, 1, 4, 5, 6]], whole.returns[[0, 1, 4, 5, 6]])
    assert (failures.take(), failures.take()) == (2, 0)
    assert capsys.readouterr().err.count("rank 4: it broke; its episodes are dropped") == 2


def test_a_simulator_that_keeps_breaking_down_ends_the_run():
    with pytest.raises(RuntimeError, match=f"failed {MOST_IN_A_ROW + 1} times in a row"):
        collected(Breaking(range(1, 1000)))
    # Not in a row: every part of the episodes gets through at last.
    calls = {1, 2, 3, HORIZON + 4, HORIZON + 5, HORIZON + 6}
    failures = Failures()
    collected(Breaking(calls), failures=failures)
    assert failures.take() == 6


def test_policies_and_predictors_share_the_rows_of_a_padded_matrix():
    config = c.Config(policy=c.Policy("gru", (9, 7), 8), influence=c.Influence(hidden=(6, 5)))
    tables = parameter_tables.tables(config, WorldDomain())
    for many, kind in ((joint.policies, "policy"), (joint.predictors, "predictor")):
        sizes = [sum(np.prod(shape, dtype=int) for _, shape in table) for table in tables[kind]]
        assert parameter_tables.widths(tables)[kind] == max(sizes)
        rows = np.random.default_rng(0).normal(size=(3, max(sizes) + 2)).astype(np.float32)
        for made, row, length in zip(many(config, WorldDomain(), rows), rows, sizes, strict=True):
            assert np.array_equal(made.network.vector, row[:length])
            row[0] = 7.5
            assert made.network.parameters["gru.weight_ih"][0, 0] == 7.5
    assert sizes[0] == 3 * 6 * (2 + 6 + 2) + 5 * (6 + 1) + 1 * (5 + 1)


def test_the_random_policy_picks_each_of_an_agents_actions_equally_often_in_every_episode():
    policy = joint.RandomPolicy(AGENTS, generators(2))
    actions = np.stack([policy([]) for _ in range(6000)])
    assert actions.shape == (6000, 3, 2)
    for i, agent in enumerate(AGENTS):
        for e in range(2):
            counts = np.bincount(actions[:, i, e], minlength=agent.actions)
            assert len(counts) == agent.actions and scipy.stats.chisquare(counts).pvalue > 1e-3
    other = joint.RandomPolicy(AGENTS, generators(1))
    assert np.array_equal(np.stack([other([]) for _ in range(50)])[:, :, 0], actions[:50, :, 0])


# --- IALS ---


class RandomLocal:
    """Local simulators whose observations and inputs are random, one stream per region; reward i + 1.

    Keeps the sources, actions, restarts and clocks that it is given.
    """

    def __init__(self, regions, environments, streams):
        self.regions, self.environments, self.streams = regions, environments, streams
        self.sources, self.actions, self.restarts = [], [], []

    def state(self):
        seen, inputs = [], []
        for i, stream in zip(self.regions, self.streams, strict=True):
            region = REGIONS[i]
            size = self.environments, AGENTS[i].observation_size
            seen.append(stream.normal(size=size).astype(np.float32))
            drawn = 2 * stream.normal(size=(self.environments, region.input_size))
            inputs.append(drawn > 0 if region.input_type == "uint8" else drawn)
            inputs[-1] = inputs[-1].astype(region.input_type)
        return State(seen, inputs)

    def reset(self, where=None, elapsed=None):
        self.restarts.append((None if where is None else where.copy(), elapsed))
        if where is None:
            self.clocks = np.zeros(self.environments, int) if elapsed is None else np.array(elapsed)
            self.last = self.state()
            return self.last
        self.clocks[where] = 0
        fresh = self.state()
        self.last = State(
            *(
                [np.where(where[:, None], *pair) for pair in zip(*parts, strict=True)]
                for parts in zip(fresh, self.last, strict=True)
            )
        )
        return self.last

    def step(self, actions, sources):
        self.actions.append(np.array(actions))
        self.sources.append([np.array(part) for part in sources])
        self.clocks += 1
        self.last = self.state()
        rewards = np.repeat(np.array(self.regions, np.float32)[:, None] + 1, self.environments, 1)
        return LocalStep(self.last, rewards, self.clocks == HORIZON)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_sources_are_drawn_given_the_history_of_the_present_episode_of_each_environment(architecture):
    environments, config = 3, c.Influence(architecture, (9, 7))
    predictors = [Predictor(config, region) for region in REGIONS]
    for i, predictor in enumerate(predictors):
        predictor.network.initialise(np.random.default_rng(i))
        predictor.network.vector[:] *= 2
    simulator = RandomLocal((0, 1, 2), environments, generators(3, seed=1))
    ials = IALS(simulator, predictors, environments, generators(3, seed=2))
    assert ials.reset(elapsed=np.array([0, 4, 7])) is simulator.last.observations
    twins, streams = [TorchTwin(predictor.network) for predictor in predictors], generators(3, seed=2)
    histories = [[[] for _ in range(environments)] for _ in REGIONS]
    seen = set()
    for step in range(40):
        for i, region in enumerate(REGIONS):
            for e in range(environments):
                x = simulator.last.inputs[i][e].astype(np.float64)
                histories[i][e].append(2 * x - 1 if region.input_type == "uint8" else x)
        actions = np.full((3, environments), step)
        outcome = ials.step(actions)
        assert np.array_equal(simulator.actions[-1], actions)
        assert outcome.observations is simulator.last.observations
        for i, region in enumerate(REGIONS):
            uniforms = streams[i].random((environments, len(region.source_classes)), dtype=np.float32)
            for e in range(environments):
                x = torch.from_numpy(np.stack(histories[i][e])).unsqueeze(1)
                state = torch.zeros(1, predictors[i].network.state_size)
                outputs = twins[i](x, state)[-1, 0].detach()
                start = 0
                for m, count in enumerate(region.source_classes):
                    width = 1 if count == 2 else count
                    logits = outputs[start : start + width]
                    logits = torch.cat([torch.zeros(1).double(), logits]) if count == 2 else logits
                    expected = drawn(logits.softmax(-1).numpy(), uniforms[e, m])
                    assert simulator.sources[-1][i][e, m] == expected
                    seen.add((i, m, expected))
                    start += width
        if outcome.done.any():
            ials.reset(where=outcome.done)
            for i in range(3):
                for e in np.flatnonzero(outcome.done):
                    histories[i][e].clear()
    assert len(seen) == sum(sum(region.source_classes) for region in REGIONS)
    assert np.array_equal(simulator.restarts[0][1], [0, 4, 7])
    assert [where.tolist() for where, _ in simulator.restarts[1:4]] == np.eye(3, dtype=bool)[::-1].tolist()


def test_the_global_environment_hands_the_simulators_steps_through():
    environment, world = GlobalEnvironment(World(range(2))), World(range(2))
    seen, expected = environment.reset(), world.reset().observations
    for step in range(HORIZON):
        assert all(np.array_equal(*pair) for pair in zip(seen, expected, strict=True))
        actions = np.full((3, 2), step % 2)
        (seen, rewards, done), ((expected, _), _, wanted, _) = environment.step(actions), world.step(actions)
        assert np.array_equal(rewards, wanted) and done.tolist() == [step == HORIZON - 1] * 2


# --- learners ---


class RandomDomain:
    """Regions without dynamics; it keeps the last local simulator it made."""

    name, horizon, agents, regions, hand_coded = "random", HORIZON, AGENTS, REGIONS, ()
    statistics, side_by_side = (), None

    def local_simulator(self, regions, environments, streams):
        self.made = RandomLocal(tuple(regions), environments, streams)
        return self.made


CONFIG = c.Config(
    mode="untrained",
    seed=3,
    total_steps=320,
    evaluate_every=64,
    envs_per_region=4,
    policy=c.Policy("gru", (8, 6), 4),
    ppo=c.PPO(memory_size=32, rollout_steps=4, minibatch_size=8),
    influence=c.Influence(hidden=(6, 5), epochs=2, batch_size=4),
)
SEGMENT = segments_of(CONFIG)[3]


def trained(regions, segments=(SEGMENT,)):
    learners = Learners(CONFIG, RandomDomain(), regions)
    rows = [learners.train(segment) for segment in segments]
    return rows, {i: vector.copy() for i, vector in learners.vectors("policy").items()}


def test_regions_learn_the_same_together_and_apart():
    segments = segments_of(CONFIG)[:2]
    rows, vectors = trained([0, 1, 2], segments)
    for i in range(3):
        own_rows, own_vectors = trained([i], segments)
        assert np.array_equal(own_vectors[i], vectors[i])
        for own, common in zip(own_rows, rows, strict=True):
            np.testing.assert_array_equal(own[i], common[i])


@pytest.mark.parametrize(("side_by_side", "groups"), [(4, 3), (8, 2), (11, 2), (12, 1), (1, 3)])
def test_regions_train_the_same_in_groups_of_the_size_that_the_domain_likes(side_by_side, groups):
    made = []

    class Grouped(RandomDomain):
        def local_simulator(self, regions, environments, streams):
            made.append(regions)
            return super().local_simulator(regions, environments, streams)

    domain = Grouped()
    domain.side_by_side = side_by_side
    learners = Learners(CONFIG, domain, [0, 1, 2])
    rows = learners.train(SEGMENT)
    assert len(made) == groups and [i for regions in made for i in regions] == [0, 1, 2]
    (whole_rows,), whole = trained([0, 1, 2])
    for i in range(3):
        np.testing.assert_array_equal(rows[i], whole_rows[i])
        assert np.array_equal(learners.vectors("policy")[i], whole[i])


class BreakingLocal(RandomLocal):
    """Breaks down in these calls of step, in these (counted from 1) of reset to the beginning."""

    steps, resets, clock = (), (), 0

    def reset(self, where=None, elapsed=None):
        state = super().reset(where, elapsed)
        if where is None and len([1 for mask, _ in self.restarts if mask is None]) in self.resets:
            raise SimulatorFailure("it does not start")
        return state

    def step(self, actions, sources):
        self.clock += 1
        if self.clock in self.steps:
            raise SimulatorFailure("it broke")
        return super().step(actions, sources)


def broken_training(monkeypatch, steps, resets=()):
    monkeypatch.setattr(BreakingLocal, "steps", steps)
    monkeypatch.setattr(BreakingLocal, "resets", resets)

    class Domain(RandomDomain):
        def local_simulator(self, regions, environments, streams):
            self.made = BreakingLocal(tuple(regions), environments, streams)
            return self.made

    domain, updates, update = Domain(), [], PPO.update

    def counted(agent, observations, progress):
        updates.append((progress, agent.t))
        update(agent, observations, progress)

    monkeypatch.setattr(PPO, "update", counted)
    learners = Learners(CONFIG, domain, [0, 2])
    rows = learners.train(SEGMENT)
    return domain.made, learners.failures.take(), rows, updates


def test_training_goes_on_after_a_breakdown_with_full_memories_of_fresh_episodes(monkeypatch):
    length = CONFIG.steps_per_env
    made, failures, rows, updates = broken_training(monkeypatch, {2, length + 5}, resets={2})
    assert failures == 3
    # Two updates of two agents, each of a full memory, as without a breakdown.
    assert updates == [(0.6, length)] * 2 + [(0.7, length)] * 2
    fresh = [elapsed.tolist() for mask, elapsed in made.restarts if mask is None]
    assert fresh == [[0, 2, 5, 7]] * 4
    assert len(made.sources) == 2 * length + 1 + 2
    for i, row in rows.items():
        assert np.isfinite(row[1:]).all()
        # Returns are of episodes that were seen whole after the last new beginning, if there are any.
        assert row[0] == (i + 1) * HORIZON or np.isnan(row[0])


def test_training_ends_when_every_new_simulator_breaks_down_too(monkeypatch):
    with pytest.raises(RuntimeError, match=f"{MOST_IN_A_ROW + 1} times in a row"):
        broken_training(monkeypatch, range(3, 1000))


def test_predictors_fit_the_same_together_and_apart():
    rng = np.random.default_rng(0)
    datasets = {}
    for i, region in enumerate(REGIONS):
        inputs = rng.integers(2, size=(10, HORIZON, region.input_size)).astype(region.input_type)
        datasets[i] = Dataset(inputs, np.empty((10, HORIZON, len(region.source_classes)), np.uint8))
        for m, count in enumerate(region.source_classes):
            datasets[i].sources[..., m] = rng.integers(count, size=(10, HORIZON))

    def fitted(regions):
        learners = Learners(CONFIG, RandomDomain(), regions)
        before = {i: vector.copy() for i, vector in learners.vectors("predictor").items()}
        fits = learners.fit(datasets, SEGMENT)
        return before, fits, learners.vectors("predictor")

    before, fits, after = fitted([0, 1, 2])
    for i in range(3):
        own_before, own_fits, own_after = fitted([i])
        assert own_fits[i] == fits[i]
        assert np.array_equal(own_before[i], before[i]) and np.array_equal(own_after[i], after[i])
        assert not np.array_equal(before[i], after[i])


def test_training_reports_the_return_of_whole_episodes_and_finite_metrics():
    ((rows,), vectors) = trained([0, 2])
    assert set(rows) == set(vectors) == {0, 2}
    for i, row in rows.items():
        assert len(row) == len(TRAINING) and np.isfinite(row).all()
        assert row[0] == (i + 1) * HORIZON


def test_a_segment_starts_at_spread_clocks_and_restarts_an_episode_when_it_is_done():
    domain = RandomDomain()
    Learners(CONFIG, domain, [1, 2]).train(SEGMENT)
    first, *later = domain.made.restarts
    assert first[0] is None and first[1].tolist() == [0, 2, 5, 7]
    steps = SEGMENT.updates * CONFIG.steps_per_env
    clocks, expected = first[1].copy(), []
    for _ in range(steps):
        clocks += 1
        if (clocks == HORIZON).any():
            expected.append((clocks == HORIZON).tolist())
            clocks[clocks == HORIZON] = 0
    assert [where.tolist() for where, _ in later] == expected
    assert len(domain.made.sources) == steps


def test_an_updates_progress_is_its_share_of_the_whole_run(monkeypatch):
    seen = []
    monkeypatch.setattr(
        PPO, "update", lambda self, observations, progress: seen.append(progress) or restart(self)
    )

    def restart(agent):
        agent.t = 0

    Learners(CONFIG, RandomDomain(), [0]).train(SEGMENT)
    assert (SEGMENT.first_update, SEGMENT.updates) == (6, 2) and seen == [0.6, 0.7]


def test_a_rank_without_regions_trains_nothing():
    learners = Learners(CONFIG, RandomDomain(), [])
    assert learners.train(SEGMENT) == {} and learners.fit({}, SEGMENT) == {}


def test_a_metric_that_is_not_finite_is_reported_with_agent_and_segment():
    learners = Learners(CONFIG, RandomDomain(), [0, 2])
    learners.vectors("policy")[2][-1] = np.nan
    with pytest.raises(NonFinite, match="value of agent 2 is not finite in segment 3") as caught:
        learners.train(SEGMENT)
    assert {"rewards", "observations", "policy/first_moment"} <= set(caught.value.arrays)


def test_a_weight_that_is_not_finite_is_reported_even_if_no_metric_shows_it():
    learners = Learners(CONFIG, RandomDomain(), [0, 2])
    network = learners.agents[2].policy.network
    network.parameters["second.bias"][0] = -np.inf  # behind a ReLU: a unit that is off
    with pytest.raises(NonFinite, match="policy/parameters of agent 2 is not finite in segment 3"):
        learners.train(SEGMENT)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    regions=st.integers(1, 3),
    environments=st.integers(1, 4),
    steps=st.integers(0, 30),
    ends=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_episode_returns_agree_with_a_plain_loop(seed, regions, environments, steps, ends):
    rng = np.random.default_rng(seed)
    elapsed = rng.integers(3, size=environments)
    rewards = rng.integers(10, size=(steps, regions, environments)).astype(np.float32)
    done = rng.random((steps, environments)) < ends
    ours = EpisodeReturns(regions, elapsed)
    for t in range(steps):
        ours.add(Outcome(None, rewards[t], done[t]))
    for r in range(regions):
        finished = []
        for e in range(environments):
            start = 0 if elapsed[e] == 0 else None
            for t in range(steps):
                if done[t, e]:
                    if start is not None:
                        finished.append(rewards[start : t + 1, r, e].sum())
                    start = t + 1
        expected = np.mean(finished) if finished else np.nan
        np.testing.assert_allclose(ours.means()[r], expected)
