"""Proximal policy optimisation of one agent (Schulman et al., 2017; Table 6 of the paper).

Independent PPO: every agent has its own policy, optimiser, memory and bootstrap value. Where agents share a
policy (sharing.py), they share its parameters and the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.adam import Adam, Gradients
from dials_mpi.learning.builtin import BuiltinNetwork
from dials_mpi.learning.kernels.activations import exp_double
from dials_mpi.learning.kernels.gemm import LANES
from dials_mpi.learning.kernels.sampling import log_sum_exp
from dials_mpi.learning.policy import Policy, drawn

if TYPE_CHECKING:
    from dials_mpi.config import PPO as PPOConfig
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Agent

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")

LARGE = 2**16
"""Parameters of a network whose vectors of Adam do not stay in the second-level cache beside all the rest."""


class Samples(NamedTuple):
    """A minibatch of n sequences of S steps: arrays [S, n, ...].

    keep [S, n]: 0 where an episode begins at that step, else 1; None if S is 1. state [n, H]: before step 0.
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    keep: np.ndarray | None
    state: np.ndarray


class PPO:
    """One agent's learner: policy, optimiser and the memory of the present update.

    The memory holds L = memory_size / E steps of each of E environments. Usage: L times ``act``, then
    ``observe``; then ``update``.
    """

    def __init__(
        self,
        policy_config: PolicyConfig,
        config: PPOConfig,
        agent: Agent,
        envs: int,
        optimiser: Adam | None = None,
        gradients: Gradients | None = None,
    ) -> None:
        """optimiser: of the policy that this agent shares with others; by default it has its own. gradients:
        has room for this agent's; by default it has its own."""
        self.config = config
        self.policy = Policy(policy_config, agent, optimiser.parameters if optimiser else None)
        network = self.policy.network
        network.gradient = gradient = (gradients or Gradients()).room(len(network.vector))
        self.optimiser = optimiser or Adam(network.vector, gradient, config.adam_epsilon)
        self.envs, self.length = envs, config.memory_size // envs
        self.sequence = policy_config.sequence_length if network.state_size else 1
        self.observations = np.zeros((self.length, envs, agent.observation_size), np.float32)
        self.actions = np.zeros((self.length, envs), np.int64)
        self.log_probabilities = np.zeros((self.length, envs), np.float32)
        self.values = np.zeros((self.length + 1, envs), np.float32)
        self.rewards = np.zeros((self.length, envs), np.float32)
        self.done = np.zeros((self.length, envs), bool)
        self.states = np.zeros((self.length // self.sequence, envs, network.state_size), np.float32)
        self.begin_segment(np.random.default_rng(0), np.random.default_rng(0))

    def begin_segment(self, actions: np.random.Generator, minibatches: np.random.Generator) -> None:
        """Begin a segment: empty memory, initial states, metrics at zero, and these random streams."""
        self.action_stream, self.minibatch_stream = actions, minibatches
        self.forget()
        self.metrics = np.zeros(len(METRICS))
        self.losses = 0

    def forget(self) -> None:
        """Empty the memory, and return to the state at the beginning of an episode."""
        self.state = self.policy.network.initial_state(self.envs)
        self.t = 0

    @property
    def _columns(self) -> int:
        """The number of sequences in the memory."""
        return self.length // self.sequence * self.envs

    def batches(self) -> list[tuple[int, int]]:
        """The sizes of minibatches: steps and sequences of each; the last one may be smaller."""
        whole = min(self.config.minibatch_size // self.sequence, self._columns)
        last = self._columns % whole
        return [(self.sequence, size) for size in (whole, last) if size]

    @property
    def _is_large(self) -> bool:
        """Whether ``BuiltinNetwork.descend`` is faster; the length of the gradient must not matter."""
        return self.policy.network.vector.size >= LARGE and not self.config.max_gradient_norm

    @property
    def gradient(self) -> np.ndarray:
        """The network's gradient, float32 [P]."""
        return self.policy.network.require_gradient()

    def memory(self) -> dict[str, np.ndarray]:
        """The memory, not copied: arrays [L, E, ...] by name."""
        return {
            "observations": self.observations,
            "actions": self.actions,
            "log_probabilities": self.log_probabilities,
            "values": self.values,
            "rewards": self.rewards,
            "done": self.done,
        }

    def act(
        self, observations: np.ndarray, advanced: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """Sample actions int64 [E] for observations [E, O], and store the step in the memory.

        advanced: the network's outputs [E, A + 1] and new state [E, H] for them, if they are known.
        """
        t = self.t
        if t % self.sequence == 0:
            self.states[t // self.sequence] = self.state
        uniforms = self.action_stream.random(self.envs, dtype=np.float32)
        if advanced is None:
            decision = self.policy.act(observations, self.state, uniforms)
        else:
            decision = drawn(*advanced, uniforms)
        if self.observations.dtype != observations.dtype:  # bits are stored as bits
            self.observations = self.observations.astype(observations.dtype)
        self.observations[t] = observations
        self.actions[t] = decision.actions
        self.log_probabilities[t] = decision.log_probabilities
        self.values[t] = decision.values
        self.state = decision.state
        return decision.actions

    def observe(self, rewards: np.ndarray, done: np.ndarray, final: np.ndarray) -> None:
        """Store rewards [E] and done [E]; final [E, O]: the observations after the step, before any reset.

        done: the episode reached its time limit. With ``time_limit: terminal`` the value after it is zero;
        with ``bootstrap`` the discounted value of the final observation is added to the last reward.
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
        """Learn from the full memory; arguments as of ``gradients``."""
        network = self.policy.network
        if isinstance(network, BuiltinNetwork) and self._is_large:
            for batch, remaining in self.minibatches(observations, progress):
                outputs = network.forward(batch.observations, batch.state, batch.keep)
                d_outputs = self.loss(outputs, batch, remaining)
                network.descend(d_outputs, self.optimiser, self.config.learning_rate * remaining)
            return
        for learning_rate in self.gradients(observations, progress):
            descend(self.optimiser, self.config, learning_rate)

    def gradients(self, observations: np.ndarray, progress: float) -> Iterator[float]:
        """Fill ``gradient`` for one minibatch after another; arguments as of ``minibatches``.

        Yields the learning rate of the optimiser's step, which must follow.
        """
        network = self.policy.network
        for batch, remaining in self.minibatches(observations, progress):
            outputs = network.forward(batch.observations, batch.state, batch.keep)
            network.backward(self.loss(outputs, batch, remaining))
            yield self.config.learning_rate * remaining

    def minibatches(self, observations: np.ndarray, progress: float) -> Iterator[tuple[Samples, float]]:
        """The minibatches of all epochs, each with the factor of the learning rate and the clip range; the
        memory is empty at the end.

        observations [E, O]: those after the last step in the memory. progress: share of the training done, 0
        to 1; with ``anneal`` the factor falls linearly with it.
        """
        config = self.config
        self.values[self.length] = self.policy.value(observations, self.state)
        remaining = 1 - progress if config.anneal else 1.0
        advantages = generalised_advantages(
            self.rewards,
            self.values,
            self.done,
            config.discount,
            config.gae_lambda,
            config.rollout_steps,
        )
        columns, per_minibatch = self._columns, config.minibatch_size // self.sequence
        for _ in range(config.epochs):
            order = self.minibatch_stream.permutation(columns)
            for first in range(0, columns, per_minibatch):
                yield self._minibatch(advantages, order[first : first + per_minibatch]), remaining
        self.t = 0

    def loss(self, outputs: np.ndarray, batch: Samples, remaining: float) -> np.ndarray:
        """The loss's gradient in the outputs [S, n, A + 1] of a minibatch, whose metrics are counted."""
        gradient, metrics = loss(outputs, batch, self.config, self.config.clip * remaining)
        self.metrics += metrics
        self.losses += 1
        return gradient

    def mean_metrics(self) -> np.ndarray:
        """Means of METRICS over the segment's minibatches, float32 [len(METRICS)]."""
        return (self.metrics / max(self.losses, 1)).astype(np.float32)

    def _minibatch(self, advantages: np.ndarray, columns: np.ndarray) -> Samples:
        """Some sequences of the memory: number b E + e begins at step b S of environment e."""
        observations, actions, numbers, keep, state = _choose(
            self.observations,
            self.actions,
            self.log_probabilities,
            self.values,
            advantages,
            self.done,
            self.states,
            columns,
            self.sequence,
        )
        log_probabilities, values, advantages, returns = numbers
        return Samples(
            observations,
            actions,
            log_probabilities,
            values,
            advantages,
            returns,
            keep if self.sequence > 1 else None,
            state,
        )


@compiled
def _choose(observations, actions, log_probabilities, values, advantages, done, states, columns, steps):
    """Sequences of the memory [L, E, ...], copied; columns [n]: their numbers, as in ``PPO._minibatch``.

    Observations float32 [S, n, O]; actions [S, n]; log-probabilities, values, advantages and returns [4, S,
    n]; keep [S, n]; states [n, H].
    """
    count, envs = columns.size, actions.shape[1]
    x = np.empty((steps, count, observations.shape[2]), np.float32)
    a = np.empty((steps, count), np.int64)
    numbers = np.empty((4, steps, count), np.float32)
    keep = np.empty((steps, count), np.float32)
    h = np.empty((count, states.shape[2]), np.float32)
    for c in range(count):
        block, e = divmod(columns[c], envs)
        for j in range(h.shape[1]):
            h[c, j] = states[block, e, j]
        for s in range(steps):
            t = block * steps + s
            for j in range(x.shape[2]):
                x[s, c, j] = observations[t, e, j]
            a[s, c] = actions[t, e]
            numbers[0, s, c] = log_probabilities[t, e]
            numbers[1, s, c] = values[t, e]
            numbers[2, s, c] = advantages[t, e]
            numbers[3, s, c] = advantages[t, e] + values[t, e]
            keep[s, c] = np.float32(t == 0 or not done[t - 1, e])
    return x, a, numbers, keep, h


def loss(
    outputs: np.ndarray, batch: Samples, config: PPOConfig, clip: float
) -> tuple[np.ndarray, np.ndarray]:
    """PPO's loss of one minibatch: its gradient in the outputs [S, n, A + 1], and METRICS [5].

    The loss is policy_loss + c_1 value_loss - beta entropy (Schulman et al., 2017, Equation 9). clip: the
    clip range, epsilon.
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
    """``loss`` in double precision, with its gradient written by hand."""
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
            ratio = exp_double(log_ratio)
            advantage = (advantages[s, c] - mean) * scale
            unclipped = advantage * ratio
            clipped = advantage * min(max(ratio, 1 - clip), 1 + clip)
            d_log_probability = -unclipped / samples if unclipped <= clipped else 0.0

            entropy = 0.0
            for k in range(count):
                entropy -= exp_double(logits[k] - total) * (logits[k] - total)
            for k in range(count):  # d log pi(a) = one-hot(a) - pi and d H = -pi (log pi + H), in the logits
                probability = exp_double(logits[k] - total)
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

            metrics[0] -= min(unclipped, clipped) / samples
            metrics[1] += squared / samples
            metrics[2] += entropy / samples
            metrics[3] += (ratio - 1 - log_ratio) / samples
            metrics[4] += (abs(ratio - 1) > clip) / samples
    return gradient, metrics


def descend(optimiser: Adam, config: PPOConfig, learning_rate: float) -> None:
    """One step of the optimiser; a long gradient is shortened before it."""
    if config.max_gradient_norm:
        shorten(optimiser.gradient, config.max_gradient_norm)
    optimiser.step(learning_rate)


def shorten(gradient: np.ndarray, norm: float) -> None:
    """Scale a gradient vector [P] that is longer than ``norm`` to that length, in place."""
    length = _length(gradient)
    if length > norm:
        gradient *= np.float32(norm / length)


@compiled
def _length(vector):
    """LANES sums side by side, which the compiler can keep in vectors without another order of the terms."""
    sums = np.zeros(LANES)
    for first in range(0, vector.size, LANES):
        for lane in range(min(LANES, vector.size - first)):
            number = np.float64(vector[first + lane])
            sums[lane] += number * number
    total = 0.0
    for part in sums:
        total += part
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

    rewards, done: [L, E]; values: [L + 1, E]. The sum of discounted temporal-difference errors ends where an
    episode is done, and after every ``rollout_steps`` steps (T of Table 6), where the value is bootstrapped.
    """
    alive = 1.0 - done.astype(np.float32)
    errors = rewards + discount * values[1:] * alive - values[:-1]
    errors = errors.reshape(-1, rollout_steps, rewards.shape[1])
    decay = (discount * gae_lambda * alive).reshape(errors.shape).astype(np.float32)
    for t in range(rollout_steps - 2, -1, -1):
        errors[:, t] += decay[:, t] * errors[:, t + 1]
    return errors.reshape(rewards.shape).astype(np.float32, copy=False)
