"""The joint policy: what all agents of the whole system do together, trained or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod

import numpy as np

from dials_mpi.config import Config
from dials_mpi.domains.base import Agent, Domain, GlobalSimulator, Rows
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.network import Table
from dials_mpi.learning.policy import Policy

BLOCK = 8
"""Most episodes in one forward pass. The last bits of a matrix product depend on its number of rows: blocks
that are always the same give the same actions wherever, and beside whichever others, episodes are played."""

JointPolicy = Callable[[Rows], np.ndarray]
"""Observations [N, E, O] -> actions int [N, E]; it may remember what it saw before."""


def policies(config: Config, domain: Domain, parameters: np.ndarray) -> list[Policy]:
    """All agents' policies; parameters float32 [N, P], whose rows may be longer than needed."""
    return [Policy(config.policy, agent, row) for agent, row in zip(domain.agents, parameters, strict=True)]


def predictors(config: Config, domain: Domain, parameters: np.ndarray) -> list[Predictor]:
    """All regions' influence predictors; parameters [R, P] as in ``policies``."""
    return [
        Predictor(config.influence, region, row)
        for region, row in zip(domain.regions, parameters, strict=True)
    ]


def tables(config: Config, domain: Domain) -> dict[str, list[Table]]:
    """Names and shapes of the parameters of each agent's policy and, where there are any, of each region's
    predictor."""
    policy = cache(lambda agent: Policy(config.policy, agent).network.table)
    found = {"policy": [policy(agent) for agent in domain.agents]}
    if config.mode != "global":
        predictor = cache(lambda region: Predictor(config.influence, region).network.table)
        alike = [replace(region, agents=()) for region in domain.regions]
        found["predictor"] = [predictor(region) for region in alike]
    return found


def widths(tables: Mapping[str, Sequence[Table]]) -> dict[str, int]:
    """How long the rows are in which the parameters of each kind of network travel: as the longest."""
    return {
        kind: max(sum(prod(shape) for _, shape in table) for table in set(own))
        for kind, own in tables.items()
    }


class TrainedPolicies:
    """The joint policy of all agents' networks, acting by sampling.

    streams: one per episode; each step takes one uniform per agent from it.
    """

    def __init__(self, policies: Sequence[Policy], streams: Sequence[np.random.Generator]) -> None:
        self.policies, self.streams = policies, streams
        self.blocks = [slice(first, first + BLOCK) for first in range(0, len(streams), BLOCK)]
        sizes = [len(streams[block]) for block in self.blocks]
        self.states = [[policy.network.initial_state(size) for size in sizes] for policy in policies]

    def __call__(self, observations: Rows) -> np.ndarray:
        """Actions int64 [N, E] for observations [N, E, O]."""
        uniforms = np.empty((len(self.streams), len(self.policies)), np.float32)
        for row, stream in zip(uniforms, self.streams, strict=True):
            stream.random(out=row, dtype=np.float32)
        actions = np.empty(uniforms.T.shape, np.int64)
        for i, policy in enumerate(self.policies):
            for k, block in enumerate(self.blocks):
                decision = policy.act(observations[i][block], self.states[i][k], uniforms[block, i])
                actions[i, block], self.states[i][k] = decision.actions, decision.state
        return actions


class RandomPolicy:
    """Every agent picks among its actions with equal probability; one stream per episode."""

    def __init__(self, agents: Sequence[Agent], streams: Sequence[np.random.Generator]) -> None:
        self.streams = streams
        self.counts = np.array([agent.actions for agent in agents])

    def __call__(self, observations: Rows) -> np.ndarray:
        """Actions int64 [N, E], whatever the observations."""
        return np.stack([stream.integers(self.counts) for stream in self.streams], axis=1)


def scripted(
    name: str, domain: Domain, simulator: GlobalSimulator, streams: Sequence[np.random.Generator]
) -> JointPolicy:
    """The random policy, or the domain's hand-coded policy of that name, on a simulator of the domain."""
    if name == "random":
        return RandomPolicy(domain.agents, streams)
    controller = domain.controller(name, simulator, streams)
    return lambda observations: controller.act()
