"""Joint policies: the actions of all agents of the whole system, by trained networks or other rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from dials_mpi.config import Config
from dials_mpi.domains.base import Agent, Domain, GlobalSimulator, Rows

# The functions that build networks import them: that loads numba, which checks of checkpoints do without.
if TYPE_CHECKING:
    from dials_mpi.learning.influence import Predictor

T = TypeVar("T")

BLOCK = 8
"""The most episodes in one forward pass. The last bits of a matrix product depend on its number of rows. With
fixed blocks an episode's actions depend neither on the rank that plays it nor on the number of other
episodes."""

JointPolicy = Callable[[Rows], np.ndarray]
"""Observations [N, E, O] -> actions int [N, E]; it may have a state."""


class Actor(Protocol):
    """One agent's policy: a ``Policy``, or what a learner of the user's own has learned."""

    @property
    def act(self) -> Callable[[np.ndarray, Any, np.ndarray], Any]:
        """Observations [B, O], state and uniforms float32 [B] -> an object with ``actions`` int [B] and the
        next ``state``."""
        ...

    def initial_state(self, batch: int) -> Any:
        """The state of so many episodes at their beginning."""
        ...


@runtime_checkable
class GreedyActor(Actor, Protocol):
    """A policy that also knows its most probable action."""

    def most_probable(self, observations: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Observations [B, O], state -> actions int [B], and the next state."""
        ...


def policies(
    config: Config, domain: Domain, parameters: np.ndarray, numbers: range | None = None
) -> Sequence[Actor]:
    """The policies of the agents with these numbers, by default of all.

    parameters: float32 [len(numbers), W]; the first P numbers of a row are the network's. BadInput: as of
    ``learner.create``.
    """
    found = zip(_of(domain.agents, numbers), parameters, strict=True)
    if config.own_learner:
        from dials_mpi.algorithm.own import OwnAgent

        return [OwnAgent(config, agent, row) for agent, row in found]
    from dials_mpi.learning.policy import Policy

    return [Policy(config.policy, agent, row) for agent, row in found]


def predictors(
    config: Config, domain: Domain, parameters: np.ndarray, numbers: range | None = None
) -> list[Predictor]:
    """The influence predictors of the regions with these numbers; arguments as of ``policies``."""
    from dials_mpi.learning.influence import Predictor

    found = zip(_of(domain.regions, numbers), parameters, strict=True)
    return [Predictor(config.influence, region, row) for region, row in found]


class Partners(Protocol):
    """The ranks that play the same episodes, as one of them sees them: each acts for some of the agents.

    agents, regions: the numbers of those whose networks this rank computes. everyone: N, the number of all
    agents.
    """

    agents: range
    regions: range
    everyone: int

    def begin(self, episodes: int) -> None:
        """So many episodes will be played side by side, from their beginning."""
        ...

    def complete(self, actions: np.ndarray) -> None:
        """Fill in the rows of actions, int64 [N, E], of the agents for which others act.

        SimulatorFailure: a simulator of another rank has failed.
        """
        ...


class Alone:
    """The ``Partners`` of a rank that acts for all agents."""

    def __init__(self, agents: int, regions: int = 0) -> None:
        self.agents, self.regions, self.everyone = range(agents), range(regions), agents

    def begin(self, episodes: int) -> None:
        """Nothing to do."""

    def complete(self, actions: np.ndarray) -> None:
        """Nothing to do."""


class TrainedPolicies:
    """The agents' trained policies; they sample their actions.

    policies: of all agents, or with partners of those for which this rank acts. streams: one per episode;
    each decision takes one uniform number per agent from it, on every rank that plays the episode.
    """

    def __init__(
        self,
        policies: Sequence[Actor],
        streams: Sequence[np.random.Generator],
        partners: Partners | None = None,
    ) -> None:
        self.policies, self.streams = policies, streams
        self.partners = partners or Alone(len(policies))
        self.blocks = _blocks(len(streams))
        self.states = _initial_states(policies, self.blocks)
        self.partners.begin(len(streams))

    def __call__(self, observations: Rows) -> np.ndarray:
        """Actions int64 [N, E] for observations [N, E, O]."""
        uniforms = np.empty((len(self.streams), self.partners.everyone), np.float32)
        for row, stream in zip(uniforms, self.streams, strict=True):
            stream.random(out=row, dtype=np.float32)
        actions = np.empty(uniforms.T.shape, np.int64)
        for i, policy, states in zip(self.partners.agents, self.policies, self.states, strict=True):
            for k, block in enumerate(self.blocks):
                decision = policy.act(observations[i][block], states[k], uniforms[block, i])
                actions[i, block], states[k] = decision.actions, decision.state
        self.partners.complete(actions)
        return actions


class GreedyPolicies:
    """All agents' trained policies; each takes its most probable action. episodes: how many, side by side."""

    def __init__(self, policies: Sequence[GreedyActor], episodes: int) -> None:
        self.policies = policies
        self.blocks = _blocks(episodes)
        self.states = _initial_states(policies, self.blocks)

    def __call__(self, observations: Rows) -> np.ndarray:
        """Actions int64 [N, E] for observations [N, E, O]."""
        actions = np.empty((len(self.policies), self.blocks[-1].stop), np.int64)
        for i, policy in enumerate(self.policies):
            for k, block in enumerate(self.blocks):
                actions[i, block], self.states[i][k] = policy.most_probable(
                    observations[i][block], self.states[i][k]
                )
        return actions


class RandomPolicy:
    """Each agent draws one of its actions with equal probability; one stream per episode."""

    def __init__(self, agents: Sequence[Agent], streams: Sequence[np.random.Generator]) -> None:
        self.streams = streams
        self.counts = np.array([agent.actions for agent in agents])

    def __call__(self, observations: Rows) -> np.ndarray:
        """Actions int64 [N, E]; the observations are ignored."""
        return np.stack([stream.integers(self.counts) for stream in self.streams], axis=1)


def _of(owners: Sequence[T], numbers: range | None) -> list[T]:
    return list(owners) if numbers is None else [owners[i] for i in numbers]


def _blocks(episodes: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, episodes)) for first in range(0, episodes, BLOCK)]


def _initial_states(policies: Sequence[Actor], blocks: Sequence[slice]) -> list[list[Any]]:
    sizes = [block.stop - block.start for block in blocks]
    return [[policy.initial_state(size) for size in sizes] for policy in policies]


def scripted(
    name: str, domain: Domain, simulator: GlobalSimulator, streams: Sequence[np.random.Generator]
) -> JointPolicy:
    """The random policy, or the domain's hand-coded policy of that name, on a simulator of the domain."""
    if name == "random":
        return RandomPolicy(domain.agents, streams)
    controller = domain.controller(name, simulator, streams)
    return lambda observations: controller.act()
