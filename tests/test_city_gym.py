"""A city as an environment of other libraries."""

import pickle

import numpy as np
import pytest
from city_common import settings
from conftest import generators
from gymnasium.vector import AutoresetMode
from pettingzoo.test import parallel_api_test

from dials_mpi.config import load
from dials_mpi.domains import create
from dials_mpi.gym import GlobalEnv, RegionEnv


@pytest.mark.filterwarnings("error")
def test_pettingzoo_takes_a_city():
    parallel_api_test(GlobalEnv.from_config(None, settings()), num_cycles=15)


def episode(env, seed):
    """Rewards and last observations of an episode."""
    env.reset(seed=seed)
    rewards = []
    while env.agents:
        actions = {agent: len(rewards) % 2 for agent in env.agents}
        seen, paid, _, _, _ = env.step(actions)
        rewards.append(list(paid.values()))
    return np.array(rewards), {agent: own.tolist() for agent, own in seen.items()}


def test_an_episode_of_decisions_repeats_also_in_a_copy():
    env = GlobalEnv.from_config(None, settings())
    assert len({env.observation_space(agent).shape for agent in env.possible_agents}) == 1
    (rewards, last), (again, same) = episode(env, 3), episode(pickle.loads(pickle.dumps(env)), 3)
    assert rewards.shape == (10, 4) and rewards.sum() < -20
    np.testing.assert_array_equal(rewards, again)
    assert last == same
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_gymnasium_takes_a_region(mode):
    """With a step for each decision; episodes end after ten of them, and the next one begins empty."""
    env = RegionEnv.from_config(None, settings(), region=1, num_envs=1, autoreset_mode=mode)
    domain = create(env.config.domain, env.config.domain_section)
    agent = domain.agents[1]
    assert env.single_observation_space.shape == (agent.observation_size,)
    assert env.single_action_space.n == agent.actions
    observation, _ = env.reset(seed=1)
    ends, paid = [], 0.0
    for t in range(22):
        assert env.observation_space.contains(observation)
        observation, rewards, terminated, truncated, infos = env.step(np.array([t % 2]))
        paid += float(rewards[0])
        assert not terminated.any()
        if truncated[0]:
            ends.append(t)
        if mode is AutoresetMode.SAME_STEP and truncated[0]:
            assert infos["final_obs"][0][agent.actions + 1 :].any()
            assert not observation[0][agent.actions + 1 :].any()
    assert ends == ([9, 19] if mode is AutoresetMode.SAME_STEP else [9, 20]) and paid < -10
    env.close()


def test_the_region_has_one_region_and_the_city_one_episode():
    """A domain's simulators are asked for no more by these environments; more is refused."""
    config = load(None, settings())
    domain = create(config.domain, config.domain_section)
    with pytest.raises(ValueError, match="one episode"):
        domain.global_simulator(generators(2))
    with pytest.raises(ValueError, match="one region"):
        domain.local_simulator([0, 1], 1, generators(2))
