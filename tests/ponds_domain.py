"""Ponds in a row: rain falls into each, and each lets water flow on into the next one.

The rain of a pond is random; the inflow from the pond above is its influence source, of four classes. In a
ring the water of the last pond flows into the first one, so that sources depend on the own rain.
``PondsConfig.fault`` names a fault of the local simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, State
from dials_mpi.domains.clocks import Clocks
from dials_mpi.settings import setting

FULL, RAIN = 8, 3
FAULTS = ("none", "no weather", "other weather", "merged classes", "returns its own array", "keeps actions")


@dataclass(frozen=True)
class PondsConfig:
    """Settings of the section ``ponds``."""

    ponds: int = setting(4, "Ponds", low=2)
    ring: bool = setting(False, "The last pond flows into the first one")
    draws: bool = setting(True, "The global simulator says the draws of each region")
    fault: str = setting("none", "What is wrong", choices=FAULTS)
    horizon: int = setting(20, "Length of an episode, steps", low=1)


def outflow(level: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What flows out, 0 to 3."""
    return np.minimum(level, np.asarray(actions) + (level > FULL - 2)).astype(np.int64)


def filled(level: np.ndarray, out: np.ndarray, into: np.ndarray, rain: np.ndarray) -> np.ndarray:
    """The next level."""
    return np.minimum(level - out + into + rain, FULL)


def visible(level: np.ndarray) -> State:
    """level: int [N, E]."""
    seen = (level[..., None] / FULL).astype(np.float32)
    return State(seen, seen.copy())


def rewards(level: np.ndarray) -> np.ndarray:
    """For a level of half the pond."""
    return (2 - np.abs(level - FULL / 2)).astype(np.float32)


class Whole:
    """The global simulator."""

    def __init__(self, config: PondsConfig, streams: Sequence[np.random.Generator]) -> None:
        self.config, self.streams = config, streams
        self.level = np.zeros((config.ponds, len(streams)), np.int64)
        self.rain = np.zeros_like(self.level)
        self.clocks = Clocks(len(streams), config.horizon)

    def reset(self, where=None, elapsed=None) -> State:
        """Full to a random level."""
        mask = self.clocks.restart(where, elapsed)
        for e in np.flatnonzero(mask):
            self.rain[:, e] = self.streams[e].integers(FULL, size=self.config.ponds)
        self.level[:, mask] = self.rain[:, mask]
        return visible(self.level)

    def step(self, actions: np.ndarray) -> GlobalStep:
        """Water flows, and rain falls."""
        self.rain = np.stack([stream.integers(RAIN, size=self.config.ponds) for stream in self.streams], 1)
        out = outflow(self.level, actions)
        into = np.roll(out, 1, axis=0)
        into[0] *= self.config.ring
        self.level = filled(self.level, out, into, self.rain)
        return GlobalStep(visible(self.level), into[..., None], rewards(self.level), self.clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        return {}


class WholeWithDraws(Whole):
    """It says the rain of each pond."""

    def region_draws(self) -> list[tuple[np.ndarray]]:
        """An array [E] of each pond."""
        return [(rain,) for rain in self.rain]


class Alone:
    """The local simulators."""

    def __init__(self, config: PondsConfig, environments: int, streams: Sequence[np.random.Generator]):
        self.fault, self.streams = config.fault, streams
        self.shape = len(streams), environments
        self.level = np.zeros(self.shape, np.int64)
        self.clocks = Clocks(environments, config.horizon)
        self.kept = np.zeros(self.shape, np.int64)
        self.seen = np.zeros((*self.shape, 1), np.float32)

    def draw(self, high: int) -> np.ndarray:
        return np.stack([stream.integers(high, size=self.shape[1]) for stream in self.streams])

    def reset(self, where=None, elapsed=None) -> State:
        """As the global one."""
        mask = self.clocks.restart(where, elapsed)
        self.level[:, mask] = FULL // 2 if self.fault == "no weather" else self.draw(FULL)[:, mask]
        return self.visible()

    def step(self, actions: np.ndarray, sources: np.ndarray) -> LocalStep:
        """As the global one, but for the fault."""
        into = np.stack([source[:, 0] for source in sources])
        if self.fault == "merged classes":
            into = np.where(into == 2, 1, into)
        rain = 1 if self.fault == "no weather" else self.draw(RAIN - (self.fault == "other weather"))
        out = outflow(self.level, self.kept if self.fault == "keeps actions" else actions)
        self.kept = actions
        self.level = filled(self.level, out, into, np.asarray(rain))
        return LocalStep(self.visible(), rewards(self.level), self.clocks.tick())

    def visible(self) -> State:
        state = visible(self.level)
        if self.fault == "returns its own array":
            self.seen[:] = state.observations
            return State(self.seen, state.inputs)
        return state


class Ponds:
    """The domain."""

    name, Config, hand_coded, statistics, side_by_side = "ponds", PondsConfig, (), (), None

    def __init__(self, config: PondsConfig) -> None:
        self.config, self.horizon = config, config.horizon
        self.agents = [Agent(1, 3)] * config.ponds
        self.regions = [Region((i,), 1, (4,), "float32") for i in range(config.ponds)]

    def versions(self) -> dict[str, str]:
        return {}

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> Whole:
        return (WholeWithDraws if self.config.draws else Whole)(self.config, streams)

    def local_simulator(self, regions, environments, streams) -> Alone:
        return Alone(self.config, environments, streams)

    def controller(self, name, simulator, streams):
        raise ValueError(f"there is no hand-coded policy {name}")
