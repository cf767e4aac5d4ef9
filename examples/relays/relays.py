"""A telecommunication line: nodes forward packets, and each node chooses at every step which queue to serve.

Packets of several flows run along a line of nodes: one flow through all of them, short ones from each node to
the next and, at every second node, one that leaves at once. A node has a queue for each flow that passes it,
so nodes are unequal. A node receives the value of a packet that it serves, and loses the value if a packet
finds its queue full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, State
from dials_mpi.domains.clocks import Clocks
from dials_mpi.settings import setting


@dataclass(frozen=True)
class RelaysConfig:
    """Settings of the section ``relays``."""

    nodes: int = setting(6, "Nodes on the line, an agent each", low=2, high=1000)
    load: float = setting(0.3, "Packets per step that enter each flow", low=0, high=1)
    room: int = setting(5, "Packets that a queue holds", low=1, high=100)
    horizon: int = setting(100, "Length of an episode, steps", low=1)


@dataclass(frozen=True)
class Line:
    """Q queues: the node of each, the queue that follows it (or -1), whether packets enter from outside, and
    the value of a packet. The queues of node i are first[i] to first[i + 1], first [N + 1]."""

    node: np.ndarray
    following: np.ndarray
    entry: np.ndarray
    value: np.ndarray
    first: np.ndarray


def lay_line(nodes: int) -> Line:
    """The flows as chains of queues, and the queues sorted by node."""
    chains = [(list(range(nodes)), 1.0)]
    chains += [([i, i + 1], 0.5) for i in range(nodes - 1)]
    chains += [([i], 0.25) for i in range(0, nodes, 2)]
    queues = sorted((node, flow) for flow, (chain, _) in enumerate(chains) for node in chain)
    number = {queue: k for k, queue in enumerate(queues)}
    following = [number.get((node + 1, flow), -1) for node, flow in queues]
    entry = [node == chains[flow][0][0] for node, flow in queues]
    owners = np.array([node for node, _ in queues])
    values = np.array([chains[flow][1] for _, flow in queues], np.float32)
    return Line(
        owners, np.array(following), np.array(entry), values, np.searchsorted(owners, range(nodes + 1))
    )


def serve(packets: np.ndarray, queues: np.ndarray) -> np.ndarray:
    """Remove one packet from each chosen queue [E, n] that is not empty; returns where, bool [E, n]."""
    served = np.take_along_axis(packets, queues, axis=1) > 0
    np.put_along_axis(packets, queues, np.take_along_axis(packets, queues, axis=1) - served, axis=1)
    return served


def arrive(packets: np.ndarray, arrivals: np.ndarray, room: int) -> np.ndarray:
    """Add packets to the queues [E, q] that have room; returns where one is lost, bool [E, q]."""
    lost = (arrivals > 0) & (packets >= room)
    packets += (arrivals > 0) & ~lost
    return lost


def see(packets: np.ndarray, arrivals: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """A node's observation (its queues), and its predictor's input (the queues and the latest arrivals)."""
    observation = (packets / room).astype(np.float32)
    return observation, np.concatenate([observation, arrivals], axis=1, dtype=np.float32)


class GlobalLine:
    """All nodes, E episodes: stream e decides which packets enter in episode e."""

    def __init__(self, config: RelaysConfig, line: Line, streams: Sequence[np.random.Generator]) -> None:
        self.config, self.line, self.streams = config, line, streams
        self.packets = np.zeros((len(streams), len(line.node)), np.int64)
        self.arrivals = np.zeros_like(self.packets)
        self.clocks = Clocks(len(streams), config.horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Empty queues."""
        where = self.clocks.restart(where, elapsed)
        self.packets[where] = self.arrivals[where] = 0
        return self._state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """All nodes serve, then packets arrive, from outside and from the nodes before."""
        line = self.line
        chosen = np.asarray(actions).T + line.first[:-1]
        served = serve(self.packets, chosen)
        draws = np.stack([stream.random(len(line.node)) for stream in self.streams])
        self.arrivals[:] = line.entry & (draws < self.config.load)
        for e, queue in zip(*np.nonzero(served), strict=True):
            following = line.following[chosen[e, queue]]
            self.arrivals[e, following] += following >= 0
        lost = arrive(self.packets, self.arrivals, self.config.room)
        earned = served * line.value[chosen]
        rewards = earned - np.add.reduceat(lost * line.value, line.first[:-1], axis=1)
        sources = np.split(self.arrivals.copy(), line.first[1:-1], axis=1)
        return GlobalStep(self._state(), sources, rewards.T.astype(np.float32), self.clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        """No statistics."""
        return {}

    def _state(self) -> State:
        cuts = self.line.first[1:-1]
        parts = zip(np.split(self.packets, cuts, axis=1), np.split(self.arrivals, cuts, axis=1), strict=True)
        return State(*map(list, zip(*(see(*part, self.config.room) for part in parts), strict=True)))


class LocalLine:
    """Some nodes alone, E environments each; the sources say which packets arrive."""

    def __init__(self, config: RelaysConfig, line: Line, nodes: Sequence[int], environments: int) -> None:
        self.config = config
        self.values = [line.value[line.first[i] : line.first[i + 1]] for i in nodes]
        self.packets = [np.zeros((environments, len(value)), np.int64) for value in self.values]
        self.arrivals = [np.zeros_like(packets) for packets in self.packets]
        self.clocks = Clocks(environments, config.horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Empty queues."""
        where = self.clocks.restart(where, elapsed)
        for packets, arrivals in zip(self.packets, self.arrivals, strict=True):
            packets[where] = arrivals[where] = 0
        return self._state()

    def step(self, actions: np.ndarray, sources: Sequence[np.ndarray]) -> LocalStep:
        """The node serves, then packets arrive as the sources say."""
        rewards = []
        for r, (packets, value) in enumerate(zip(self.packets, self.values, strict=True)):
            chosen = np.asarray(actions[r])[:, None]
            earned = serve(packets, chosen)[:, 0] * value[chosen[:, 0]]
            self.arrivals[r] = np.asarray(sources[r], np.int64)
            lost = arrive(packets, self.arrivals[r], self.config.room)
            rewards.append(earned - np.add.reduce(lost * value, axis=1))
        return LocalStep(self._state(), np.array(rewards, np.float32), self.clocks.tick())

    def _state(self) -> State:
        parts = zip(self.packets, self.arrivals, strict=True)
        return State(*map(list, zip(*(see(*part, self.config.room) for part in parts), strict=True)))


class Longest:
    """Every node serves the queue with the largest value of waiting packets."""

    def __init__(self, simulator: GlobalLine) -> None:
        self.simulator = simulator

    def act(self) -> np.ndarray:
        """int [N, E]."""
        line, packets = self.simulator.line, self.simulator.packets
        worth = np.split(packets * line.value, line.first[1:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in worth])


class Relays:
    """The line as a networked system: one region per node, one agent in each."""

    name = "relays"
    Config = RelaysConfig
    hand_coded = ("longest",)
    statistics = ()
    side_by_side = None

    def __init__(self, config: RelaysConfig) -> None:
        self.config, self.horizon = config, config.horizon
        self.line = lay_line(config.nodes)
        queues = np.diff(self.line.first).tolist()
        self.agents = [Agent(observation_size=count, actions=count) for count in queues]
        self.regions = [
            Region((i,), input_size=2 * count, source_classes=(2,) * count, input_type="float32")
            for i, count in enumerate(queues)
        ]

    def versions(self) -> dict[str, str]:
        """Only numpy is needed."""
        return {}

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> GlobalLine:
        """E = len(streams) episodes."""
        return GlobalLine(self.config, self.line, streams)

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> LocalLine:
        """Nodes are deterministic, so the streams are not used."""
        return LocalLine(self.config, self.line, regions, environments)

    def controller(self, name: str, simulator: GlobalLine, streams: Sequence[np.random.Generator]) -> Longest:
        """The only controller."""
        return Longest(simulator)
