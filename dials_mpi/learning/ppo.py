"""Proximal policy optimisation of one agent (Schulman et al., 2017; Table 6 of the paper).

Independent PPO: every agent has its own policy, optimiser, memory and bootstrap value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dials_mpi.learning.adam import Adam
from dials_mpi.learning.policy import Policy

if TYPE_CHECKING:
    from dials_mpi.config import PPO as PPOConfig
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Region

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


class Samples(NamedTuple):
    """What an update learns from, one column per sequence: [S, n, ...]; ``state [n, H]`` before step 0.

    keep is None where no episode begins inside any sequence (always so for an FNN, whose S is 1).
    """

    observations: Tensor
    actions: Tensor
    log_probabilities: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    keep: Tensor | None
    state: Tensor

    def minibatch(self, columns: Tensor) -> Samples:
        """The sequences with these numbers."""
        along_time = [part.index_select(1, columns) if part is not None else None for part in self[:-1]]
        return Samples(*along_time, self.state.index_select(0, columns))


class PPO:
    """One agent that learns: policy, optimiser and the memory of the present update.

    L is the number of steps stored per environment, memory_size / E. Usage, L times: ``act``, then
    ``observe``; then ``update``.
    """

    def __init__(self, policy_config: PolicyConfig, config: PPOConfig, region: Region, envs: int) -> None:
        self.config = config
        self.policy = Policy(policy_config, region)
        network = self.policy.network
        self.optimiser = Adam(network.vector, network.require_gradient(), config.adam_epsilon)
        self.envs, self.length = envs, config.memory_size // envs
        self.sequence = policy_config.sequence_length if network.state_size else 1
        self.observations = torch.zeros(self.length, envs, region.observation_size)
        self.actions = torch.zeros(self.length, envs, dtype=torch.int64)
        self.log_probabilities = torch.zeros(self.length, envs)
        self.values = torch.zeros(self.length + 1, envs)
        self.rewards = np.zeros((self.length, envs), np.float32)
        self.done = np.zeros((self.length, envs), bool)
        self.states = torch.zeros(self.length // self.sequence, envs, network.state_size)
        self.begin_segment(np.random.default_rng(0), np.random.default_rng(0))

    def begin_segment(self, actions: np.random.Generator, minibatches: np.random.Generator) -> None:
        """Fresh episodes and the segment's own random streams."""
        self.action_stream, self.minibatch_stream = actions, minibatches
        self.forget()
        self.metrics = torch.zeros(len(METRICS))
        self.minibatches = 0

    def forget(self) -> None:
        """Drop what the memory holds since the last update; fresh episodes."""
        self.state = self.policy.network.initial_state(self.envs)
        self.t = 0

    def memory(self) -> dict[str, np.ndarray]:
        """What an update learns from, not copied: arrays [L, E, ...] by name."""
        return {
            "observations": self.observations.numpy(),
            "actions": self.actions.numpy(),
            "log_probabilities": self.log_probabilities.numpy(),
            "values": self.values.numpy(),
            "rewards": self.rewards,
            "done": self.done,
        }

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose and remember actions int64 [E] for observations [E, O]."""
        t = self.t
        if t % self.sequence == 0:
            self.states[t // self.sequence] = self.state
        uniforms = self.action_stream.random(self.envs, dtype=np.float32)
        decision = self.policy.act(observations, self.state, uniforms)
        self.observations[t] = torch.from_numpy(observations)
        self.actions[t] = decision.actions
        self.log_probabilities[t] = decision.log_probabilities
        self.values[t] = decision.values
        self.state = decision.state
        return decision.actions.numpy()

    def observe(self, rewards: np.ndarray, done: np.ndarray, final: np.ndarray) -> None:
        """Remember rewards [E] and done [E]; ``final [E, O]``: the observations that the step reached.

        An episode that ended at its time limit counts as terminal, or, with time_limit: bootstrap, the
        value of what it would have gone on with is added to its last reward.
        """
        self.rewards[self.t] = rewards
        self.done[self.t] = done
        if done.any():
            if self.config.time_limit == "bootstrap":
                value = self.policy.value(final, self.state).numpy()
                self.rewards[self.t] += self.config.discount * value * done
            self.state = self.state * torch.from_numpy(~done).unsqueeze(1)
        self.t += 1

    def update(self, observations: np.ndarray, progress: float) -> None:
        """Learn from the full memory; observations [E, O] follow its last step.

        progress: share of the training done, 0..1; learning rate and clip fall linearly with it.
        """
        config = self.config
        self.values[self.length] = self.policy.value(observations, self.state)
        remaining = 1 - progress if config.anneal else 1.0
        samples = self._samples()
        columns = samples.state.shape[0]
        per_minibatch = config.minibatch_size // self.sequence
        for _ in range(config.epochs):
            order = torch.from_numpy(self.minibatch_stream.permutation(columns))
            for chosen in order.split(per_minibatch):
                batch = samples.minibatch(chosen)
                outputs = self.policy.network.forward(batch.observations, batch.state, batch.keep)
                gradient, metrics = loss(outputs, batch, config, config.clip * remaining)
                self.policy.network.backward(gradient)
                if config.max_gradient_norm:
                    shorten(self.policy.network.gradient, config.max_gradient_norm)
                self.optimiser.step(config.learning_rate * remaining)
                self.metrics += metrics
                self.minibatches += 1
        self.t = 0

    def mean_metrics(self) -> np.ndarray:
        """Means of METRICS over the segment's minibatches, float32 [len(METRICS)]."""
        return (self.metrics / max(self.minibatches, 1)).numpy()

    def _samples(self) -> Samples:
        """The memory cut into sequences, [L, E] -> [S, n]: the same steps, one column per sequence."""
        advantages = torch.from_numpy(
            generalised_advantages(
                self.rewards,
                self.values.numpy(),
                self.done,
                self.config.discount,
                self.config.gae_lambda,
                self.config.rollout_steps,
            )
        )
        values = self.values[:-1]
        keep = None
        if self.sequence > 1 and self.done.any():
            keep = torch.ones(self.length, self.envs)
            keep[1:] = torch.from_numpy(~self.done[:-1]).to(torch.float32)
        along_time = (
            self.observations,
            self.actions,
            self.log_probabilities,
            values,
            advantages,
            advantages + values,
            keep,
        )
        columns = [self._columns(part) if part is not None else None for part in along_time]
        return Samples(*columns, self.states.flatten(0, 1))

    def _columns(self, part: Tensor) -> Tensor:
        cut = part.view(self.length // self.sequence, self.sequence, *part.shape[1:])
        return cut.transpose(0, 1).flatten(1, 2)


def loss(outputs: Tensor, batch: Samples, config: PPOConfig, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's loss of one minibatch: its gradient in the outputs [S, n, A + 1], and METRICS.

    The loss is policy_loss + c_1 value_loss - beta entropy (Schulman et al., 2017, Equation 9). Its
    gradient is written out because at these sizes autograd would take longer than the network.
    """
    samples = batch.actions.numel()
    gradient = torch.empty_like(outputs)
    all_log_probabilities = outputs[..., :-1].log_softmax(-1)
    probabilities = all_log_probabilities.exp()
    actions = batch.actions.unsqueeze(-1)
    log_ratio = all_log_probabilities.gather(-1, actions).squeeze(-1) - batch.log_probabilities
    ratio = log_ratio.exp()

    advantages = batch.advantages
    if config.normalise_advantages:
        deviation, mean = torch.std_mean(advantages)
        advantages = (advantages - mean) / (deviation + 1e-8)
    free, clipped = advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)
    policy_loss = -torch.minimum(free, clipped).mean()
    d_log_probability = (free * (free <= clipped)).div_(-samples)

    entropies = -(probabilities * all_log_probabilities).sum(-1, keepdim=True)
    entropy = entropies.mean()
    # d log pi(a) = one-hot(a) - pi and d H = -pi (log pi + H), in the logits.
    d_logits = (all_log_probabilities + entropies).mul_(config.entropy_coefficient / samples)
    d_logits.sub_(d_log_probability.unsqueeze(-1)).mul_(probabilities)
    d_logits.scatter_add_(-1, actions, d_log_probability.unsqueeze(-1))
    gradient[..., :-1] = d_logits

    error = d_value = outputs[..., -1] - batch.returns
    squared = error.square()
    if config.clip_value_loss:
        change = outputs[..., -1] - batch.values
        held = batch.values + change.clamp(-clip, clip) - batch.returns
        d_value = torch.where(squared >= held.square(), error, held * (change.abs() < clip))
        squared = torch.maximum(squared, held.square())
    gradient[..., -1] = d_value * (2 * config.value_coefficient / samples)

    approx_kl = (ratio - 1 - log_ratio).mean()
    clip_fraction = ((ratio - 1).abs() > clip).sum() / samples
    return gradient, torch.stack([policy_loss, squared.mean(), entropy, approx_kl, clip_fraction])


def shorten(gradient: Tensor, norm: float) -> None:
    """Scale a gradient vector that is longer than ``norm`` to that length, in place."""
    gradient.mul_((norm / gradient.norm()).clamp_(max=1.0))


def generalised_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    done: np.ndarray,
    discount: float,
    gae_lambda: float,
    rollout_steps: int,
) -> np.ndarray:
    """Generalised advantage estimates (Schulman et al., 2016), float32 [L, E].

    rewards, done: [L, E]; values: [L + 1, E]. The sum of discounted errors is cut every ``rollout_steps``
    steps (T of Table 6), where the value function takes over, and where an episode is done.
    """
    alive = 1.0 - done.astype(np.float32)
    errors = rewards + discount * values[1:] * alive - values[:-1]
    errors = errors.reshape(-1, rollout_steps, rewards.shape[1])
    decay = (discount * gae_lambda * alive).reshape(errors.shape).astype(np.float32)
    for t in range(rollout_steps - 2, -1, -1):
        errors[:, t] += decay[:, t] * errors[:, t + 1]
    return errors.reshape(rewards.shape).astype(np.float32, copy=False)
