"""The global simulator, the whole grid, and the local simulators of regions; one SUMO simulation each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.domains.base import GlobalStep, LocalStep, Rows, State
from dials_mpi.domains.blocks import joined
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.traffic.approaches import Counts
from dials_mpi.domains.traffic.demand import Demand
from dials_mpi.domains.traffic.insertion import InsertionRule
from dials_mpi.domains.traffic.junctions import Junctions
from dials_mpi.domains.traffic.network import SIDES

if TYPE_CHECKING:
    from dials_mpi.domains.traffic.compiled import CompiledJunctions


class TrafficGlobalSimulator:
    """E = len(streams) copies of the grid side by side; N junctions each, in row-major order.

    Call ``reset`` first: it starts SUMO. junctions: read by hand-coded policies, [E x N]. regions: int
    [R, B], the junctions of each local region; entry_indices: int [W], the indices of its entry edges among
    its incoming edges [B x 4].
    """

    def __init__(
        self,
        junctions: Junctions,
        inflow: float,
        horizon: int,
        predictor_sees_lights: bool,
        regions: np.ndarray,
        entry_indices: np.ndarray,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.junctions, self._regions = junctions, regions
        junction, side = np.divmod(entry_indices, len(SIDES))
        self._edges = len(SIDES) * regions[:, junction] + side
        self._sees_lights = predictor_sees_lights
        self._shape = len(streams), len(junctions.names) // len(streams)
        self._demand = Demand(junctions.network, inflow, streams)
        self._clocks = Clocks(len(streams), horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As GlobalSimulator, without traffic; without a mask SUMO is restarted."""
        mask = self._clocks.restart(where, elapsed)
        vehicles = self._demand.reset(mask)
        if where is None:
            self.junctions.start()
        else:
            self.junctions.clear(np.repeat(mask, self._shape[1]), vehicles)
        return self._state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """One second; a source is 1 if a vehicle entered this entry edge of the region."""
        junctions = self.junctions
        junctions.step(np.asarray(actions).T.ravel(), self._demand.draw())
        self._demand.update(junctions)
        episodes, agents = self._shape
        entered = junctions.entered.view(np.int8).reshape(episodes, -1)
        sources = np.ascontiguousarray(entered[:, self._edges].swapaxes(0, 1))
        rewards = np.ascontiguousarray(junctions.rewards().reshape(episodes, agents).T)
        return GlobalStep(self._state(), sources, rewards, self._clocks.tick())

    def close(self) -> None:
        """End SUMO; ``reset`` starts it again."""
        self.junctions.close()

    def statistics(self) -> dict[str, np.ndarray]:
        """demand.STATISTICS of the episodes so far, float64 [E] each."""
        return self._demand.statistics(self.junctions.simulation)

    def approaches(self) -> Counts:
        """What happened on each approach in the episodes so far."""
        return self._demand.approaches.counts()

    def _state(self) -> State:
        episodes, agents = self._shape
        observations, occupied = (
            bits.reshape(agents, episodes, -1) for bits in self.junctions.observe(episodes)
        )
        inputs = observations if self._sees_lights else occupied
        alone = self._regions.shape[1] == 1
        return State(observations, inputs if alone else joined(inputs[self._regions]))


class TrafficLocalSimulator:
    """R = len(streams) blocks of B junctions, each alone, in E environments: R x E tiles of one network.

    Junctions are numbered block after block, R x B. Call ``reset`` first: it starts SUMO.
    """

    def __init__(
        self,
        junctions: Junctions | CompiledJunctions,
        insertion: InsertionRule,
        environments: int,
        horizon: int,
        predictor_sees_lights: bool,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.junctions, self.insertion = junctions, insertion
        self._sees_lights = predictor_sees_lights
        network = junctions.network
        self._shape = len(streams), environments, network.rows * network.columns
        self._streams = streams
        self._uniforms = np.empty((len(streams), environments, len(network.entry_edges)))
        self._clocks = Clocks(environments, horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As LocalSimulator, without traffic; without a mask SUMO is restarted."""
        mask = np.tile(self._clocks.restart(where, elapsed), self._shape[0])
        waiting = self.insertion.reset(mask)
        if where is None:
            self.junctions.start()
        else:
            driving = self.junctions.vehicles(mask)
            self.junctions.clear(np.repeat(mask, self._shape[2]), driving + waiting)
        return self._state()

    def step(self, actions: np.ndarray, sources: Rows) -> LocalStep:
        """One second, with a vehicle for each entry edge whose source is 1."""
        for stream, row in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=row)
        uniforms = self._uniforms.reshape(-1, self._uniforms.shape[-1])
        removed, insertions = self.insertion.attempt(np.reshape(sources, uniforms.shape), uniforms)
        if removed:
            self.junctions.remove(removed)
        regions, environments, block = self._shape
        in_tiles = np.reshape(actions, (regions, block, environments)).swapaxes(1, 2)
        self.junctions.step(in_tiles.reshape(-1), insertions)
        self.insertion.update()
        rewards = self.junctions.rewards().reshape(self._shape).swapaxes(1, 2)
        return LocalStep(self._state(), rewards.reshape(-1, environments), self._clocks.tick())

    def close(self) -> None:
        """End SUMO; ``reset`` starts it again."""
        self.junctions.close()

    def _state(self) -> State:
        regions, environments, block = self._shape
        observations, occupied = (
            bits.reshape(block, regions, environments, -1).swapaxes(0, 1)
            for bits in self.junctions.observe(regions * environments)
        )
        inputs = observations if self._sees_lights else occupied
        return State(observations.reshape(regions * block, environments, -1), joined(inputs))
