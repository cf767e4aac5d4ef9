"""The grid as a whole (GS) and its crossings on their own (LS), each in one SUMO simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import GlobalStep, LocalStep, State
from dials_mpi.domains.blocks import joined
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.traffic.demand import Demand
from dials_mpi.domains.traffic.insertion import Entrances
from dials_mpi.domains.traffic.junctions import Crossings
from dials_mpi.domains.traffic.network import SIDES, copy_of


class TrafficGlobalSimulator:
    """E = len(streams) copies of the grid side by side; N crossings each, in row-major order.

    Call ``reset`` first: it starts SUMO. crossings: what hand-coded policies read, [E x N]. regions: int
    [R, B], the crossings of each local region; ways: int [W], which of its edges, [B x 4], lead into it.
    """

    def __init__(
        self,
        crossings: Crossings,
        inflow: float,
        horizon: int,
        predictor_sees_lights: bool,
        regions: np.ndarray,
        ways: np.ndarray,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.crossings, self._regions = crossings, regions
        self._edges = len(SIDES) * regions[:, ways // len(SIDES)] + ways % len(SIDES)
        self._sees_lights = predictor_sees_lights
        self._shape = len(streams), len(crossings.names) // len(streams)
        self._demand = Demand(crossings.network, inflow, streams)
        self._clocks = Clocks(len(streams), horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Restart episodes as the contract says, without traffic; without a mask SUMO is started anew."""
        mask = self._clocks.restart(where, elapsed)
        vehicles = self._demand.begin(mask)
        if where is None:
            self.crossings.start()
        else:
            self.crossings.clear(np.repeat(mask, self._shape[1]), vehicles)
        return self._state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """One second; a source is 1 where a vehicle came onto that way into the region in it."""
        crossings = self.crossings
        crossings.step(np.asarray(actions).T.ravel(), self._demand.draw())
        self._demand.passed(crossings)
        episodes, agents = self._shape
        entered = crossings.entered.view(np.int8).reshape(episodes, -1)
        sources = np.ascontiguousarray(entered[:, self._edges].swapaxes(0, 1))
        rewards = np.ascontiguousarray(crossings.rewards().reshape(episodes, agents).T)
        return GlobalStep(self._state(), sources, rewards, self._clocks.tick())

    def close(self) -> None:
        """End SUMO; ``reset`` starts another."""
        self.crossings.close()

    def statistics(self) -> dict[str, np.ndarray]:
        """demand.STATISTICS of the episodes so far, float64 [E] each."""
        return self._demand.statistics(self.crossings.simulation)

    def _state(self) -> State:
        episodes, agents = self._shape
        seen = (bits.reshape(agents, episodes, -1) for bits in self.crossings.observe(episodes))
        observations, inputs = _seen(*seen, self._sees_lights)
        alone = self._regions.shape[1] == 1
        return State(observations, inputs if alone else joined(inputs[self._regions]))


class TrafficLocalSimulator:
    """R = len(streams) blocks of B crossings on their own in E environments each: R x E tiles of one network.

    Crossings are numbered block after block, R x B. Call ``reset`` first: it starts SUMO.
    """

    def __init__(
        self,
        crossings: Crossings,
        entrances: Entrances,
        environments: int,
        horizon: int,
        predictor_sees_lights: bool,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.crossings, self.entrances = crossings, entrances
        self._sees_lights = predictor_sees_lights
        network = crossings.network
        self._shape = len(streams), environments, network.rows * network.columns
        self._streams = streams
        self._uniforms = np.empty((len(streams), environments, len(network.entries)))
        self._clocks = Clocks(environments, horizon)

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Restart environments as the contract says, without traffic; without a mask SUMO is started anew."""
        mask = np.tile(self._clocks.restart(where, elapsed), self._shape[0])
        waiting = self.entrances.begin(mask)
        if where is None:
            self.crossings.start()
        else:
            driving = self.crossings.simulation.vehicles()
            here = [name for name in driving if mask[copy_of(name)]]
            self.crossings.clear(np.repeat(mask, self._shape[2]), here + waiting)
        return self._state()

    def step(self, actions: np.ndarray, sources: np.ndarray) -> LocalStep:
        """One second, with a vehicle coming onto every way whose source is 1."""
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms)
        uniforms = self._uniforms.reshape(-1, self._uniforms.shape[-1])
        given_up, entries = self.entrances.enter(np.reshape(sources, uniforms.shape), uniforms)
        if given_up:
            self.crossings.simulation.remove(given_up)
        regions, environments, block = self._shape
        in_tiles = np.reshape(actions, (regions, block, environments)).swapaxes(1, 2)
        self.crossings.step(in_tiles.reshape(-1), entries)
        self.entrances.passed()
        rewards = self.crossings.rewards().reshape(self._shape).swapaxes(1, 2)
        return LocalStep(self._state(), rewards.reshape(-1, environments), self._clocks.tick())

    def close(self) -> None:
        """End SUMO; ``reset`` starts another."""
        self.crossings.close()

    def _state(self) -> State:
        regions, environments, block = self._shape
        seen = (
            bits.reshape(block, regions, environments, -1).swapaxes(0, 1)
            for bits in self.crossings.observe(regions * environments)
        )
        observations, inputs = _seen(*seen, self._sees_lights)
        return State(observations.reshape(regions * block, environments, -1), joined(inputs))


def _seen(
    observations: np.ndarray, occupied: np.ndarray, predictor_sees_lights: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Observations [..., 40], and what of them predictors see: all, or only who is where, [..., 36]."""
    return observations, observations if predictor_sees_lights else occupied
