"""PPO: loss, advantages, memory and whole updates against plain loops and autograd; small tasks learnt."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_twin import TorchTwin, assert_close

from dials_mpi import config as c
from dials_mpi.domains.base import Agent
from dials_mpi.learning import ppo
from dials_mpi.learning.ppo import METRICS, PPO, Samples, generalised_advantages, loss

SHARES = st.integers(0, 1000).map(lambda n: n / 1000)
AGENT = Agent(observation_size=5, actions=3)

# --- the loss ---


def plain_loss(outputs, batch, config, clip):
    """Equation 9 of Schulman et al. (2017), sample by sample, for autograd."""
    advantages = batch.advantages.flatten()
    if config.normalise_advantages:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    rows = zip(
        outputs.flatten(0, 1),
        batch.actions.flatten(),
        batch.log_probabilities.flatten(),
        batch.values.flatten(),
        advantages,
        batch.returns.flatten(),
        strict=True,
    )
    terms = []
    for output, action, old_log_probability, old_value, advantage, target in rows:
        policy = torch.distributions.Categorical(logits=output[:-1])
        log_ratio = policy.log_prob(action) - old_log_probability
        ratio = torch.exp(log_ratio)
        gain = torch.min(ratio * advantage, torch.clamp(ratio, 1 - clip, 1 + clip) * advantage)
        value, value_loss = output[-1], (output[-1] - target) ** 2
        if config.clip_value_loss:
            near = old_value + torch.clamp(value - old_value, -clip, clip)
            value_loss = torch.max(value_loss, (near - target) ** 2)
        kl, outside = ratio - 1 - log_ratio, (abs(ratio - 1) > clip).double()
        terms.append(torch.stack([-gain, value_loss, policy.entropy(), kl, outside]))
    means = torch.stack(terms).mean(0)
    total = means[0] + config.value_coefficient * means[1] - config.entropy_coefficient * means[2]
    return total, means.detach()


def made_up_batch(seed, deviation, steps=8, columns=4, actions=6):
    """Outputs that differ from the remembered ones by about ``deviation``."""
    torch.manual_seed(seed)
    outputs = torch.randn(steps, columns, actions + 1, dtype=torch.float64)
    before = outputs + deviation * torch.randn_like(outputs)
    chosen = torch.randint(actions, (steps, columns))
    old = before[..., :-1].log_softmax(-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    advantages, values = torch.randn(2, steps, columns, dtype=torch.float64) * 2 + 1
    return outputs, Samples(None, chosen, old, before[..., -1], advantages, values, None, None)


def as_arrays(samples):
    """The same with numpy arrays in place of tensors."""
    return Samples(*(part if part is None else part.contiguous().numpy() for part in samples))


def as_tensors(samples):
    """The other way round."""
    return Samples(*(part if part is None else torch.from_numpy(part) for part in samples))


@pytest.mark.quick
@pytest.mark.parametrize("clip_value_loss", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("clip", [0.0, 1e-6, 0.1, 0.5, 1e9])
@pytest.mark.parametrize("deviation", [0.02, 0.3, 2.0])
def test_loss_gradient_and_metrics_agree_with_autograd(clip_value_loss, normalise, clip, deviation):
    config = c.PPO(
        clip_value_loss=clip_value_loss,
        normalise_advantages=normalise,
        entropy_coefficient=0.03,
        value_coefficient=0.7,
    )
    outputs, batch = made_up_batch(int(deviation * 100), deviation)
    variable = outputs.clone().requires_grad_()
    total, means = plain_loss(variable, batch, config, clip)
    total.backward()
    gradient, metrics = loss(outputs.numpy(), as_arrays(batch), config, clip)
    assert_close(gradient, variable.grad, 1e-9)
    np.testing.assert_allclose(metrics, means, rtol=1e-9, atol=1e-12)
    fraction = metrics[METRICS.index("clip_fraction")]
    assert fraction == 0 if clip == 1e9 else fraction > 0 or clip > deviation


def test_loss_holds_back_a_ratio_only_in_the_direction_of_its_advantage():
    config = c.PPO(normalise_advantages=False, entropy_coefficient=0.0, value_coefficient=0.0)
    outputs = torch.tensor([[[0.0, 0.0, 5.0]]])
    for advantage, ratio, moves in [(1, 1.2, False), (1, 0.8, True), (-1, 1.2, True), (-1, 0.8, False)]:
        old = torch.tensor([[np.log(0.5 / ratio)]], dtype=torch.float32)
        one = torch.ones(1, 1)
        batch = Samples(
            None, torch.zeros(1, 1, dtype=torch.int64), old, one, advantage * one, one, None, None
        )
        gradient, _ = loss(outputs.numpy(), as_arrays(batch), config, 0.1)
        # d(-A ratio)/d logit of the action taken = -A ratio (1 - 1/2)
        assert_close(gradient[0, 0, 0], np.array(-0.5 * advantage * ratio * moves), 1e-6)


# --- advantages ---


def advantages_by_definition(rewards, values, done, discount, gae_lambda, rollout_steps):
    """Sum of (gamma lambda)^k delta over the rest of the rollout, or of the episode if that ends first."""
    length, environments = rewards.shape
    advantages = np.zeros((length, environments))
    for e in range(environments):
        for t in range(length):
            end_of_rollout = (t // rollout_steps + 1) * rollout_steps
            for k in range(t, end_of_rollout):
                following = 0.0 if done[k, e] else values[k + 1, e]
                delta = rewards[k, e] + discount * following - values[k, e]
                advantages[t, e] += (discount * gae_lambda) ** (k - t) * delta
                if done[k, e]:
                    break
    return advantages


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rollouts=st.integers(1, 4),
    rollout_steps=st.integers(1, 9),
    environments=st.integers(1, 4),
    discount=SHARES,
    gae_lambda=SHARES,
    ends=SHARES,
)
def test_advantages_agree_with_their_definition(
    seed, rollouts, rollout_steps, environments, discount, gae_lambda, ends
):
    rng = np.random.default_rng(seed)
    shape = rollouts * rollout_steps, environments
    rewards = rng.normal(size=shape).astype(np.float32)
    values = rng.normal(size=(shape[0] + 1, environments)).astype(np.float32)
    done = rng.random(shape) < ends
    copies = rewards.copy(), values.copy(), done.copy()
    ours = generalised_advantages(rewards, values, done, discount, gae_lambda, rollout_steps)
    expected = advantages_by_definition(rewards, values, done, discount, gae_lambda, rollout_steps)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-5)
    assert all(np.array_equal(*pair) for pair in zip(copies, (rewards, values, done), strict=True))


def test_undiscounted_advantage_of_constant_rewards_is_the_number_of_steps_left():
    rewards, values = np.ones((12, 1), np.float32), np.full((13, 1), 3, np.float32)
    done = np.zeros((12, 1), bool)
    done[6] = True
    ours = generalised_advantages(rewards, values, done, 1.0, 1.0, 4)
    # Cut at 4 and 8 and 12 the value 3 takes over; after step 6 the episode is over.
    left = [4 + 3, 3 + 3, 2 + 3, 1 + 3, 3, 2, 1, 1 + 3, 4 + 3, 3 + 3, 2 + 3, 1 + 3]
    assert ours[:, 0].tolist() == [n - 3 for n in left]


# --- the memory, seen through what an update is given ---


class Setup(NamedTuple):
    """Sizes of a learner, as in the configuration."""

    architecture: str
    envs: int
    memory: int
    rollout: int
    sequence: int
    minibatch: int


SETUPS = {
    "gru": Setup("gru", 4, 64, 8, 8, 16),
    "gru, short sequences": Setup("gru", 2, 48, 8, 4, 8),
    "gru, sequences of two rollouts": Setup("gru", 2, 32, 4, 8, 16),
    "gru, one environment": Setup("gru", 1, 128, 8, 8, 32),
    "fnn": Setup("fnn", 4, 64, 8, 8, 16),
    "fnn, one environment": Setup("fnn", 1, 128, 8, 8, 32),
}


def learner(setup, seed=0, **changes):
    policy = c.Policy(setup.architecture, (12, 10), setup.sequence)
    config = c.PPO(
        rollout_steps=setup.rollout,
        memory_size=setup.memory,
        minibatch_size=setup.minibatch,
        **changes,
    )
    agent = PPO(policy, config, AGENT, setup.envs)
    agent.policy.network.initialise(np.random.default_rng(seed))
    agent.begin_segment(np.random.default_rng(seed + 1), np.random.default_rng(seed + 2))
    return agent


def watch_loss(monkeypatch):
    """Keep every (outputs, batch, clip, gradient) that the loss is asked for."""
    seen = []

    def watched(outputs, batch, config, clip):
        gradient, metrics = loss(outputs, batch, config, clip)
        seen.append(SimpleNamespace(outputs=outputs, batch=batch, clip=clip, metrics=metrics))
        return gradient, metrics

    monkeypatch.setattr(ppo, "loss", watched)
    return seen


class Story:
    """Random observations, rewards and episode ends; what a memory of them must hold, by a torch twin."""

    def __init__(self, agent, seed=3):
        self.agent, self.rng = agent, np.random.default_rng(seed)
        self.twin = TorchTwin(agent.policy.network)
        self.state = torch.zeros(agent.envs, agent.policy.network.state_size, dtype=torch.float64)
        self.observations = self.draw()

    def draw(self):
        return self.rng.normal(size=(self.agent.envs, AGENT.observation_size)).astype(np.float32)

    def look(self, observations):
        with torch.no_grad():
            return self.twin.step(torch.from_numpy(observations).double(), self.state)

    def fill(self):
        """One memory: arrays [L, E] of what happened."""
        agent = self.agent
        told = {
            name: [] for name in ("observations", "actions", "logp", "values", "rewards", "done", "final")
        }
        for _ in range(agent.length):
            outputs, self.state = self.look(self.observations)
            actions = agent.act(self.observations)
            chosen = torch.from_numpy(actions).unsqueeze(1)
            told["observations"].append(self.observations)
            told["actions"].append(actions.copy())
            told["logp"].append(outputs[:, :-1].log_softmax(-1).gather(1, chosen)[:, 0].numpy())
            told["values"].append(outputs[:, -1].numpy())
            final = self.draw()
            told["final"].append(self.look(final)[0][:, -1].numpy())
            rewards, done = self.rng.normal(size=agent.envs), self.rng.random(agent.envs) < 0.2
            told["rewards"].append(rewards)
            told["done"].append(done)
            agent.observe(rewards.astype(np.float32), done, final)
            self.state = self.state * torch.from_numpy(~done).unsqueeze(1)
            self.observations = np.where(done[:, None], self.draw(), final)
        told["values"].append(self.look(self.observations)[0][:, -1].numpy())
        return {name: np.array(rows) for name, rows in told.items()}


@pytest.mark.parametrize("time_limit", ["terminal", "bootstrap"])
@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_update_is_given_every_step_once_and_reproduces_what_was_acted(setup, time_limit, monkeypatch):
    seen = watch_loss(monkeypatch)
    agent = learner(setup, epochs=2, learning_rate=0.0, time_limit=time_limit, discount=0.9, gae_lambda=0.8)
    story = Story(agent)
    sequence = setup.sequence if setup.architecture == "gru" else 1
    for _ in range(2):
        told = story.fill()
        assert told["done"].any()
        rewards = told["rewards"] + 0.9 * told["final"] * told["done"] * (time_limit == "bootstrap")
        advantages = advantages_by_definition(rewards, told["values"], told["done"], 0.9, 0.8, setup.rollout)
        agent.update(story.observations, 0.0)
        assert len(seen) == 2 * setup.memory // setup.minibatch
        for epoch in (seen[: len(seen) // 2], seen[len(seen) // 2 :]):
            places = set()
            for part in epoch:
                batch = part.batch
                assert batch.actions.shape == (sequence, setup.minibatch // sequence)
                for column in range(batch.actions.shape[1]):
                    here = batch.observations[0, column]
                    ((t, e),) = np.argwhere((told["observations"] == here).all(-1))
                    assert t % sequence == 0
                    places |= {(t + s, e) for s in range(sequence)}
                    rows = slice(t, t + sequence), e
                    assert np.array_equal(batch.observations[:, column], told["observations"][rows])
                    assert np.array_equal(batch.actions[:, column], told["actions"][rows])
                    assert_close(batch.log_probabilities[:, column], told["logp"][rows], 1e-5)
                    assert_close(batch.values[:, column], told["values"][rows], 1e-5)
                    assert_close(batch.advantages[:, column], advantages[rows], 1e-5)
                    returns = advantages[rows] + told["values"][rows]
                    assert_close(batch.returns[:, column], returns, 1e-5)
                logp = scipy.special.log_softmax(part.outputs[..., :-1], -1)
                logp = np.take_along_axis(logp, batch.actions[..., None], -1)[..., 0]
                ratio = np.exp(logp - batch.log_probabilities)
                assert_close(ratio, np.ones_like(ratio), 1e-5)
                assert_close(part.outputs[..., -1], batch.values, 1e-5)
            assert places == set(np.ndindex(agent.length, agent.envs))
        seen.clear()


@pytest.mark.parametrize("setup", [SETUPS["gru"], SETUPS["fnn"]], ids=["gru", "fnn"])
@pytest.mark.parametrize("norm", [0.0, 0.7, 1.5, 1e6])
def test_whole_updates_agree_with_autograd_and_torch_optim_on_the_same_minibatches(setup, norm, monkeypatch):
    seen = watch_loss(monkeypatch)
    agent = learner(setup, learning_rate=3e-3, clip=0.2, max_gradient_norm=norm)
    twin = TorchTwin(agent.policy.network)
    reference = torch.optim.Adam(twin.parameters(), eps=agent.config.adam_epsilon)
    metrics, lengths = [], []
    for progress in (0.0, 0.5):
        story = Story(agent)
        story.fill()
        agent.update(story.observations, progress)
        for part in seen:
            batch = as_tensors(part.batch)
            outputs = twin(batch.observations, batch.state, batch.keep)
            total, means = plain_loss(outputs, batch, agent.config, 0.2 * (1 - progress))
            reference.param_groups[0]["lr"] = 3e-3 * (1 - progress)
            reference.zero_grad()
            total.backward()
            length = torch.nn.utils.clip_grad_norm_(twin.parameters(), norm or torch.inf)
            lengths.append(float(length))
            reference.step()
            metrics.append(means)
        seen.clear()
        assert_close(agent.policy.network.vector, twin.flat(), 1e-4)
    np.testing.assert_allclose(agent.mean_metrics(), torch.stack(metrics).mean(0), rtol=1e-3, atol=1e-5)
    assert min(lengths) < 0.7 and max(lengths) > 1.5


def test_minibatches_are_drawn_anew_in_every_epoch(monkeypatch):
    seen = watch_loss(monkeypatch)
    agent = learner(SETUPS["fnn"], epochs=2, learning_rate=0.0)
    story = Story(agent)
    story.fill()
    agent.update(story.observations, 0.0)
    first, second = ({part.batch.observations.tobytes() for part in half} for half in (seen[:4], seen[4:]))
    assert not first & second


@pytest.mark.parametrize(("anneal", "remaining"), [(True, 0.25), (False, 1.0)])
def test_learning_rate_and_clip_fall_with_progress_only_if_annealed(anneal, remaining, monkeypatch):
    seen, rates = watch_loss(monkeypatch), []
    agent = learner(SETUPS["fnn"], anneal=anneal, learning_rate=0.02, clip=0.4)
    monkeypatch.setattr(agent.optimiser, "step", rates.append)
    story = Story(agent)
    story.fill()
    agent.update(story.observations, 0.75)
    assert rates == [pytest.approx(0.02 * remaining)] * len(seen)
    assert [part.clip for part in seen] == [pytest.approx(0.4 * remaining)] * len(seen)


def test_a_segment_begins_with_fresh_state_streams_and_metrics():
    agent = learner(SETUPS["gru"])
    story = Story(agent)
    story.fill()
    agent.update(story.observations, 0.0)
    vector = agent.policy.network.vector.copy()
    agent.begin_segment(np.random.default_rng(1), np.random.default_rng(2))
    observations = story.draw()
    actions = agent.act(observations)
    other = learner(SETUPS["gru"])
    other.policy.network.vector[:] = vector
    assert np.array_equal(actions, other.act(observations))
    assert not agent.mean_metrics().any()


# --- acting ---


def test_actions_are_drawn_with_the_policys_probabilities():
    setup = SETUPS["fnn"]._replace(envs=20_000, memory=20_000, rollout=1)
    agent = learner(setup)
    agent.policy.network.parameters[-1][:] = [0.5, -1.0, 1.5, 0.0]
    observation = np.ones((1, 5), np.float32)
    outputs, _ = TorchTwin(agent.policy.network).step(torch.ones(1, 5).double(), None)
    expected = outputs[0, :-1].softmax(-1).detach().numpy()
    counts = np.bincount(agent.act(np.repeat(observation, 20_000, 0)), minlength=3)
    assert scipy.stats.chisquare(counts, 20_000 * expected / expected.sum()).pvalue > 1e-3


# --- learning ---


def reward_per_step(agent, updates, play):
    """Train; the mean reward of a step in the last tenth of the training."""
    rewards_seen = []
    observations = play.observe()
    for update in range(updates):
        for _ in range(agent.length):
            rewards, done = play.step(agent.act(observations))
            observations = play.observe()
            agent.observe(rewards.astype(np.float32), done, observations)
            rewards_seen.append(rewards.mean())
        agent.update(observations, update / updates)
    return np.mean(rewards_seen[-len(rewards_seen) // 10 :])


class Bandit:
    """Five contexts, each with one rewarded action."""

    best = np.array([2, 0, 1, 1, 0])

    def __init__(self, envs):
        self.envs, self.rng = envs, np.random.default_rng(0)

    def observe(self):
        self.context = self.rng.integers(5, size=self.envs)
        return np.eye(5, dtype=np.float32)[self.context]

    def step(self, actions):
        return 1.0 * (actions == self.best[self.context]), np.ones(self.envs, bool)


class Recall:
    """A bit is shown at step 0 and must be named at step 3: reward 1, else -1."""

    def __init__(self, envs):
        self.envs, self.rng = envs, np.random.default_rng(0)
        self.t = 0

    def observe(self):
        observations = np.zeros((self.envs, 5), np.float32)
        observations[:, 2 + self.t % 3] = 1
        if self.t == 0:
            self.bit = self.rng.integers(2, size=self.envs)
            observations[np.arange(self.envs), self.bit] = 1
        return observations

    def step(self, actions):
        last = self.t == 3
        self.t = (self.t + 1) % 4
        rewards = np.where(actions == self.bit, 1.0, -1.0) * last
        return rewards, np.full(self.envs, last)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_a_contextual_bandit_is_solved(architecture):
    setup = Setup(architecture, 16, 128, 8, 8, 32)
    assert reward_per_step(learner(setup, learning_rate=1e-2, time_limit="terminal"), 50, Bandit(16)) > 0.95


def test_a_bit_seen_three_steps_ago_is_recalled_by_a_gru_and_not_by_an_fnn():
    setup = Setup("gru", 16, 128, 8, 8, 32)
    assert (
        reward_per_step(learner(setup, learning_rate=1e-2, time_limit="terminal"), 120, Recall(16)) * 4 > 0.9
    )
    setup = setup._replace(architecture="fnn")
    assert (
        reward_per_step(learner(setup, learning_rate=1e-2, time_limit="terminal"), 30, Recall(16)) * 4 < 0.3
    )
