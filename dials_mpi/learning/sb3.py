"""Algorithms of Stable-Baselines3 and its contrib package as learners: ``learner: sb3:DQN``.

They draw from the global random numbers of Python, numpy and torch. While one trains, these are seeded from
the stream of the segment; afterwards they are as before.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from dials_mpi.core.errors import BadInput
from dials_mpi.core.logging import LOG
from dials_mpi.core.text import shown
from dials_mpi.learning.learner import Task, TrainingEnvironment

torch.set_num_threads(1)  # results must not depend on the number of cores

PPO_METRICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
METRICS = {
    "sb3:PPO": PPO_METRICS,
    "sb3:A2C": ("policy_loss", "value_loss", "entropy_loss"),
    "sb3:DQN": ("loss", "exploration_rate"),
    "sb3-contrib:RecurrentPPO": PPO_METRICS,
    "sb3-contrib:QRDQN": ("loss", "exploration_rate"),
    "sb3-contrib:TRPO": ("policy_objective", "value_loss", "kl_divergence_loss"),
}
"""The algorithms for discrete actions, and the figures that they log."""

OURS = ("env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model", "monitor_wrapper")
"""Arguments that the adapter gives itself."""

BUFFER_SIZE = 10_000
"""Default of ``buffer_size`` here: the buffer of each agent is in every checkpoint."""

UNSAVED = ("start_time",)
"""Numbers of an algorithm that do not affect results."""


@cache
def find(name: str) -> type[StableBaselines]:
    """The learner of an algorithm. BadInput: there is none of this name. ImportError: no contrib package."""
    if name not in METRICS:
        raise BadInput(f"learner is {shown(name)}: choose from {', '.join(METRICS)}")
    package, _, short = name.partition(":")
    if package == "sb3":
        import stable_baselines3

        algorithm = getattr(stable_baselines3, short)
    else:
        import sb3_contrib

        algorithm = getattr(sb3_contrib, short)
    return type(short, (StableBaselines,), {"algorithm": algorithm, "metrics": METRICS[name]})


class StableBaselines:
    """An algorithm of Stable-Baselines3 for one agent; see ``Learner``.

    Exploration and other schedules are those of the whole run, of ``task.total_steps``.
    """

    algorithm: type[BaseAlgorithm]
    metrics: tuple[str, ...] = ()

    def __init__(self, task: Task, rng: np.random.Generator, **arguments: Any) -> None:
        """arguments: of the algorithm's class. BadInput: they do not fit the run."""
        given = sorted(set(OURS) & arguments.keys())
        if given:
            raise BadInput(f"learner_arguments has {given[0]}, which the run decides: remove it")
        self.task, self._environments = task, Environments(task)
        with seeded(rng), _warnings_to_log():
            self.model: Any = self.algorithm(
                env=self._environments, device="cpu", **self._completed(arguments)
            )
        self._require_whole_updates()
        self._empty_moments: dict[str, np.ndarray] = {}

    def learn(
        self, environment: TrainingEnvironment, steps: int, rng: np.random.Generator
    ) -> Mapping[str, float]:
        """See ``Learner``."""
        model, means, total = self.model, Means(), self.task.total_steps
        update = type(model)._update_current_progress_remaining
        model._update_current_progress_remaining = lambda done, _: update(model, min(done, total), total)
        model.set_logger(means)
        self._environments.inner = environment
        with seeded(rng) as seed:
            model.action_space.seed(seed)
            model.set_env(self._environments)  # so that it resets them
            if hasattr(model, "_last_lstm_states"):
                model._last_lstm_states = _zeros_like(model._last_lstm_states)
            model.learn(steps, reset_num_timesteps=False, log_interval=None)
        return {name: mean for name, mean in means.means().items() if name in self.metrics}

    def act(self, observations: np.ndarray, state: Any, uniforms: np.ndarray) -> tuple[np.ndarray, Any]:
        """See ``Learner``. Algorithms with a stochastic policy draw; those with values take the best one."""
        policy, seen = self.model.policy, torch.tensor(observations)
        policy.set_training_mode(False)
        with torch.no_grad():
            if isinstance(self.model, OffPolicyAlgorithm):
                return policy._predict(seen, deterministic=True).numpy(), None
            if hasattr(policy, "lstm_actor"):
                state = state or self._initial_state(len(observations))
                drawn, state = policy.get_distribution(seen, state, torch.zeros(len(observations)))
            else:
                drawn = policy.get_distribution(seen)
        return draw(drawn.distribution.probs.numpy(), uniforms), state

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The policy's tensors of float32; with a target network, its, too."""
        return {name: part for name, part in self._tensors().items() if part.dtype == np.float32}

    @parameters.setter
    def parameters(self, values: Mapping[str, np.ndarray]) -> None:
        """Set them."""
        _assign(self.model.policy.state_dict(), values)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Other tensors of the policy, the optimiser, the counters, and the replay buffer if there is one."""
        others = {name: part for name, part in self._tensors().items() if part.dtype != np.float32}
        numbers = np.array([getattr(self.model, name) for name in self._counters()], np.float64)
        parts = {"tensors": others, "optimiser": self._moments(), "buffer": self._buffer()}
        named = {f"{part}.{name}": one for part, held in parts.items() for name, one in held.items()}
        return {**named, "counters": numbers}

    @state.setter
    def state(self, values: Mapping[str, np.ndarray]) -> None:
        """Set it."""
        _assign(self.model.policy.state_dict(), _within("tensors", values))
        self._set_moments(_within("optimiser", values))
        _set_numbers(self.model, dict(zip(self._counters(), values["counters"], strict=True)))
        buffer = _within("buffer", values)
        for name, array in buffer.items():
            if array.ndim:
                setattr(self.model.replay_buffer, name, array)
        _set_numbers(getattr(self.model, "replay_buffer", None), buffer)

    def _completed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with our defaults, and with torch's classes in place of their names."""
        task, recurrent = self.task, self.algorithm.__name__ == "RecurrentPPO"
        ours: dict[str, Any] = {"policy": "MlpLstmPolicy" if recurrent else "MlpPolicy"}
        if issubclass(self.algorithm, OffPolicyAlgorithm):
            ours["buffer_size"] = BUFFER_SIZE
        else:
            ours["n_steps"] = task.update_steps // task.environments
        found = {**ours, **deepcopy(dict(arguments))}
        kwargs = found.get("policy_kwargs") or {}
        for name, module in (("activation_fn", torch.nn), ("optimizer_class", torch.optim)):
            if isinstance(kwargs.get(name), str):
                kwargs[name] = getattr(module, kwargs[name])
        return found

    def _require_whole_updates(self) -> None:
        """BadInput: a segment would end within one of the algorithm's rounds of steps."""
        off_policy = isinstance(self.model, OffPolicyAlgorithm)
        if off_policy and self.model.train_freq.unit.value != "step":
            raise BadInput("train_freq counts episodes, whose number in a segment is not known: give steps")
        key = "train_freq" if off_policy else "n_steps"
        steps = self.model.train_freq.frequency if off_policy else self.model.n_steps
        unit = steps * self.task.environments
        if self.task.update_steps % unit:
            raise BadInput(
                f"{key}={steps} in each of envs_per_region={self.task.environments} environments does not "
                f"divide ppo.memory_size={self.task.update_steps}: make that a multiple of {unit}"
            )

    def _initial_state(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        layers, _, size = self.model.policy.lstm_hidden_state_shape
        return torch.zeros(layers, batch, size), torch.zeros(layers, batch, size)

    def _tensors(self) -> dict[str, np.ndarray]:
        """Copies of the policy's tensors, by name."""
        return {name: part.numpy().copy() for name, part in self.model.policy.state_dict().items()}

    def _counters(self) -> list[str]:
        """The algorithm's attributes that are numbers: what it counts, and some of its settings."""
        return [name for name in _numbers_of(self.model) if name not in UNSAVED]

    def _buffer(self) -> dict[str, np.ndarray]:
        """The replay buffer's arrays, and its numbers as arrays []; empty where there is none."""
        buffer = getattr(self.model, "replay_buffer", None)
        arrays = (
            {name: one for name, one in vars(buffer).items() if isinstance(one, np.ndarray)} if buffer else {}
        )
        return arrays | {name: np.array(getattr(buffer, name), np.float64) for name in _numbers_of(buffer)}

    def _moments(self) -> dict[str, np.ndarray]:
        """The optimiser's state of each parameter; ``present`` [n]: whether it has any yet, else zeros."""
        optimiser = self.model.policy.optimizer
        if not self._empty_moments:
            self._empty_moments = _empty_moments(self.model.policy)
        held = _named(optimiser)
        return {
            **self._empty_moments,
            **held,
            "present": np.array([int(i in optimiser.state_dict()["state"]) for i in _parameters(optimiser)]),
        }

    def _set_moments(self, values: Mapping[str, np.ndarray]) -> None:
        optimiser, state = self.model.policy.optimizer, {}
        for i in np.flatnonzero(values["present"]).tolist():
            named = _within(str(i), values)
            state[i] = {
                name: torch.tensor(array) if array.dtype == np.float32 else array.item()
                for name, array in named.items()
            }
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


class Environments(VecEnv):
    """An agent's environments as Stable-Baselines3 expects them; inner: those of the present segment."""

    inner: TrainingEnvironment

    def __init__(self, task: Task) -> None:
        box = Box(-np.inf, np.inf, (task.observation_size,), np.float32)
        super().__init__(task.environments, box, Discrete(task.actions))

    def reset(self) -> np.ndarray:
        """The first observations [E, O]."""
        return self.inner.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take the step; the observations that end an episode are in the infos."""
        step = self.inner.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for e in np.flatnonzero(step.done):
            infos[e] = {"terminal_observation": step.final[e], "TimeLimit.truncated": True}
        return step.observations, step.rewards, step.done, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """None for each environment: they have no attributes of their own."""
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not available."""
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **named: Any) -> list[Any]:
        """Not available."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each environment."""
        return [False for _ in self._get_indices(indices)]


class Means(Logger):
    """Keeps the means of what an algorithm logs, and prints nothing."""

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self._logged: dict[str, list[float]] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """Add a value to its mean."""
        if isinstance(value, int | float | np.number):
            self._logged.setdefault(key.rpartition("/")[2], []).append(float(value))

    def means(self) -> dict[str, float]:
        """By name, without the group of the name."""
        return {name: float(np.mean(values)) for name, values in self._logged.items()}


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[int]:
    """Seed the global random numbers of Python, numpy and torch from a stream, which gives the seed."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what Stable-Baselines3 draws from)
    torch.manual_seed(seed)
    try:
        yield seed
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


@contextmanager
def _warnings_to_log() -> Iterator[None]:
    """Every rank and agent would print the same."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(" ".join(str(one.message).split()) for one in found):
        LOG.info("Stable-Baselines3: %s", text)


def draw(probabilities: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Actions int64 [B] with probabilities [B, A], given uniforms [B] in [0, 1)."""
    ends = np.cumsum(probabilities, axis=1, dtype=np.float64)
    below = uniforms[:, None] * ends[:, -1:] >= ends
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)


def _numbers_of(thing: Any) -> list[str]:
    """The names of an object's attributes that are numbers, in a fixed order."""
    values = vars(thing) if thing is not None else {}
    return sorted(name for name, value in values.items() if isinstance(value, bool | int | float))


def _set_numbers(thing: Any, values: Mapping[str, Any]) -> None:
    """Set some of ``_numbers_of``; each keeps its type."""
    for name in set(_numbers_of(thing)) & values.keys():
        setattr(thing, name, type(getattr(thing, name))(values[name]))


def _within(part: str, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a part, without its name."""
    return {name.removeprefix(f"{part}."): one for name, one in values.items() if name.startswith(f"{part}.")}


def _assign(tensors: Mapping[str, torch.Tensor], values: Mapping[str, np.ndarray]) -> None:
    with torch.no_grad():
        for name, array in values.items():
            tensors[name].copy_(torch.from_numpy(array))


def _zeros_like(states: Any) -> Any:
    """Of recurrent states: tensors in (named) tuples."""
    if isinstance(states, torch.Tensor):
        return torch.zeros_like(states)
    parts = [_zeros_like(part) for part in states]
    return type(states)(*parts) if hasattr(states, "_fields") else tuple(parts)


def _parameters(optimiser: torch.optim.Optimizer) -> range:
    return range(sum(len(group["params"]) for group in optimiser.param_groups))


def _named(optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """What an optimiser keeps: copies by the parameter's number and the quantity's name."""
    return {
        f"{i}.{name}": value.numpy().copy() if isinstance(value, torch.Tensor) else np.array(value)
        for i, held in optimiser.state_dict()["state"].items()
        for name, value in held.items()
        if value is not None
    }


def _empty_moments(policy: Any) -> dict[str, np.ndarray]:
    """Zeros in the shapes of what the policy's optimiser keeps, found by a step of another one like it."""
    own = [parameter for group in policy.optimizer.param_groups for parameter in group["params"]]
    parameters = [torch.nn.Parameter(torch.zeros_like(one)) for one in own]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser = policy.optimizer_class(parameters, lr=1.0, **policy.optimizer_kwargs)
    optimiser.step()
    return {name: np.zeros_like(array) for name, array in _named(optimiser).items()}
