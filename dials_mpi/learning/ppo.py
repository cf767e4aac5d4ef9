"""Proximal policy optimisation of one agent (Schulman et al., 2017; Table 6 of the paper).

Independent PPO: every agent has its own policy, optimiser, memory and bootstrap value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.compiled import compiled
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.network import NO_CUTS
from dials_mpi.learning.policy import Policy, log_sum_exp

if TYPE_CHECKING:
    from dials_mpi.config import PPO as PPOConfig
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Region

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


class Samples(NamedTuple):
    """What an update learns from, one column per sequence: [S, n, ...]; ``state [n, H]`` before step 0.

    keep is None where no episode begins inside any sequence (always so for an FNN, whose S is 1).
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    keep: np.ndarray | None
    state: np.ndarray

    def minibatch(self, columns: np.ndarray) -> Samples:
        """The sequences with these numbers; observations as float32."""
        *parts, keep, state = self
        *chosen, keep, state = _choose(*parts, NO_CUTS if keep is None else keep, state, columns)
        return Samples(*chosen, keep if keep.size else None, state)


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
        self.observations = np.zeros((self.length, envs, region.observation_size), np.float32)
        self.actions = np.zeros((self.length, envs), np.int64)
        self.log_probabilities = np.zeros((self.length, envs), np.float32)
        self.values = np.zeros((self.length + 1, envs), np.float32)
        self.rewards = np.zeros((self.length, envs), np.float32)
        self.done = np.zeros((self.length, envs), bool)
        self.states = np.zeros((self.length // self.sequence, envs, network.state_size), np.float32)
        self.begin_segment(np.random.default_rng(0), np.random.default_rng(0))

    def begin_segment(self, actions: np.random.Generator, minibatches: np.random.Generator) -> None:
        """Fresh episodes and the segment's own random streams."""
        self.action_stream, self.minibatch_stream = actions, minibatches
        self.forget()
        self.metrics = np.zeros(len(METRICS))
        self.minibatches = 0

    def forget(self) -> None:
        """Drop what the memory holds since the last update; fresh episodes."""
        self.state = self.policy.network.initial_state(self.envs)
        self.t = 0

    def memory(self) -> dict[str, np.ndarray]:
        """What an update learns from, not copied: arrays [L, E, ...] by name."""
        return {
            "observations": self.observations,
            "actions": self.actions,
            "log_probabilities": self.log_probabilities,
            "values": self.values,
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
        if self.observations.dtype != observations.dtype:  # bits are kept as bits
            self.observations = self.observations.astype(observations.dtype)
        self.observations[t] = observations
        self.actions[t] = decision.actions
        self.log_probabilities[t] = decision.log_probabilities
        self.values[t] = decision.values
        self.state = decision.state
        return decision.actions

    def observe(self, rewards: np.ndarray, done: np.ndarray, final: np.ndarray) -> None:
        """Remember rewards [E] and done [E]; ``final [E, O]``: the observations that the step reached.

        An episode that ended at its time limit counts as terminal, or, with time_limit: bootstrap, the
        value of what it would have gone on with is added to its last reward.
        """
        self.rewards[self.t] = rewards
        self.done[self.t] = done
        if done.any():
            if self.config.time_limit == "bootstrap":
                value = self.policy.value(final[done], self.state[done])
                self.rewards[self.t, done] += self.config.discount * value
            self.state[done] = 0
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
            order = self.minibatch_stream.permutation(columns)
            for first in range(0, columns, per_minibatch):
                batch = samples.minibatch(order[first : first + per_minibatch])
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
        return (self.metrics / max(self.minibatches, 1)).astype(np.float32)

    def _samples(self) -> Samples:
        """The memory cut into sequences, [L, E] -> [S, n]: the same steps, one column per sequence."""
        advantages = generalised_advantages(
            self.rewards,
            self.values,
            self.done,
            self.config.discount,
            self.config.gae_lambda,
            self.config.rollout_steps,
        )
        values = self.values[:-1]
        keep = None
        if self.sequence > 1 and self.done.any():
            keep = np.ones((self.length, self.envs), np.float32)
            keep[1:] = ~self.done[:-1]
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
        sequences, envs, size = self.states.shape
        return Samples(*columns, self.states.reshape(sequences * envs, size))

    def _columns(self, part: np.ndarray) -> np.ndarray:
        cut = part.reshape(self.length // self.sequence, self.sequence, *part.shape[1:])
        return np.ascontiguousarray(cut.swapaxes(0, 1)).reshape(self.sequence, -1, *part.shape[2:])


@compiled
def _choose(observations, actions, log_probabilities, values, advantages, returns, keep, state, columns):
    """Columns of arrays [S, n, ...] and rows of state [n, H], copied; keep [S, n] or nothing."""
    steps, count = actions.shape[0], columns.size
    x = np.empty((steps, count, observations.shape[2]), np.float32)
    a = np.empty((steps, count), np.int64)
    numbers = np.empty((4, steps, count), np.float32)
    k = np.empty((steps, count) if keep.size else (0, 0), np.float32)
    h = np.empty((count, state.shape[1]), np.float32)
    for c in range(count):
        column = columns[c]
        for j in range(state.shape[1]):
            h[c, j] = state[column, j]
        for s in range(steps):
            for j in range(x.shape[2]):
                x[s, c, j] = observations[s, column, j]
            a[s, c] = actions[s, column]
            numbers[0, s, c] = log_probabilities[s, column]
            numbers[1, s, c] = values[s, column]
            numbers[2, s, c] = advantages[s, column]
            numbers[3, s, c] = returns[s, column]
            if keep.size:
                k[s, c] = keep[s, column]
    return x, a, numbers[0], numbers[1], numbers[2], numbers[3], k, h


def loss(
    outputs: np.ndarray, batch: Samples, config: PPOConfig, clip: float
) -> tuple[np.ndarray, np.ndarray]:
    """PPO's loss of one minibatch: its gradient in the outputs [S, n, A + 1], and METRICS.

    The loss is policy_loss + c_1 value_loss - beta entropy (Schulman et al., 2017, Equation 9).
    """
    return _loss(
        outputs,
        batch.actions,
        batch.log_probabilities,
        batch.values,
        batch.advantages,
        batch.returns,
        clip,
        config.normalise_advantages,
        config.clip_value_loss,
        config.value_coefficient,
        config.entropy_coefficient,
    )


@compiled
def _loss(
    outputs,
    actions,
    old_log_probabilities,
    old_values,
    advantages,
    returns,
    clip,
    normalise,
    clip_value,
    value_coefficient,
    entropy_coefficient,
):
    """Sample by sample, in double precision; the gradient written out."""
    steps, columns, width = outputs.shape
    samples, count = steps * columns, width - 1
    gradient, metrics = np.empty_like(outputs), np.zeros(5)
    mean, scale = 0.0, 1.0
    if normalise:
        for advantage in advantages.flat:
            mean += advantage / samples
        squares = 0.0
        for advantage in advantages.flat:
            squares += (advantage - mean) ** 2
        scale = 1 / (np.sqrt(squares / (samples - 1)) + 1e-8)
    for s in range(steps):
        for c in range(columns):
            logits, action = outputs[s, c, :count], actions[s, c]
            total = log_sum_exp(logits)
            log_ratio = logits[action] - total - old_log_probabilities[s, c]
            ratio = np.exp(log_ratio)
            advantage = (advantages[s, c] - mean) * scale
            free = advantage * ratio
            clipped = advantage * min(max(ratio, 1 - clip), 1 + clip)
            d_log_probability = -free / samples if free <= clipped else 0.0

            entropy = 0.0
            for k in range(count):
                entropy -= np.exp(logits[k] - total) * (logits[k] - total)
            for k in range(count):  # d log pi(a) = one-hot(a) - pi and d H = -pi (log pi + H), in the logits
                probability = np.exp(logits[k] - total)
                d_entropy = entropy_coefficient / samples * (logits[k] - total + entropy)
                gradient[s, c, k] = probability * (d_entropy - d_log_probability)
            gradient[s, c, action] += d_log_probability

            value, old = np.float64(outputs[s, c, count]), np.float64(old_values[s, c])
            error = value - returns[s, c]
            squared, d_value = error * error, error
            if clip_value:
                held = old + min(max(value - old, -clip), clip) - returns[s, c]
                if squared < held * held:
                    squared, d_value = held * held, held if abs(value - old) < clip else 0.0
            gradient[s, c, count] = d_value * 2 * value_coefficient / samples

            metrics[0] -= min(free, clipped) / samples
            metrics[1] += squared / samples
            metrics[2] += entropy / samples
            metrics[3] += (ratio - 1 - log_ratio) / samples
            metrics[4] += (abs(ratio - 1) > clip) / samples
    return gradient, metrics


def shorten(gradient: np.ndarray, norm: float) -> None:
    """Scale a gradient vector that is longer than ``norm`` to that length, in place."""
    length = _length(gradient)
    if length > norm:
        gradient *= np.float32(norm / length)


@compiled
def _length(vector):
    total = 0.0
    for number in vector:
        total += np.float64(number) * number
    return np.sqrt(total)


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
