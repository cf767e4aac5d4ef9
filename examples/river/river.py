"""A river with reservoirs: each reservoir decides at every step how far to open its gate.

The river is a tree. Reservoir 0 is the outlet, and the water of reservoir i > 0 flows to reservoir (i - 1)
// 2: a reservoir has no, one or two tributaries. All have the same weather, and chance decides how much
rain each gets. Water that passes a gate makes power, more at a high level. Water above the capacity is
lost, floods the land and costs.

A reservoir's influence sources have four classes each: the weather, and how far the gates of its
tributaries are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, Source, State, Statistic
from dials_mpi.domains.clocks import Clocks
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from river_drawing import RiverDrawing

WEATHER = ("dry", "cloudy", "storm", "showers")
STORMY = (1, 2)
"""Classes of the weather before and in a storm."""

OPENINGS = ("closed", "a third open", "two thirds open", "open")
CLASSES = 4
"""Of the weather, and of an opening, which is also the number of an agent's actions."""

NEXT_WEATHER = np.array([[0.9, 0.1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5], [0.4, 0, 0, 0.6]])
"""Probabilities of the next class of the weather, a row for each present class."""

LEAST, MOST = np.array([[0, 0, 3, 0], [1, 1, 6, 2]])
"""Water that comes to a reservoir in each class of the weather, units."""

CAPACITY = 6
"""Of a reservoir, in the water that passes its gate when that is a third open."""

FLOOD = 1.0
"""Cost of losing the water that passes a gate which is a third open; a full reservoir earns 1 with it."""

SHARES = {"forecast": (0.6, 0.0), "steady": (0.4, 0.4)}
"""The hand-coded policies: the share of the capacity above which they let water out, and that before and in a
storm."""


@dataclass(frozen=True)
class RiverConfig:
    """Settings of the section ``river``."""

    reservoirs: int = setting(8, "Reservoirs on the river, an agent each", low=2, high=1000)
    horizon: int = setting(100, "Length of an episode, steps", low=1)


@dataclass(frozen=True)
class Map:
    """The reservoirs: tributaries of each; unit: int [N], the water that passes a gate which is a third open,
    as much as passes all gates of its tributaries; capacity: int [N]."""

    tributaries: list[list[int]]
    unit: np.ndarray
    capacity: np.ndarray


def build_map(reservoirs: int) -> Map:
    """The tree."""
    tributaries = [[k for k in (2 * i + 1, 2 * i + 2) if k < reservoirs] for i in range(reservoirs)]
    unit = np.ones(reservoirs, np.int64)
    for i in reversed(range(reservoirs)):  # tributaries have larger numbers
        unit[i] = max(1, unit[tributaries[i]].sum())
    return Map(tributaries, unit, CAPACITY * unit)


class Reservoirs:
    """Some reservoirs in E episodes, the part that both simulators share: water, rewards, observations.

    level: int [R, E], the water in each; flooded: int [R, E], the water lost in the last step; seen: the
    sources of the last step, int [E, M] for each reservoir.
    """

    def __init__(self, river: Map, numbers: Sequence[int], episodes: int) -> None:
        self.unit = river.unit[list(numbers), None]
        self.capacity = river.capacity[list(numbers), None]
        self.level = np.zeros((len(numbers), episodes), np.int64)
        self.flooded = np.zeros_like(self.level)
        self.given = [np.array([0, *river.unit[river.tributaries[i]]]) for i in numbers]
        self.seen = [np.zeros((episodes, len(given)), np.int64) for given in self.given]

    def restart(self, where: np.ndarray) -> None:
        """Half full, and the last step was dry, with closed gates, in the mask ``where``."""
        self.level[:, where] = self.capacity // 2
        for seen in self.seen:
            seen[where] = 0

    def opened(self, actions: np.ndarray) -> np.ndarray:
        """How far the gates are opened, int [R, E]: as chosen, or less if there is too little water."""
        return np.minimum(actions, self.level // self.unit)

    def flow(self, opened: np.ndarray, sources: Sequence[np.ndarray], draws: np.ndarray) -> np.ndarray:
        """Water leaves and arrives; returns the rewards, float32 [R, E].

        sources: int [E, M] for each reservoir. draws: [R, E], uniform in [0, 1), decide how much it rains.
        """
        self.seen = [np.array(part) for part in sources]
        earned = opened * self.level / self.capacity
        weather = np.stack([part[:, 0] for part in self.seen])
        arriving = np.stack([part @ given for part, given in zip(self.seen, self.given, strict=True)])
        rain = LEAST[weather] + (draws * (1 + MOST - LEAST)[weather]).astype(np.int64)
        full = self.level - opened * self.unit + arriving + rain
        self.level = np.minimum(full, self.capacity)
        self.flooded = full - self.level
        return (earned - FLOOD * self.flooded / self.unit).astype(np.float32)

    def state(self) -> State:
        """An observation, which is also the predictor's input: the level, and what the last sources were."""
        share = (self.level / self.capacity).astype(np.float32)
        seen = [
            np.hstack([own[:, None], np.eye(CLASSES, dtype=np.float32)[part].reshape(len(part), -1)])
            for own, part in zip(share, self.seen, strict=True)
        ]
        return State(seen, seen)


class GlobalRiver:
    """The global simulator: all reservoirs and the weather; stream e draws the numbers of episode e."""

    def __init__(self, config: RiverConfig, river: Map, streams: Sequence[np.random.Generator]) -> None:
        self.river, self.streams = river, streams
        self.reservoirs = Reservoirs(river, range(config.reservoirs), len(streams))
        self.weather = np.zeros(len(streams), np.int64)
        self.flood = np.zeros(len(streams))
        self.rain: list[tuple[np.ndarray, ...]] = []
        self.clocks = Clocks(len(streams), config.horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Half full reservoirs and dry weather."""
        where = self.clocks.restart(where, elapsed)
        self.reservoirs.restart(where)
        self.weather[where] = self.flood[where] = 0
        self.rain = [()] * len(self.river.unit)
        return self.reservoirs.state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """The weather changes, water flows to the next reservoirs, and rain falls."""
        draws = np.stack([stream.random(1 + len(actions)) for stream in self.streams], axis=1)
        self.rain = [(own,) for own in draws[1:]]
        limits = np.cumsum(NEXT_WEATHER, axis=1)[self.weather, :-1]
        self.weather = (draws[0, :, None] >= limits).sum(axis=1)
        opened = self.reservoirs.opened(actions)
        sources = [np.stack([self.weather, *opened[above]], axis=1) for above in self.river.tributaries]
        rewards = self.reservoirs.flow(opened, sources, draws[1:])
        self.flood += self.reservoirs.flooded.sum(axis=0)
        return GlobalStep(self.reservoirs.state(), sources, rewards, self.clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        """The water that was lost."""
        return {"flood": self.flood.copy()}

    def region_draws(self) -> list[tuple[np.ndarray, ...]]:
        """The random numbers of each reservoir in the last step, [E]; none in a reset."""
        return self.rain


class LocalRiver:
    """The local simulators: some reservoirs alone; stream r draws how much rain reaches reservoir r."""

    def __init__(
        self, reservoirs: Reservoirs, environments: int, horizon: int, streams: Sequence[np.random.Generator]
    ) -> None:
        self.reservoirs, self.streams = reservoirs, streams
        self.environments, self.clocks = environments, Clocks(environments, horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Half full reservoirs."""
        self.reservoirs.restart(self.clocks.restart(where, elapsed))
        return self.reservoirs.state()

    def step(self, actions: np.ndarray, sources: Sequence[np.ndarray]) -> LocalStep:
        """Weather and tributaries are as the sources say."""
        draws = np.stack([stream.random(self.environments) for stream in self.streams])
        rewards = self.reservoirs.flow(self.reservoirs.opened(actions), sources, draws)
        return LocalStep(self.reservoirs.state(), rewards, self.clocks.tick())


class Threshold:
    """Every reservoir lets out what is above a share of its capacity, which depends on the weather."""

    def __init__(self, simulator: GlobalRiver, shares: tuple[float, float]) -> None:
        self.simulator, self.shares = simulator, shares

    def act(self) -> np.ndarray:
        """Actions, int [N, E]."""
        own, weather = self.simulator.reservoirs, self.simulator.weather
        usual, low = self.shares
        kept = np.where(np.isin(weather, STORMY), low, usual) * own.capacity
        return np.clip((own.level - kept) // own.unit, 0, CLASSES - 1).astype(np.int64)


class River:
    """The river as a networked system: a region for each reservoir, with one agent."""

    name = "river"
    Config = RiverConfig
    hand_coded = tuple(SHARES)
    statistics = (Statistic("flood", "units", "Water that was lost in floods, all reservoirs", "lower"),)
    side_by_side = None

    def __init__(self, config: RiverConfig) -> None:
        self.config, self.horizon = config, config.horizon
        self.map = build_map(config.reservoirs)
        sources = [1 + len(above) for above in self.map.tributaries]
        sizes = [1 + CLASSES * count for count in sources]
        self.agents = [Agent(observation_size=size, actions=CLASSES) for size in sizes]
        self.regions = [
            Region((i,), input_size=size, source_classes=(CLASSES,) * count, input_type="float32")
            for i, (size, count) in enumerate(zip(sizes, sources, strict=True))
        ]

    def versions(self) -> dict[str, str]:
        """There are none: only numpy is needed."""
        return {}

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> GlobalRiver:
        """E = len(streams) episodes."""
        return GlobalRiver(self.config, self.map, streams)

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> LocalRiver:
        """The reservoirs of these numbers."""
        return LocalRiver(Reservoirs(self.map, regions, environments), environments, self.horizon, streams)

    def controller(
        self, name: str, simulator: GlobalRiver, streams: Sequence[np.random.Generator]
    ) -> Threshold:
        """The hand-coded policy of this name; it has no random choices."""
        return Threshold(simulator, SHARES[name])

    def sources(self, region: int) -> list[Source]:
        """The names of the sources and their classes, for pictures."""
        gates = [Source(f"gate of {i}", OPENINGS) for i in self.map.tributaries[region]]
        return [Source("weather", WEATHER), *gates]

    def drawing(self, simulator: GlobalRiver | LocalRiver, axes: Axes, region: int | None) -> RiverDrawing:
        """All reservoirs, or one of them."""
        from river_drawing import RiverDrawing  # only pictures need matplotlib

        numbers = range(self.config.reservoirs) if region is None else [region]
        return RiverDrawing(simulator.reservoirs, axes, numbers)
