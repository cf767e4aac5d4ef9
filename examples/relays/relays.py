"""A telecommunication line: each node forwards packets and chooses at every step which queue to serve.

Packets of several flows move along a line of nodes: one flow passes all nodes, a short one leads from each
node to the next and, at every second node, one leaves the line at once. A node has a queue for each flow that
passes it, so nodes differ in size. A node's reward is the value of the packet that it serves, less the values
of the packets that are lost at its full queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.domains.base import Agent, GlobalStep, LocalStep, Region, Source, State
from dials_mpi.domains.clocks import Clocks
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from relays_drawing import QueuesDrawing


@dataclass(frozen=True)
class RelaysConfig:
    """Settings of the section ``relays``."""

    nodes: int = setting(6, "Nodes on the line, an agent each", low=2, high=1000)
    load: float = setting(0.3, "Packets per step that enter each flow", low=0, high=1)
    room: int = setting(5, "Packets that a queue holds", low=1, high=100)
    horizon: int = setting(100, "Length of an episode, steps", low=1)


@dataclass(frozen=True)
class Line:
    """Tables of Q queues, [Q] each: node; next queue of the flow, or -1; whether packets enter from outside;
    value of a packet. The queues of node i are first[i] to first[i + 1] - 1; first: [N + 1]."""

    node: np.ndarray
    following: np.ndarray
    entry: np.ndarray
    value: np.ndarray
    first: np.ndarray


def build_line(nodes: int) -> Line:
    """The queues of all flows, sorted by node."""
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
    """Remove a packet from each of the chosen queues [E, n] that is not empty; returns which, bool [E, n]."""
    served = np.take_along_axis(packets, queues, axis=1) > 0
    np.put_along_axis(packets, queues, np.take_along_axis(packets, queues, axis=1) - served, axis=1)
    return served


def arrive(packets: np.ndarray, arrivals: np.ndarray, room: int) -> np.ndarray:
    """Add arriving packets to the queues [E, q] that have room; returns where one is lost, bool [E, q]."""
    lost = (arrivals > 0) & (packets >= room)
    packets += (arrivals > 0) & ~lost
    return lost


def observe(packets: np.ndarray, arrivals: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """A node's observation, its queues; and its predictor's input, the queues and the last arrivals."""
    observation = (packets / room).astype(np.float32)
    return observation, np.concatenate([observation, arrivals], axis=1, dtype=np.float32)


def state(packets: Sequence[np.ndarray], arrivals: Sequence[np.ndarray], room: int) -> State:
    """The visible state of some nodes, from the packets and arrivals [E, q] of each."""
    seen = [observe(*node, room) for node in zip(packets, arrivals, strict=True)]
    return State([observation for observation, _ in seen], [inputs for _, inputs in seen])


class GlobalLine:
    """The global simulator: all nodes, E episodes; stream e draws the packets that enter in episode e."""

    def __init__(self, config: RelaysConfig, line: Line, streams: Sequence[np.random.Generator]) -> None:
        self.config, self.line, self.streams = config, line, streams
        self.packets = np.zeros((len(streams), len(line.node)), np.int64)
        self.arrivals = np.zeros_like(self.packets)
        self.clocks = Clocks(len(streams), config.horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Empty the queues."""
        where = self.clocks.restart(where, elapsed)
        self.packets[where] = self.arrivals[where] = 0
        return self._state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """All nodes serve, then packets arrive, from outside and from the previous nodes."""
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
        """There are none."""
        return {}

    def _state(self) -> State:
        cuts = self.line.first[1:-1]
        packets, arrivals = (np.split(values, cuts, axis=1) for values in (self.packets, self.arrivals))
        return state(packets, arrivals, self.config.room)


class LocalLine:
    """The local simulators: some nodes alone, E environments each; the sources are the arrivals."""

    def __init__(self, config: RelaysConfig, line: Line, nodes: Sequence[int], environments: int) -> None:
        self.config = config
        self.values = [line.value[line.first[i] : line.first[i + 1]] for i in nodes]
        self.packets = [np.zeros((environments, len(value)), np.int64) for value in self.values]
        self.arrivals = [np.zeros_like(packets) for packets in self.packets]
        self.clocks = Clocks(environments, config.horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Empty the queues."""
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
            self.arrivals[r] = np.array(sources[r], np.int64)  # a copy: they belong to the caller
            lost = arrive(packets, self.arrivals[r], self.config.room)
            rewards.append(earned - np.add.reduce(lost * value, axis=1))
        return LocalStep(self._state(), np.array(rewards, np.float32), self.clocks.tick())

    def _state(self) -> State:
        return state(self.packets, self.arrivals, self.config.room)


class Longest:
    """Every node serves the queue whose packets have the largest total value."""

    def __init__(self, simulator: GlobalLine) -> None:
        self.simulator = simulator

    def act(self) -> np.ndarray:
        """Actions, int [N, E]."""
        line, packets = self.simulator.line, self.simulator.packets
        worth = np.split(packets * line.value, line.first[1:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in worth])


class Relays:
    """The line as a networked system: a region for each node, with one agent."""

    name = "relays"
    Config = RelaysConfig
    hand_coded = ("longest",)
    statistics = ()
    side_by_side = None

    def __init__(self, config: RelaysConfig) -> None:
        self.config, self.horizon = config, config.horizon
        self.line = build_line(config.nodes)
        queues = np.diff(self.line.first).tolist()
        self.agents = [Agent(observation_size=count, actions=count) for count in queues]
        self.regions = [
            Region((i,), input_size=2 * count, source_classes=(2,) * count, input_type="float32")
            for i, count in enumerate(queues)
        ]

    def versions(self) -> dict[str, str]:
        """There are none: only numpy is needed."""
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
        """The only hand-coded policy."""
        return Longest(simulator)

    def sources(self, region: int) -> list[Source]:
        """Does a packet enter this queue? For pictures."""
        count = len(self.regions[region].source_classes)
        return [Source(f"queue {queue}", ("no packet", "a packet")) for queue in range(count)]

    def drawing(self, simulator: GlobalLine | LocalLine, axes: Axes, region: int | None) -> QueuesDrawing:
        """All queues, or those of one node."""
        from relays_drawing import QueuesDrawing  # only pictures need matplotlib

        nodes = range(self.config.nodes) if region is None else [region]
        return QueuesDrawing(simulator, axes, self.line, nodes)
