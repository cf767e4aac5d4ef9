"""The grid as a whole (GS) and its crossings on their own (LS), each in one SUMO simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import GlobalStep, LocalStep, State
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.traffic.crossings import Crossings
from dials_mpi.domains.traffic.demand import Demand
from dials_mpi.domains.traffic.entries import Entrances
from dials_mpi.domains.traffic.network import SIDES, copy_of


class TrafficGlobalSimulator:
    """E = len(streams) copies of the grid side by side; N crossings each, in row-major order.

    Call ``reset`` first: it starts SUMO. crossings: what hand-coded policies read, [E x N].
    """

    def __init__(
        self,
        crossings: Crossings,
        inflow: float,
        horizon: int,
        predictor_sees_lights: bool,
        streams: Sequence[np.random.Generator],
    ) -> None:
        self.crossings = crossings
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
        """One second; a source is 1 where a vehicle came onto the incoming edge in it."""
        crossings = self.crossings
        crossings.step(np.asarray(actions).T.ravel(), self._demand.draw())
        self._demand.passed(crossings)
        sources = self._by_region(crossings.entered.view(np.int8))
        return GlobalStep(self._state(), sources, self._by_region(crossings.rewards()), self._clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        """demand.STATISTICS of the episodes so far, float64 [E] each."""
        return self._demand.statistics(self.crossings.simulation)

    def _state(self) -> State:
        episodes, regions = self._shape
        return _state(self.crossings.observe(episodes), (regions, episodes), self._sees_lights)

    def _by_region(self, values: np.ndarray) -> np.ndarray:
        """[E x N, ...] as [N, E, ...]."""
        return np.ascontiguousarray(values.reshape(*self._shape, *values.shape[1:]).swapaxes(0, 1))


class TrafficLocalSimulator:
    """R = len(streams) crossings on their own in E environments each: R x E tiles of one network.

    Call ``reset`` first: it starts SUMO.
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
        self._shape = len(streams), environments
        self._streams = streams
        self._uniforms = np.empty((*self._shape, len(SIDES)))
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
            self.crossings.clear(mask, here + waiting)
        return self._state()

    def step(self, actions: np.ndarray, sources: np.ndarray) -> LocalStep:
        """One second, with a vehicle coming onto every edge whose source is 1."""
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms)
        sources = np.reshape(sources, (-1, len(SIDES)))
        given_up, entries = self.entrances.enter(sources, self._uniforms.reshape(sources.shape))
        if given_up:
            self.crossings.simulation.remove(given_up)
        self.crossings.step(np.reshape(actions, -1), entries)
        self.entrances.passed()
        rewards = self.crossings.rewards().reshape(self._shape)
        return LocalStep(self._state(), rewards, self._clocks.tick())

    def _state(self) -> State:
        return _state(self.crossings.observe(), self._shape, self._sees_lights)


def _state(seen: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], predictor_sees_lights: bool) -> State:
    """Observations [R, E, 40]; the predictor's inputs: the same, or only who is where, [R, E, 36]."""
    observations, occupied = (bits.reshape(*shape, -1) for bits in seen)
    return State(observations, observations if predictor_sees_lights else occupied)
