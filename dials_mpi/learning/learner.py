"""Trainers of the user's own: what Algorithm 1 needs of a single-agent learner, and how a setting names one.

The setting ``learner`` is ``module:Class``, an entry point in ``GROUP``, or an algorithm of Stable-Baselines3
(``sb3.py``). The built-in PPO (``ppo.py``) does not go through this module: its agents can share simulators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import import_class, is_place, located, registered
from dials_mpi.core.text import printable, shown, told

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Agent, Domain
    from dials_mpi.learning.tables import Table

GROUP = "dials_mpi.learners"
"""The group of entry points under which installed packages register learners."""

PAGE = "docs/trainers.md"
MEMBERS = ("learn", "act", "parameters", "state")
TRIAL = 3
"""Episodes in which a new learner acts before a run begins."""

TAKEN = ("env_steps", "episode_return")
"""Names that ``metrics`` cannot have."""


@dataclass(frozen=True)
class Task:
    """What one agent learns.

    observation_size: O, length of its observation. actions: number of its discrete actions. environments: E,
    in parallel. update_steps: every segment is a multiple of so many steps. total_steps: of the whole run.
    Steps are those of the agent, all environments together.
    """

    observation_size: int
    actions: int
    environments: int
    update_steps: int
    total_steps: int


class Step(NamedTuple):
    """A step of E environments: rewards float32 [E], done bool [E], observations and final float32 [E, O].

    done: the episode ended with this step, by its time limit. final: the observations that the step reached.
    observations: those to act on next; where done, the first ones of a new episode.
    """

    observations: np.ndarray
    rewards: np.ndarray
    done: np.ndarray
    final: np.ndarray


class TrainingEnvironment(Protocol):
    """E environments of one agent: its local simulator, with sources from the influence predictor."""

    def reset(self) -> np.ndarray:
        """Begin new episodes, at different steps of the horizon; the observations float32 [E, O]."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Take a step in every environment; actions: int [E].

        ValueError: they are not E of the agent's actions. RuntimeError: ``reset`` was not called, or all
        steps are taken.
        """
        ...


class Learner(Protocol):
    """A single-agent trainer: ``Class(task, rng, **learner_arguments)``.

    rng: for the initial parameters. The class may have ``metrics``, a tuple of the names that ``learn``
    returns. A segment starts with new simulators and another rng; all else that ``learn`` depends on is in
    ``parameters`` and ``state``, so that a resumed run equals an uninterrupted one.
    """

    parameters: Mapping[str, np.ndarray]
    """All that ``act`` depends on: float32 arrays by name. They are read after ``learn``, and assigned, with
    the same names and shapes, where the run is resumed or the policy acts in the global simulator."""

    state: Mapping[str, np.ndarray]
    """What ``learn`` depends on besides: arrays of numbers by name, of fixed shapes and types, maybe none.
    It is written to checkpoints, and assigned when the run is resumed."""

    def learn(
        self, environment: TrainingEnvironment, steps: int, rng: np.random.Generator
    ) -> Mapping[str, float] | None:
        """Train for a segment: reset the environment, then take exactly steps / E steps in it.

        rng: the only source of random numbers. Returns the values of ``metrics``; those left out are NaN.
        """
        ...

    def act(self, observations: np.ndarray, state: Any, uniforms: np.ndarray) -> tuple[np.ndarray, Any]:
        """Actions int [B] for observations float32 [B, O] of B episodes, and the state for their next step.

        state: None at the episodes' first step, then what was returned before. uniforms: float32 [B] in
        [0, 1), to draw with. Row b depends on the observations and the number of row b only.
        """
        ...


def find(name: str) -> Callable[..., Learner]:
    """The class that the setting ``learner`` names. BadInput: there is none, or its package is missing."""
    if name.partition(":")[0] in ("sb3", "sb3-contrib"):
        return _stable_baselines(name)
    place = located(name, GROUP)
    if not is_place(place):
        known = ", ".join(["ppo", "sb3:PPO", "sb3:DQN", "sb3:A2C", *registered(GROUP)])
        raise BadInput(f"learner is {shown(name)}: choose from {known}, or name a class as module:Class")
    return import_class("learner", name, place)


def _stable_baselines(name: str) -> Callable[..., Learner]:
    try:
        from dials_mpi.learning import sb3

        return sb3.find(name)
    except ImportError as error:
        raise BadInput(
            f"learner is {shown(name)}, but its packages cannot be imported ({printable(str(error))}): "
            "pip install 'dials_mpi[sb3]'"
        ) from error


def create(config: Config, agent: Agent, rng: np.random.Generator | None = None) -> Learner:
    """The configured learner of an agent; rng: for its initial parameters.

    BadInput: as of ``find``; or the class refuses its arguments, or does not fulfil the contract.
    """
    found, name = find(config.learner), f"learner is {shown(config.learner)}"
    task = Task(
        agent.observation_size,
        agent.actions,
        config.envs_per_region,
        config.ppo.memory_size,
        config.total_steps,
    )
    try:
        learner = found(task, rng or np.random.default_rng(0), **config.learner_arguments)
        _require_contract(learner)
    except BadInput as error:
        raise BadInput(f"{name}, and {error}") from error
    except Exception as error:  # the class may raise anything
        raise BadInput(
            f"{name}, and cannot be created with learner_arguments={shown(dict(config.learner_arguments))} "
            f"({told(error)}): correct them"
        ) from error
    return learner


def _require_contract(learner: Any) -> None:
    """BadInput: a member is missing or unusable; the message continues "learner is NAME, and"."""
    kind = type(learner).__qualname__
    missing = [member for member in MEMBERS if not hasattr(learner, member)]
    if missing:
        raise BadInput(f"{kind} has no {missing[0]}, which every learner needs: see {PAGE}")
    kinds = ("parameters", "f4", "float32 arrays"), ("state", "biuf", "arrays of numbers")
    for member, types, words in kinds:
        fault = _fault(getattr(learner, member), types)
        if fault:
            raise BadInput(
                f"{member} of {kind} is not a dictionary of names and {words}, {fault}: see {PAGE}"
            )
    if not sum(array.size for array in learner.parameters.values()):
        raise BadInput(f"parameters of {kind} is empty: see {PAGE}")
    for name in metrics(type(learner)):
        if not name.isidentifier() or name in TAKEN:
            raise BadInput(f"{kind} names a metric {shown(name)}: use another identifier")


def _fault(values: Any, types: str) -> str:
    """Why they are no arrays by name, "" if they are; types: the kinds of their types, or "f4", float32."""
    if not isinstance(values, Mapping):
        return f"but a {type(values).__name__}"
    for name, value in values.items():
        if not isinstance(name, str):
            return f"since a name is {shown(name)}"
        if not isinstance(value, np.ndarray):
            return f"since {printable(name)} is a {type(value).__name__}"
        if not (value.dtype == np.float32 if types == "f4" else value.dtype.kind in types):
            return f"since {printable(name)} is of type {value.dtype}"
    return ""


def acted(learner: Learner, observations: np.ndarray, state: Any, uniforms: np.ndarray) -> tuple[Any, Any]:
    """What ``act`` returns. ValueError: it is no pair of actions and state."""
    found = learner.act(observations, state, uniforms)
    if isinstance(found, tuple) and len(found) == 2:
        return found
    kind = type(learner).__qualname__
    raise ValueError(f"act of {kind} returns a {type(found).__name__}: return (actions, state)")


def checked(actions: Any, count: int, number: int) -> np.ndarray:
    """The actions as int64 [count]. ValueError: they are not so many integers from 0 to number - 1."""
    given = np.asarray(actions)
    if given.shape == (count,) and given.dtype.kind in "iu" and given.min() >= 0 and given.max() < number:
        return given.astype(np.int64)
    raise ValueError(f"the actions are {given!r:.200}: give {count} integers from 0 to {number - 1}")


def metrics(learner: Any) -> tuple[str, ...]:
    """The names of the values that ``learn`` of a class returns."""
    return tuple(getattr(learner, "metrics", ()))


class Sizes(NamedTuple):
    """What a learner of one kind of agent keeps: its parameters' table, and the bytes of its state."""

    table: Table
    state: int


def sizes(config: Config, agent: Agent) -> Sizes:
    """Of the configured learner of an agent. BadInput: as of ``create``."""
    return _sizes(config, agent)


@cache
def _sizes(config: Config, agent: Agent) -> Sizes:
    learner = create(config, agent)
    _try(config, agent, learner)
    table = tuple((name, array.shape) for name, array in learner.parameters.items())
    return Sizes(table, sum(array.nbytes for array in learner.state.values()))


def _try(config: Config, agent: Agent, learner: Any) -> None:
    """BadInput: the learner cannot act, or its parameters and state cannot be assigned."""
    try:
        for member in ("parameters", "state"):
            setattr(learner, member, {name: one.copy() for name, one in getattr(learner, member).items()})
        seen = np.zeros((TRIAL, agent.observation_size), np.float32)
        actions, _ = acted(learner, seen, None, np.full(TRIAL, 0.5, np.float32))
        checked(actions, TRIAL, agent.actions)
    except Exception as error:  # the class may raise anything
        raise BadInput(
            f"learner is {shown(config.learner)}, and fails when its parameters are assigned and it acts "
            f"({told(error)}): see {PAGE}"
        ) from error


def require_usable(config: Config, domain: Domain) -> None:
    """BadInput: the configured learner cannot train the domain's agents."""
    if not config.own_learner:
        return
    for k, region in enumerate(domain.regions):
        if len(region.agents) > 1:
            raise BadInput(
                f"learner is {shown(config.learner)}, and region {k} has {len(region.agents)} agents, which "
                "only learner=ppo trains together: choose regions (blocks) of one agent each, or learner=ppo"
            )
    for agent in dict.fromkeys(domain.agents):
        sizes(config, agent)
