"""Decisions that last several steps of the simulators, compared with plain loops over these steps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import unequal_domain
from conftest import generators
from test_ranks import differing, results
from test_regions import CONFIG as EACH_STEP
from test_regions import SETTINGS, program
from unequal_domain import AGENTS, REGIONS, Locally, Unequal, UnequalConfig, World

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.decisions import decide, held
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import GlobalEnvironment
from dials_mpi.algorithm.learners import Learners
from dials_mpi.bench.flop import flop_per_agent_step, policy_count, predictor_count
from dials_mpi.bench.subject import WARMING, Subject
from dials_mpi.check import contract, influence, replay, speed
from dials_mpi.check.__main__ import check
from dials_mpi.check.findings import Verdict
from dials_mpi.check.play import play_globally
from dials_mpi.config import load
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.domains import create
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.decisions import decision_steps, decisions_per_episode
from dials_mpi.export.describe import describe_run
from dials_mpi.gym import GlobalEnv, RegionEnv
from dials_mpi.results.run import Run
from dials_mpi.watch.episodes import GlobalEpisode, LocalEpisode

EVERY, HORIZON = 3, 21
SECTION = UnequalConfig(horizon=HORIZON, decision_every=EVERY)
CONFIG = replace(EACH_STEP, domain_section=SECTION, dataset_size=5 * HORIZON)
DOMAIN = Unequal(SECTION)
OVERRIDES = (*SETTINGS, f"unequal.horizon={HORIZON}", f"unequal.decision_every={EVERY}", "dataset_size=105")
FIRST = range(0, HORIZON, EVERY)
"""The first step of each decision."""


class Rule:
    """A joint policy with a state: what it does depends on what it sees, and on how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, observations):
        self.calls += 1
        places = [np.argmax(seen, axis=1) for seen in observations]
        pairs = zip(AGENTS, places, strict=True)
        return np.stack([(place + self.calls) % agent.actions for agent, place in pairs])


def same(ones, others):
    """Compare lists of arrays."""
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


# The two functions ---------------------------------------------------------------------------------------


def test_a_decision_repeats_the_actions_and_adds_the_rewards():
    ours, plain = (World(SECTION, generators(4)) for _ in range(2))
    environment, state = GlobalEnvironment(ours), plain.reset()
    same(environment.reset(), state.observations)
    for number in range(1, HORIZON // EVERY + 1):
        actions = np.stack([np.arange(4) % agent.actions for agent in AGENTS])
        outcome = decide(environment, actions, EVERY)
        rewards = np.zeros((4, 4), np.float32)
        for _ in range(EVERY):
            state, _, paid, done = plain.step(actions)
            rewards += paid
        same(outcome.observations, state.observations)
        same([outcome.rewards, outcome.done], [rewards, done])
        assert outcome.done.tolist() == [number == HORIZON // EVERY] * 4


def test_rewards_in_an_array_that_the_simulator_reuses_are_added_right():
    class Reusing(World):
        paid = np.zeros((4, 2), np.float32)

        def step(self, actions):
            self.paid[:] = 10 * self.paid + 1
            return super().step(actions)._replace(rewards=self.paid)

    environment = GlobalEnvironment(Reusing(SECTION, generators(2)))
    environment.reset()
    assert (decide(environment, np.zeros((4, 2), int), EVERY).rewards == 1 + 11 + 111).all()


def test_a_policy_is_asked_once_per_decision_and_its_actions_are_kept():
    shared = np.zeros((1, 2), int)

    def policy(observations):
        shared[:] = observations
        return shared

    acting, taken = held(policy, EVERY), []
    for t in range(7):
        taken.append(acting(t)[0, 0])
        shared[:] = -1  # as a controller's own array may change while the simulator steps
    assert taken == [0, 0, 0, 3, 3, 3, 6]
    assert held(policy, 1) is policy


def test_a_domain_without_the_attribute_decides_at_every_step():
    from dials_mpi.domains.warehouse import Warehouse, WarehouseConfig

    warehouse = Warehouse(WarehouseConfig(grid=(2, 2), horizon=7))
    assert not hasattr(warehouse, "decision_every")
    assert (decision_steps(warehouse), decisions_per_episode(warehouse)) == (1, 7)
    assert (decision_steps(DOMAIN), decisions_per_episode(DOMAIN)) == (3, 7)


# Collecting ----------------------------------------------------------------------------------------------


def test_collected_episodes_record_every_step():
    rule, made = Rule(), []
    found = collect(DOMAIN, generators(5), lambda *_: made.append(Rule()) or made[-1], with_acts=True)
    world, returns = World(SECTION, generators(5)), np.zeros((4, 5))
    state = world.reset()
    for t in range(HORIZON):
        if t in FIRST:
            actions = rule(state.observations)
        before = state.inputs
        state, sources, rewards, _ = world.step(actions)
        for k, dataset in enumerate(found.datasets):
            same([dataset.inputs[:, t], dataset.sources[:, t]], [before[k], sources[k]])
        same([found.acts.actions[:, t].T, found.acts.rewards[:, t].T], [actions, rewards])
        returns += rewards
    np.testing.assert_array_equal(found.returns.T, returns)
    assert [rule.calls for rule in made] == [rule.calls] == [HORIZON // EVERY]


def test_a_failure_within_a_decision_begins_with_a_new_decision():
    class Once(World):
        steps = 0

        def step(self, actions):
            Once.steps += 1
            if Once.steps == EVERY + 2:
                raise SimulatorFailure("lost")
            return super().step(actions)

    class Failing(Unequal):
        def global_simulator(self, streams):
            return Once(self.config, streams)

    failures, made = Failures(), []
    found = collect(
        Failing(SECTION), generators(2), lambda *_: made.append(Rule()) or made[-1], failures, True
    )
    assert failures.count == 1 and [rule.calls for rule in made] == [2, HORIZON // EVERY]
    for first in FIRST:
        assert (np.ptp(found.acts.actions[:, first : first + EVERY], axis=1) == 0).all()


def test_a_hand_coded_controller_acts_once_per_decision():
    class Counting:
        calls = 0

        def act(self):
            self.calls += 1
            return np.full((4, 2), self.calls % 2)

    class Coded(Unequal):
        hand_coded = ("counting",)

        def controller(self, name, simulator, streams):
            self.made = Counting()
            return self.made

    domain = Coded(SECTION)
    policy = lambda simulator, part: joint.scripted("counting", domain, simulator, generators(2))  # noqa: E731
    acts = collect(domain, generators(2), policy, with_acts=True).acts
    assert domain.made.calls == HORIZON // EVERY
    assert acts.actions[0, :, 0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    contract._check_controllers("hand-coded", domain, 0)
    assert domain.made.calls == HORIZON // EVERY


# Training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", [0, 1])
def test_agents_are_trained_on_what_a_plain_loop_gives(region, monkeypatch):
    """The actions that were taken, each three times, in local simulators put together here."""
    learners, segment = Learners(CONFIG, DOMAIN, [region]), segments(CONFIG)[1]
    agents, envs = REGIONS[region].agents, CONFIG.envs_per_region
    taken, seen, given = [], [], []
    for agent in learners.agents.values():
        monkeypatch.setattr(agent, "act", recording(agent.act, seen, taken))
        monkeypatch.setattr(agent, "observe", recording(agent.observe, given))
    learners.train(segment)

    own = [stream(5, purpose, region, segment.index) for purpose in (Purpose.SIMULATOR, Purpose.SOURCES)]
    local, predictor = Locally(SECTION, [region], envs, own[:1]), learners.predictors[region]
    state, history = local.reset(elapsed=np.array([0, 0, 3, 6, 9, 12, 15, 18])), np.zeros((envs, 8))
    history = predictor.network.initial_state(envs)
    decisions = segment.updates * CONFIG.steps_per_env
    for n in range(decisions):
        here = slice(n * len(agents), (n + 1) * len(agents))
        same([one[0] for one in seen[here]], state.observations)
        actions, rewards = np.stack(taken[here]), np.zeros((len(agents), envs), np.float32)
        for _ in range(EVERY):
            uniforms = own[1].random((envs, len(REGIONS[region].source_classes)), dtype=np.float32)
            sources, history = predictor.sample(state.inputs[0], history, uniforms)
            state, paid, done = local.step(actions, [sources])
            rewards += paid
        for i, (paid, ended, final) in enumerate(given[here]):
            same([paid, ended, final], [rewards[i], done, state.observations[i]])
        if done.any():
            history[done] = 0
            state = local.reset(where=done)
    assert len(taken) == decisions * len(agents) and max(paid.max() for paid, _, _ in given) > 1


def recording(method, arguments, results=None):
    """The method, which keeps copies of its arguments and of its results."""

    def call(*given):
        arguments.append(tuple(np.array(one) for one in given))
        result = method(*given)
        if results is not None:
            results.append(np.array(result))
        return result

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 256 decisions on one rank."""
    directory = tmp_path_factory.mktemp("decisions") / "out"
    program("train", *OVERRIDES, "ppo.anneal=false", "--output", str(directory))
    return directory


def test_a_run_is_the_same_on_three_ranks_and_resumed(run, tmp_path):
    how = (*OVERRIDES, "ppo.anneal=false", "--output", str(tmp_path))
    program("train", *how, "total_steps=128", ranks=3)
    program("train", *how, "--resume", ranks=3)
    assert differing(results(run), results(tmp_path)) == []


def test_its_datasets_hold_every_step_and_say_how_many_a_decision_lasts(run):
    with h5py.File(run / "datasets" / "128.h5") as file:
        actions = file["regions/0/actions"][()]
        assert file.attrs["decision_every"] == EVERY and actions.shape == (5, HORIZON, 2)
    decisions = actions.reshape(5, -1, EVERY, 2)
    assert (np.ptp(decisions, axis=2) == 0).all() and np.ptp(decisions, axis=1).any()


def test_its_policies_are_exported_with_the_steps_of_a_decision(run):
    description = describe_run(Run.open(run))
    assert (description["horizon"], description["decision_every"]) == (HORIZON, EVERY)


def test_an_episode_is_drawn_step_by_step_and_decided_every_third(run, monkeypatch):
    calls = []
    act = joint.TrainedPolicies.__call__
    monkeypatch.setattr(joint.TrainedPolicies, "__call__", lambda *given: calls.append(1) or act(*given))
    opened = Run.open(run)
    moments = list(GlobalEpisode(opened, "trained", 4).play(HORIZON))
    acting, playing = (
        [stream(4, purpose, 0, OTHER_EPISODES)]
        for purpose in (Purpose.EVALUATION_ACTIONS, Purpose.EVALUATION)
    )
    paid = collect(
        opened.domain, playing, lambda *_: opened.joint_policy("trained", None, acting), None, True
    )
    assert [moment.step for moment in moments] == list(range(HORIZON + 1))
    same([moment.rewards for moment in moments[1:]], paid.acts.rewards[0])
    calls.clear()
    moments = list(LocalEpisode(opened, "trained", 0, 4).play(HORIZON))
    assert len(moments) == HORIZON + 1 and len(calls) == HORIZON // EVERY


# Interfaces for other trainers ---------------------------------------------------------------------------


def test_a_step_of_the_whole_system_for_other_trainers_is_a_decision():
    env, world = GlobalEnv.from_config(None, OVERRIDES), World(SECTION, [key(7, Purpose.GLOBAL_TRAINING)])
    env.reset(seed=7)
    world.reset()
    for number in range(1, HORIZON // EVERY + 1):
        actions = np.array([[number % agent.actions] for agent in AGENTS])
        observations, rewards, _, truncated, _ = env.step(
            {name: actions[i, 0] for i, name in enumerate(env.agents)}
        )
        steps = [world.step(actions) for _ in range(EVERY)]
        same(observations.values(), [seen[0] for seen in steps[-1].state.observations])
        assert list(rewards.values()) == sum(step.rewards[:, 0] for step in steps).tolist()
        assert set(truncated.values()) == {number == HORIZON // EVERY}
    assert env.agents == []


def test_a_step_of_a_region_for_other_trainers_is_a_decision():
    env = RegionEnv.from_config(None, OVERRIDES, region=1, num_envs=2)
    assert env.horizon == HORIZON // EVERY
    with pytest.raises(ValueError, match="give 2 integers from 0 to 6"):
        env.reset(options={"elapsed": [0, 7]})
    env.reset(seed=7, options={"elapsed": [0, 6]})
    local = Locally(SECTION, [1], 2, [key(7, Purpose.SIMULATOR, 1)])
    sources, history = key(7, Purpose.SOURCES, 1), env.predictor.network.initial_state(2)
    state = local.reset(elapsed=np.array([0, 18]))
    for number in range(1, 8):
        actions, paid = np.array([number % 3, (number + 1) % 3]), np.zeros(2, np.float32)
        for _ in range(EVERY):
            uniforms = sources.random((2, 1), dtype=np.float32)
            drawn, history = env.predictor.sample(state.inputs[0], history, uniforms)
            state, rewards, done = local.step(actions[None], [drawn])
            paid += rewards[0]
        _, rewards, _, truncated, infos = env.step(actions)
        same([rewards, truncated], [paid, done])
        assert done.tolist() == [number == 7, number == 1]
        if done.any():
            same([infos["final_obs"][e] for e in np.flatnonzero(done)], state.observations[0][done])
            history[done] = 0
            state = local.reset(where=done)


def key(seed, purpose, region=0):
    """The streams of the environments."""
    return stream(seed, purpose, region, OTHER_EPISODES)


# Checks, bench -------------------------------------------------------------------------------------------


def test_check_finds_nothing_wrong(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.005)
    monkeypatch.setattr(unequal_domain, "SLIP", -1.0)  # the abstraction is then exact
    findings = list(check(CONFIG, DOMAIN, influence.random_actors(DOMAIN), 4))
    assert len(findings) > 12 and Verdict.WRONG not in {finding.verdict for finding in findings}
    assert "21 steps, 3 in each decision" in findings[0].seen
    assert any("the abstraction is exact" in finding.seen for finding in findings)


def test_check_plays_random_actions_and_policies_by_decisions():
    for policy in (None, lambda *_: Rule()):
        actions = np.array(play_globally(DOMAIN, 0, 4, policy=policy).actions)
        decisions = actions.reshape(-1, EVERY, 4, 4)
        assert (np.ptp(decisions, axis=1) == 0).all() and np.ptp(decisions, axis=0).any()


def test_check_measures_returns_of_policies_by_decisions():
    """Under the recorded sources the local simulators repeat the whole system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unequal_domain, "SLIP", -1.0)
        recorded = play_globally(DOMAIN, 0, 4, policy=lambda *_: Rule())
        local = influence.ReplayedSources(
            DOMAIN.local_simulator([0, 1, 2], 4, generators(3)), recorded.sources
        )
        rule = Rule()
        returns = influence.local_returns(DOMAIN, local, rule, range(3))
    same(returns, recorded.returns[[2, 0, 1, 3]])
    assert rule.calls == HORIZON // EVERY and not replay.difference(returns, returns).significant


@pytest.mark.parametrize(
    ("every", "said"), [(4, "horizon is 21, not a multiple of decision_every=4"), (0, "decision_every is 0")]
)
def test_check_names_a_horizon_that_is_no_whole_number_of_decisions(every, said):
    domain = Unequal(SECTION)
    domain.decision_every = every
    findings = list(contract.check_contract(domain, 0))
    assert [finding.verdict for finding in findings] == [Verdict.WRONG] and said in findings[0].seen


def test_the_bench_counts_decisions():
    each_step = flop_per_agent_step(replace(CONFIG, domain_section=UnequalConfig(horizon=HORIZON)))
    predicting = sum(predictor_count(CONFIG, region).forward for region in REGIONS) / 4
    acting = np.mean([policy_count(CONFIG, agent).forward for agent in AGENTS])
    more = 2 * predicting + acting * (1 / 7 - 1 / 21)  # a value at the end of an episode of 7 decisions
    assert flop_per_agent_step(CONFIG) - each_step == pytest.approx(more)


def test_the_bench_warms_up_with_whole_decisions():
    evaluated = []
    subject = SimpleNamespace(
        config=CONFIG,
        domain=DOMAIN,
        train=lambda updates: None,
        evaluate=lambda episodes, domain: evaluated.append(domain.horizon),
    )
    Subject.warm_up(subject)
    assert evaluated == [WARMING * EVERY]


# What is refused -----------------------------------------------------------------------------------------


class Fixed(Unequal):
    """A domain whose decisions last 4 steps, without a setting for that."""

    def __init__(self, config):
        super().__init__(config)
        self.decision_every = 4


class Wrong(Fixed):
    """It gives no whole number."""

    def __init__(self, config):
        super().__init__(config)
        self.decision_every = 2.5


@pytest.mark.parametrize(("horizon", "better"), [(20, "18 or 21"), (2, "3")])
def test_a_horizon_of_no_whole_decisions_is_refused(horizon, better):
    settings = [f"unequal.horizon={horizon}", "unequal.decision_every=3", f"dataset_size={5 * horizon}"]
    said = f"unequal.horizon is {horizon}, which is not a multiple of unequal.decision_every=3: use {better}"
    with pytest.raises(BadInput) as refused:
        load(None, [*SETTINGS, *settings])
    assert str(refused.value).endswith(said)


def test_so_is_one_that_does_not_fit_a_domain_without_the_setting():
    said = r"unequal.horizon is 21, which is not a multiple of unequal.decision_every=4: use 20 or 24"
    with pytest.raises(BadInput, match=said):
        create("test_decisions:Fixed", UnequalConfig(horizon=21))
    assert create("test_decisions:Fixed", UnequalConfig(horizon=20)).horizon == 20
    with pytest.raises(
        BadInput, match=r"unequal.decision_every is 2.5: use a whole number of steps, 1 or more"
    ):
        create("test_decisions:Wrong", UnequalConfig(horizon=20))
