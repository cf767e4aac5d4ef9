"""The memory of a rank that grows with the system, in bytes, computed from the configuration.

docs/speed.md has the formula. What does not grow (Python, its libraries, machine code, one fit) and the
simulators are measured (sample.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dials_mpi.algorithm.collect import chunks, parts
from dials_mpi.bench.projection import most_episodes
from dials_mpi.config import Config
from dials_mpi.domains.base import Agent, Domain, Region
from dials_mpi.learning.stored import stored
from dials_mpi.learning.tables import network_state, policy_sizes, tables, widths
from dials_mpi.parallel.communicator import BYTES_UNDER_WAY

OBJECTS = 8_000
"""Bytes of Python objects for a region with one agent on a rank that trains it; a global rank needs about as
many."""

SAMPLE = 4 + 4 + 4 + 8 + 1
"""Bytes of a step in an agent's memory without the observation: three numbers, the action, and whether the
episode ended."""

ACT = 1 + 4
"""Bytes of an agent's action and reward in a collection."""


@dataclass(frozen=True)
class Growth:
    """What grows on a rank, for one configuration. has_workers: whether there are ranks that only train."""

    config: Config
    domain: Domain
    has_workers: bool = True

    def learners(self, regions: Iterable[int]) -> float:
        """Networks with their optimisers, and the agents' memories, of some regions on the rank that trains
        them. What a learner of the user's own needs beside its state is not known."""
        config, total = self.config, 0.0
        for k in regions:
            agents = self.domain.regions[k].agents
            policies = self._parameters["policy"] if config.shared else self._state["policy"]
            total += self._state.get("predictor", 0) + policies * len(agents) + OBJECTS
            total += 0 if config.own_learner else sum(self._memory(self.domain.agents[i]) for i in agents)
        return total

    def datasets(self, regions: Iterable[int]) -> float:
        """The datasets of a refit, of some regions on the rank that fits their predictors."""
        if self.config.mode != "dials":
            return 0.0
        return sum(self.config.dataset_episodes * self._episode(self.domain.regions[k]) for k in regions)

    def networks(self) -> float:
        """The parameters of all networks, on a global rank."""
        return sum(self._tables.values()) + OBJECTS * len(self.domain.regions)

    def playing(self) -> float:
        """The most that a global rank needs at a time beside its networks: the networks that arrive before
        those in use are freed, a chunk of a collection and its copies on the way, or episodes of an
        evaluation."""
        return max(max(self._tables.values()), self.collected(), self._evaluated())

    def collected(self) -> float:
        """The part of ``playing`` for a collection; 0 without one."""
        config = self.config
        if config.mode != "dials":
            return 0.0
        most = most_episodes(config, config.dataset_episodes)
        together = parts(self.domain, most)[0].stop
        every = chunks(self.domain, slice(0, most), config.collect_chunk)
        episodes = most if config.overlapped else every[0].stop
        acts = ACT * len(self.domain.agents) if config.datasets != "none" else 0
        data, states = self.recorded(episodes), min(together, episodes) * self._states
        copies = min(data, BYTES_UNDER_WAY) if self.has_workers else 0.0
        return data + max(states, copies) + episodes * self.domain.horizon * acts

    def recorded(self, episodes: int) -> float:
        """The datasets of all regions with so many episodes."""
        return episodes * sum(map(self._episode, self.domain.regions))

    def sent(self, regions: Iterable[int]) -> float:
        """The copy of the parameters of one kind that a rank sends to the global ranks."""
        mine = [self.domain.regions[k] for k in regions]
        numbers = {"policy": sum(len(region.agents) for region in mine), "predictor": len(mine)}
        return max(size * numbers[kind] for kind, size in self._parameters.items())

    def worker(self, regions: Iterable[int]) -> float:
        """All of it on a rank that only trains. (The datasets are freed before parameters are sent, but the
        C library keeps the memory of such small arrays.)"""
        mine = list(regions)
        return self.learners(mine) + self.datasets(mine) + self.sent(mine)

    def root(self) -> float:
        """All of it on a rank that only plays."""
        return self.networks() + self.playing()

    def alone(self) -> float:
        """All of it on the only rank."""
        every, one = (
            range(len(self.domain.regions)),
            Growth(replace(self.config, global_ranks=1), self.domain),
        )
        collecting = one.datasets(every) + one.collected()
        return one.learners(every) + one.networks() + max(collecting, one.playing())

    def _evaluated(self) -> float:
        together = parts(self.domain, most_episodes(self.config, self.config.evaluation_episodes))[0].stop
        predicts = self.config.mode != "global"
        return (self.recorded(together) if predicts else 0.0) + together * self._states

    def _episode(self, region: Region) -> float:
        """Bytes of an episode of a region's dataset."""
        bits = np.dtype(region.input_type) == np.uint8
        inputs = -(-region.input_size // 8) if bits else 4 * region.input_size
        return float(self.domain.horizon * (inputs + len(region.source_classes)))

    def _memory(self, agent: Agent) -> float:
        """Bytes of an agent's memory for an update, with the states of its network."""
        steps, state = self.config.ppo.memory_size, self._state_size(agent)
        states = steps // self.config.policy.sequence_length + self.config.envs_per_region
        return steps * (4 * agent.observation_size + SAMPLE) + 4 * state * states

    def _state_size(self, agent: Agent) -> int:
        return network_state(self.config.policy, *policy_sizes(agent), agent.description)

    @cached_property
    def _states(self) -> float:
        """Bytes of the states of all policies in an episode."""
        if self.config.own_learner:
            return 0.0
        return 4.0 * sum(self._state_size(agent) for agent in self.domain.agents)

    @cached_property
    def _parameters(self) -> dict[str, int]:
        """Bytes of the parameters of one network by kind."""
        return {kind: 4 * width for kind, width in widths(tables(self.config, self.domain)).items()}

    @cached_property
    def _state(self) -> dict[str, int]:
        """Bytes of one network by kind, with its optimiser."""
        found = dict.fromkeys(self._parameters, 0)
        for one in stored(self.config, self.domain):
            found[one.kind] += one.width * np.dtype(one.dtype).itemsize
        return found

    @cached_property
    def _tables(self) -> dict[str, int]:
        """Bytes of the parameters of all networks by kind."""
        owners = {"policy": len(self.domain.agents), "predictor": len(self.domain.regions)}
        return {kind: size * owners[kind] for kind, size in self._parameters.items()}
