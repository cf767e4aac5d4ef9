"""The simulators as other libraries' environments: conformance by their own tests, the numbers by ours."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from conftest import SMALL, launch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from pettingzoo.test import parallel_api_test, parallel_seed_test

from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.ials import IALS
from dials_mpi.algorithm.joint import predictors
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.domains import create
from dials_mpi.domains.base import LocalStep, State
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.gym import GlobalEnv, RegionEnv
from dials_mpi.storage.runfile import RunFile

FOUR = ("warehouse.grid=[2,2]", "warehouse.horizon=20", "dataset_size=100")
CROSSINGS = ("domain=traffic", "traffic.grid=[1,2]", "traffic.horizon=20", "dataset_size=100")


@pytest.fixture
def run(trained):
    return trained(*SMALL, ranks=3)


# Conformance ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [FOUR, CROSSINGS], ids=["warehouse", "traffic"])
def test_pettingzoo_takes_the_global_simulator(settings):
    """Whose test only warns of much that is wrong: so warnings are errors."""
    parallel_api_test(GlobalEnv.from_config(None, settings), num_cycles=50)


@pytest.mark.filterwarnings("error")
def test_pettingzoo_finds_it_repeatable():
    """Two side by side, which SUMO cannot be in one process."""
    parallel_seed_test(lambda: GlobalEnv.from_config(None, FOUR), num_cycles=50)


class One(gymnasium.Env):
    """The only environment of a VectorEnv, as a plain one; where an episode ends, it is the final one."""

    def __init__(self, env):
        self.env = env
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations[0], infos

    def step(self, action):
        observations, rewards, terminated, truncated, infos = self.env.step(np.array([action]))
        observation = infos["final_obs"][0] if truncated[0] else observations[0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


@pytest.mark.parametrize("settings", [FOUR, CROSSINGS], ids=["warehouse", "traffic"])
def test_gymnasium_checks_the_environment_of_a_region(settings, recwarn):
    """Its checker knows no vector environments: it is given one that holds a single one."""
    check_env(One(RegionEnv.from_config(None, settings, num_envs=1)), skip_render_check=True)
    said = [str(warning.message) for warning in recwarn if "gymnasium" in str(warning.filename)]
    assert [text for text in said if "`Env.spec`" not in text and "spec" not in text] == []


class Counting(gymnasium.Env):
    """Counts to three, and again."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), float(action), False, self.count == 3, {}


class CountingSystem:
    """A domain of one region that does the same."""

    horizon = 3

    def __init__(self):
        four = create("warehouse", load(None, FOUR).domain_section)
        self.agents, self.regions = four.agents[:1], four.regions[:1]

    def versions(self):
        return {}

    def local_simulator(self, regions, environments, streams):
        self.count = np.zeros(environments, int)
        return self

    def reset(self, where=None, elapsed=None):
        where = np.ones(len(self.count), bool) if where is None else where
        self.count[where] = 0 if elapsed is None else elapsed[where]
        return self.state()

    def step(self, actions, sources):
        self.count += 1
        return LocalStep(self.state(), np.float32(actions), self.count == 3)

    def state(self):
        return State(np.float32(self.count)[None, :, None], np.zeros((1, len(self.count), 37), np.uint8))


@pytest.mark.parametrize(
    ("name", "mode", "total"),
    [
        ("same_step", AutoresetMode.SAME_STEP, 6),
        ("next_step", AutoresetMode.NEXT_STEP, 5),
    ],
)
def test_autoreset_as_gymnasium_does_it_itself(monkeypatch, name, mode, total):
    """The same environments, ended at different times, by gymnasium's own vector environment."""
    monkeypatch.setattr("dials_mpi.gym.vector.create", lambda *_: CountingSystem())
    ours = RegionEnv.from_config(None, FOUR, num_envs=2, autoreset_mode=name)
    theirs = SyncVectorEnv([Counting] * 2, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    ours.reset(options={"elapsed": np.array([0, 2])})
    theirs.reset()
    theirs.envs[1].count = 2
    ends = 0
    for actions in np.random.default_rng(0).integers(3, size=(9, 2)):
        (*own, own_infos), (*other, other_infos) = ours.step(actions), theirs.step(actions)
        for mine, expected in zip(own, other, strict=True):
            np.testing.assert_array_equal(mine, expected)
        assert {value.dtype for value in own[2:]} == {value.dtype for value in other[2:]}
        assert own_infos.keys() == other_infos.keys()
        for name, expected in other_infos.items():
            assert type(own_infos[name]) is type(expected)
            if name != "final_info":
                assert own_infos[name].dtype == expected.dtype
                assert list(own_infos[name]) == list(expected)
        ends += own[3].sum()
    assert ends == total
    assert RegionEnv.from_config(None, FOUR, autoreset_mode=mode).metadata == ours.metadata
    with pytest.raises(BadInput, match="same_step or next_step"):
        RegionEnv.from_config(None, FOUR, autoreset_mode="disabled")


def test_statistics_by_a_wrapper_of_gymnasium(run):
    """Of the first episode: before version 1.4 the wrapper loses a step of each that comes after it."""
    env = RecordEpisodeStatistics(RegionEnv.from_run(run, 1, num_envs=64))
    env.reset(seed=1)
    total, actions = np.zeros(64), np.random.default_rng(0).integers(4, size=(20, 64))
    for t in range(20):
        _, rewards, _, truncated, infos = env.step(actions[t])
        total += rewards
        assert truncated.all() == ("episode" in infos) == (t == 19)
    assert total.any()
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-5)
    assert infos["episode"]["l"].tolist() == [20] * 64


@pytest.mark.parametrize("settings", [FOUR, CROSSINGS], ids=["warehouse", "traffic"])
def test_a_wrapper_of_gymnasium_that_wants_next_step(settings):
    """It refuses same_step. Episodes are those of a plain loop with a reset of its own after each."""
    with pytest.raises((AssertionError, ValueError), match="NEXT_STEP"):
        NormalizeObservation(RegionEnv.from_config(None, settings, num_envs=2))
    env = NormalizeObservation(RegionEnv.from_config(None, settings, num_envs=2, autoreset_mode="next_step"))
    env.reset(seed=1)
    for _ in range(45):
        observations, *_ = env.step(np.zeros(2, int))
    assert np.isfinite(observations).all()
    plain = RegionEnv.from_config(None, settings, num_envs=2, autoreset_mode="next_step")
    plain.reset(seed=1)
    ends = []
    for t in range(45):
        _, rewards, _, truncated, infos = plain.step([t % 2] * 2)
        assert infos == {} and truncated.all() == truncated.any()
        ends += [t] * int(truncated.all())
        if t - 1 in ends:
            assert not rewards.any()
    assert ends == [19, 40]


# The same numbers as ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [FOUR, CROSSINGS], ids=["warehouse", "traffic"])
def test_returns_of_the_global_simulator_are_those_that_we_collect(settings):
    """Actions that are told in advance; rewards summed outside against the returns of ``collect``."""
    config = load(None, settings)
    domain = create(config.domain, config.domain_section)
    env = GlobalEnv.from_config(None, settings)
    agents = len(domain.regions)
    actions = np.random.default_rng(5).integers(env.action_space("agent_0").n, size=(20, agents, 1))
    steps = iter(actions)
    key = stream(7, Purpose.GLOBAL_TRAINING, 0, OTHER_EPISODES)
    expected = collect(domain, [key], lambda *_: lambda observations: next(steps)).returns[0]
    env.reset(seed=7)
    total = np.zeros(agents)
    for joint in actions:
        assert env.agents == env.possible_agents == [f"agent_{i}" for i in range(agents)]
        observations, rewards, terminated, truncated, _ = env.step(
            {agent: joint[i, 0] for i, agent in enumerate(env.agents)}
        )
        total += list(rewards.values())
        assert not any(terminated.values())
        for agent, observation in observations.items():
            assert env.observation_space(agent).contains(observation)
    assert all(truncated.values()) and env.agents == []
    assert expected.any()
    np.testing.assert_array_equal(total, expected)


def test_a_region_of_a_run_is_our_own_ials(run):
    """Put together here of the run file's parameters, and reset where episodes end."""
    config = load(None, SMALL)
    domain = create(config.domain, config.domain_section)
    predictor = predictors(config, domain, RunFile.open(run).read("predictor/parameters"))[2]
    local, sources = ([stream(9, p, 2, OTHER_EPISODES)] for p in (Purpose.SIMULATOR, Purpose.SOURCES))
    ials = IALS(domain.local_simulator([2], 20, local), [predictor], 20, sources)
    elapsed, paid = np.arange(20), 0.0
    env = RegionEnv.from_run(run, 2, num_envs=20)
    expected = ials.reset(elapsed=elapsed)[0]
    observations, infos = env.reset(seed=9, options={"elapsed": elapsed})
    assert infos == {}
    for actions in np.random.default_rng(1).integers(4, size=(50, 20)):
        np.testing.assert_array_equal(observations, expected)
        assert observations.dtype == np.float32 and env.observation_space.contains(observations)
        outcome = ials.step(actions[None])
        observations, rewards, terminated, truncated, infos = env.step(actions)
        np.testing.assert_array_equal(rewards, outcome.rewards[0])
        np.testing.assert_array_equal(truncated, outcome.done)
        assert not terminated.any()
        paid += rewards.sum()
        expected = outcome.observations[0]
        for e in np.flatnonzero(outcome.done):
            np.testing.assert_array_equal(infos["final_obs"][e], expected[e])
        if outcome.done.any():
            expected = ials.reset(where=outcome.done)[0]
    assert paid > 0


def test_a_predictor_of_a_run_is_not_an_untrained_one(run):
    """That of the configuration alone is as a run of it begins with; mode untrained keeps it so."""
    trained = RegionEnv.from_run(run, 0).predictor.network.vector
    untrained = RegionEnv.from_config(None, SMALL).predictor.network.vector
    assert not np.array_equal(trained, untrained)


def test_an_untrained_predictor_is_that_of_a_run_in_this_mode(trained):
    stored = RegionEnv.from_run(trained(*SMALL, "mode=untrained"), 3).predictor.network.vector
    np.testing.assert_array_equal(
        RegionEnv.from_config(None, [*SMALL, "mode=untrained"], 3).predictor.network.vector, stored
    )


def test_predictors_of_a_checkpoint(run):
    """Each segment begins with a refit: the first checkpoint's are others than the last one's."""
    first, last = (RegionEnv.from_run(run, 1, checkpoint=k).predictor.network.vector for k in (128, "newest"))
    assert not np.array_equal(first, last)
    np.testing.assert_array_equal(last, RegionEnv.from_run(run, 1, checkpoint=256).predictor.network.vector)
    np.testing.assert_array_equal(last, RegionEnv.from_run(run, 1).predictor.network.vector)


# Seeds ---------------------------------------------------------------------------------------------------


def played(env, steps=45, **reset):
    """What a region's environments show after a reset."""
    observations = [env.reset(**reset)[0]]
    observations += [env.step(np.full(env.num_envs, t % 2))[0] for t in range(steps)]
    return np.stack(observations)


@pytest.mark.parametrize(
    "settings", [pytest.param(FOUR, marks=pytest.mark.quick), CROSSINGS], ids=["warehouse", "traffic"]
)
def test_the_same_seed_gives_the_same_episodes(settings):
    """Whatever was played before; without a seed others come, at first those of the configuration."""
    env = RegionEnv.from_config(None, settings, num_envs=3)
    first, second, third = played(env, seed=4), played(env), played(env, seed=4)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, played(env, seed=5))
    unseeded = played(RegionEnv.from_config(None, [*settings, "seed=4"], num_envs=3, region=0))
    assert np.array_equal(unseeded[0], first[0])
    other = RegionEnv.from_config(None, settings, num_envs=3, region=1)
    assert not np.array_equal(first, played(other, seed=4))


def test_the_same_seed_gives_the_same_traffic():
    env = GlobalEnv.from_config(None, CROSSINGS)

    def episode(**reset):
        env.reset(**reset)
        return np.concatenate(
            [np.concatenate(list(env.step(dict.fromkeys(env.agents, 0))[0].values())) for _ in range(20)]
        )

    first, second, third = episode(seed=3), episode(), episode(seed=3)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, second)


# Actions of other libraries, and copies ------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [int, np.int64, np.uint8, np.array, torch.tensor, lambda a: torch.tensor(a).int()]
)
def test_actions_of_any_library_are_the_same(kind):
    """Python's, numpy's and torch's, as scalars and as arrays, tensors and lists."""

    def system(kind):
        env = GlobalEnv.from_config(None, FOUR)
        env.reset(seed=1)
        steps = [
            env.step({agent: kind((t + i) % 4) for i, agent in enumerate(env.agents)}) for t in range(15)
        ]
        return [list(step[1].values()) for step in steps], list(steps[-1][0].values())

    def region(actions):
        env = RegionEnv.from_config(None, FOUR, num_envs=3)
        env.reset(seed=1)
        return [env.step(actions([t % 4, 1, (t + 2) % 4]))[0] for t in range(15)]

    for one, other in zip(system(kind), system(int), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(region(lambda row: [kind(a) for a in row]), region(np.array))
    if kind is torch.tensor:
        np.testing.assert_array_equal(region(kind), region(np.array))


@pytest.mark.parametrize("settings", [FOUR, CROSSINGS], ids=["warehouse", "traffic"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_begins_anew(settings, copied):
    """Amid an episode: the copy wants a reset, then does what a new one does; the first goes on."""
    system, region = GlobalEnv.from_config(None, settings), RegionEnv.from_config(None, settings, num_envs=2)
    system.reset(seed=1)
    for _ in range(3):
        system.step(dict.fromkeys(system.agents, 0))
    other = copied(system)
    assert other.agents == [] and other.possible_agents == system.possible_agents
    with pytest.raises(RuntimeError, match="reset"):
        other.step({})
    system.step(dict.fromkeys(system.agents, 0))
    fresh = GlobalEnv.from_config(None, settings)
    for agent, seen in fresh.reset()[0].items():
        np.testing.assert_array_equal(seen, copied(system).reset()[0][agent])
    region.reset(seed=1)
    region.step([0, 1])
    twin = copied(region)
    with pytest.raises(RuntimeError, match="reset"):
        twin.step([0, 1])
    first = played(twin, seed=4)
    np.testing.assert_array_equal(first, played(RegionEnv.from_config(None, settings, num_envs=2), seed=4))


# What is refused -----------------------------------------------------------------------------------------


def test_actions_that_are_none():
    env = RegionEnv.from_config(None, FOUR, num_envs=2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2, int))
    env.reset()
    for actions in ([0, 4], [-1, 0], [0.0, 1.0], [0], [[0, 1]]):
        for given in (actions, np.array(actions), torch.tensor(actions)):
            with pytest.raises(ValueError, match="give 2 of 0 to 3"):
                env.step(given)
    for given in (None, 1, "01", [None, 0], [[0], 1], np.int64(1), torch.tensor(1)):
        with pytest.raises(ValueError, match="give 2 of 0 to 3"):
            env.step(given)
    system = GlobalEnv.from_config(None, FOUR)
    with pytest.raises(RuntimeError, match="reset"):
        system.step({})
    system.reset()
    good = dict.fromkeys(system.agents, 0)
    for bad in (4, -1, 0.5, torch.tensor(1.0), None, np.array([1, 2]), "1"):
        with pytest.raises(ValueError, match=r"agent_1.*Discrete\(4\)"):
            system.step({**good, "agent_1": bad})
    with pytest.raises(ValueError, match="agent_3"):
        system.step({agent: 0 for agent in system.agents if agent != "agent_3"})


@pytest.mark.parametrize("elapsed", [[0], [0, 20], [-1, 0], [0.5, 1.0], "ab"])
def test_clocks_that_are_none(elapsed):
    with pytest.raises(ValueError, match="0 to 19"):
        RegionEnv.from_config(None, FOUR, num_envs=2).reset(options={"elapsed": elapsed})


def test_regions_and_numbers_that_there_are_not(run):
    for region in (-1, 4):
        for make in (lambda r: RegionEnv.from_run(run, r), lambda r: RegionEnv.from_config(None, FOUR, r)):
            with pytest.raises(BadInput, match=f"region is {region}: there are 0 to 3"):
                make(region)
    with pytest.raises(BadInput, match="num_envs is 0"):
        RegionEnv.from_run(run, num_envs=0)


def test_runs_that_do_not_have_it(run, trained, tmp_path):
    with pytest.raises(BadInput, match="mode is global"):
        RegionEnv.from_run(trained(*SMALL, "mode=global"))
    with pytest.raises(BadInput, match="checkpoint"):
        RegionEnv.from_run(run, checkpoint=5)
    for make in (RegionEnv.from_run, GlobalEnv.from_run):
        with pytest.raises(BadInput, match=r"no run\.h5"):
            make(tmp_path)
    with pytest.raises(BadInput, match=r"ppo\.clip"):
        GlobalEnv.from_config(None, ["ppo.clap=1"])
    assert len(GlobalEnv.from_run(run).possible_agents) == 4


@pytest.mark.parametrize("library", ["gymnasium", "pettingzoo"])
def test_a_library_that_is_missing(library):
    code = f"import sys; sys.modules[{library!r}] = None; import dials_mpi.gym"
    result = launch("-c", code)
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: dials_mpi.gym needs") and "pip install 'dials_mpi[gym]'" in last
    assert library in last


def simulation_of(env):
    simulator = env._simulator if isinstance(env, GlobalEnv) else env._environment.simulator
    return simulator.junctions.simulation


@pytest.mark.parametrize("kind", [GlobalEnv, RegionEnv])
@pytest.mark.parametrize("backend", ["libsumo", "traci"])
def test_closing_an_environment_ends_sumo(kind, backend):
    env = kind.from_config(None, [*CROSSINGS, f"traffic.sumo={backend}"])
    env.reset(seed=0)
    running = simulation_of(env)
    running.vehicles()
    env.close()
    with pytest.raises(RuntimeError, match="has ended"):
        running.vehicles()
    if backend == "traci":
        assert running._backend._process.poll() is not None
    else:
        assert Simulation.running is None
    env.reset(seed=0)
    simulation_of(env).vehicles()
    env.close()


def test_an_option_that_is_not_known_is_refused():
    env = RegionEnv.from_config(None, FOUR)
    with pytest.raises(ValueError, match="'reset_mask' is not known: there is elapsed"):
        env.reset(options={"reset_mask": np.ones(env.num_envs, bool)})
