"""A small domain whose agents and regions differ in every size; one region holds two agents.

Four counters, each pushed on by another one. For ours it is a domain from outside: unequal_domain:Unequal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, State
from dials_mpi.domains.clocks import Clocks
from dials_mpi.settings import setting

SIZES = (3, 5, 2, 4)
"""Up to what each counter counts; it is also what its agent sees, one-hot."""

AGENTS = tuple(Agent(size, actions) for size, actions in zip(SIZES, (2, 3, 4, 2), strict=True))

REGIONS = (
    Region((2, 0), 5, (4, 2), "float32"),  # counter 0 is pushed by 3, and 2 by 1
    Region((1,), 5, (3,)),  # by 0, as far as 3 classes tell
    Region((3,), 4, (2,)),  # by 2
)

PUSHING = ((1, 3), (0,), (2,))
"""By region: the counters that are its sources."""

SLIP = 0.1
"""Probability that a counter stays where it is."""


@dataclass(frozen=True)
class UnequalConfig:
    """Its settings."""

    horizon: int = setting(20, "Length of an episode", low=1)
    decision_every: int = setting(1, "Steps per decision", low=1)
    side_by_side: int = setting(0, "Agents in a simulator; 0 for any number", low=0)


def pushes(positions: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """How strongly each counter pushes on the next one: int [N, E]."""
    return positions + actions


def advanced(i: int, position: np.ndarray, action: np.ndarray, push: np.ndarray, slips: np.ndarray):
    """Where counter i comes to, [E]."""
    return np.where(slips < SLIP, position, (position + action + push) % SIZES[i])


def seen(agents: Sequence[int], positions: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One-hot [E, size] each."""
    return [np.eye(SIZES[i], dtype=np.uint8)[position] for i, position in zip(agents, positions, strict=True)]


def inputs(region: Region, observations: Sequence[np.ndarray]) -> np.ndarray:
    """What all its agents see."""
    return np.concatenate(observations, axis=1).astype(region.input_type)


class World:
    """All four; an episode's stream gives the slips of each step."""

    def __init__(self, config: UnequalConfig, streams: Sequence[np.random.Generator]) -> None:
        self.streams, self.clocks = streams, Clocks(len(streams), config.horizon)
        self.positions = np.zeros((4, len(streams)), np.int64)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        self.positions[:, self.clocks.restart(where, elapsed)] = 0
        return self.state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        slips = np.stack([stream.random(4) for stream in self.streams], axis=1)
        push = pushes(self.positions, actions)
        sources = [
            np.stack([push[j] % count for j, count in zip(who, region.source_classes, strict=True)], axis=1)
            for who, region in zip(PUSHING, REGIONS, strict=True)
        ]
        by_source = {0: push[3] % 2, 1: push[0] % 3, 2: push[1] % 4, 3: push[2] % 2}
        moved = [advanced(i, self.positions[i], actions[i], by_source[i], slips[i]) for i in range(4)]
        self.positions = np.stack(moved)
        return GlobalStep(self.state(), sources, rewards(self.positions), self.clocks.tick())

    def state(self) -> State:
        observations = seen(range(4), self.positions)
        return State(observations, [inputs(r, [observations[i] for i in r.agents]) for r in REGIONS])

    def statistics(self) -> dict[str, np.ndarray]:
        return {}


class Locally:
    """Some regions, in the order that is asked for."""

    def __init__(
        self, config: UnequalConfig, regions: Sequence[int], envs: int, streams: Sequence[np.random.Generator]
    ) -> None:
        self.regions, self.streams = [REGIONS[k] for k in regions], streams
        self.clocks = Clocks(envs, config.horizon)
        self.positions = [np.zeros((len(region.agents), envs), np.int64) for region in self.regions]

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        mask = self.clocks.restart(where, elapsed)
        for position in self.positions:
            position[:, mask] = 0
        return self.state()

    def step(self, actions: np.ndarray, sources: Sequence[np.ndarray]) -> LocalStep:
        first = 0
        for r, (region, stream) in enumerate(zip(self.regions, self.streams, strict=True)):
            own, slips = self.positions[r], stream.random(self.positions[r].shape)
            acting = actions[first : first + len(own)]
            self.positions[r] = np.stack(
                [
                    advanced(i, own[n], acting[n], sources[r][:, n], slips[n])
                    for n, i in enumerate(region.agents)
                ]
            )
            first += len(own)
        return LocalStep(self.state(), rewards(np.concatenate(self.positions)), self.clocks.tick())

    def state(self) -> State:
        by_region = [
            seen(region.agents, own) for region, own in zip(self.regions, self.positions, strict=True)
        ]
        found = [inputs(*pair) for pair in zip(self.regions, by_region, strict=True)]
        return State([one for own in by_region for one in own], found)


def rewards(positions: np.ndarray) -> np.ndarray:
    """For standing at 1."""
    return (positions == 1).astype(np.float32)


class Unequal:
    """The domain."""

    name, agents, regions, hand_coded, statistics = "unequal", AGENTS, REGIONS, (), ()
    Config, side_by_side = UnequalConfig, None

    def __init__(self, config: UnequalConfig) -> None:
        self.config, self.horizon = config, config.horizon
        self.decision_every = config.decision_every
        self.side_by_side = config.side_by_side or None

    def versions(self) -> dict[str, str]:
        return {}

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> World:
        return World(self.config, streams)

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> Locally:
        return Locally(self.config, regions, environments, streams)

    def controller(self, name: str, simulator: World, streams: Sequence[np.random.Generator]):
        raise ValueError(f"there is no hand-coded policy {name}")
