"""The global simulator, the whole warehouse, and the local simulators of regions; batched over episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_mpi.domains.base import GlobalStep, LocalStep, Rows, State
from dials_mpi.domains.blocks import joined
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.warehouse.floor import Block, Floor
from dials_mpi.domains.warehouse.kernels import local_step, observe_blocks
from dials_mpi.domains.warehouse.region import (
    CENTRE,
    NEXT_CELL,
    OBSERVATION_SIZE,
    SHELF_AT,
    SLOTS,
    SOURCE_CLASS,
    observe,
    rewards,
)
from dials_mpi.domains.warehouse.scripts import Script


def _age(ages: np.ndarray) -> None:
    """Increase the ages of all items by one step, in place."""
    ages += ages > 0


class WarehouseGlobalSimulator:
    """All robots of E = len(streams) episodes; robots 0..N-1 learn, the others follow ``ring_policy``.

    Call ``reset`` first. Hand-coded policies may read: ``cell`` [robots, E], each robot's cell in its own
    region; ``ages`` [robots, E, 13], the item ages of each region (see region.py); ``restarts`` [E], the
    number of resets of each episode.
    """

    def __init__(
        self,
        floor: Floor,
        ring_policy: str,
        item_probability: float,
        horizon: int,
        streams: Sequence[np.random.Generator],
    ) -> None:
        robots, episodes = len(floor.shelves), len(streams)
        self.learners = floor.learners
        self.restarts = np.zeros(episodes, dtype=np.int64)
        self._cells = np.full((robots + 1, episodes), CENTRE)  # the last row: no neighbour; it never changes
        self._items = np.zeros((episodes, floor.shelf_cells + 1), dtype=np.int32)
        self._shelves = floor.shelves
        self._regions, self._beyond, self._sides = floor.regions, floor.beyond, floor.block.sides
        self._shelves_of_regions = floor.shelves_of_regions
        self._first = np.arange(0, self._items.size, self._items.shape[1])
        self._slots = self._first[:, None] + floor.shelves[:, None, :]
        self.ages = np.zeros((robots, episodes, SLOTS), dtype=np.int32)
        self._draws = np.empty((episodes, floor.shelf_cells + robots - floor.learners), dtype=np.float32)
        self._script = Script(ring_policy, (robots - floor.learners, episodes))
        self._probability = item_probability
        self._clocks = Clocks(episodes, horizon)
        self._streams = streams

    @property
    def cell(self) -> np.ndarray:
        """Every robot's cell in its own region, int [robots, E]."""
        return self._cells[:-1]

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As the contract: robots start in the centres of their regions, and items appear once."""
        where = self._clocks.restart(where, elapsed)
        self.restarts += where
        self._script.forget(where)
        self._cells[:, where] = CENTRE
        self._items[where] = 0
        self._appear(self._draw(where), where)
        return self._state()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """One step, in this order: ring's actions, moves, sources, rewards, removal of items, new items."""
        n = self.learners
        draws = self._draw(None)
        ring = draws[:, self._items.shape[1] - 1 :].T
        self._cells[:n] = NEXT_CELL[self._cells[:n], actions]
        if len(ring):
            scripted = self._script.act(self.ages[n:], self._cells[n:-1], ring)
            self._cells[n:-1] = NEXT_CELL[self._cells[n:-1], scripted]
        sources = SOURCE_CLASS[self._sides, self._cells[self._beyond].swapaxes(1, 2)]
        reward = rewards(self.ages[:n], self._cells[:n])
        self._collect()
        _age(self._items)
        self._appear(draws, slice(None))
        return GlobalStep(self._state(), sources, reward, self._clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        """There are none."""
        return {}

    def region_draws(self) -> list[tuple[np.ndarray]]:
        """As RegionDraws: the numbers of each region's shelf cells, float32 [E, S]."""
        return [(self._draws[:, shelves - 1],) for shelves in self._shelves_of_regions]

    def _draw(self, where: np.ndarray | None) -> np.ndarray:
        """Uniform numbers in [0, 1), float32 [E, shelf cells + scripted robots], drawn in the mask ``where``.

        An item appears on a shelf cell if its number is below ``item_probability``; the numbers of scripted
        robots become random actions.
        """
        episodes = range(len(self._streams)) if where is None else np.flatnonzero(where).tolist()
        for episode in episodes:
            self._streams[episode].random(out=self._draws[episode], dtype=np.float32)
        return self._draws

    def _appear(self, draws: np.ndarray, where: np.ndarray | slice) -> None:
        """Put items of age 1 on the free shelf cells whose number is below ``item_probability``."""
        items = self._items[where, 1:]
        self._items[where, 1:] = np.maximum(items, draws[where, : items.shape[1]] < self._probability)

    def _collect(self) -> None:
        """Remove the items under all robots. A robot elsewhere clears slot 0, which is always empty."""
        under = SHELF_AT.take(self.cell)
        shelf = self._shelves.ravel().take(under + np.arange(0, self._shelves.size, SLOTS)[:, None])
        self._items.ravel()[shelf + self._first] = 0

    def _state(self) -> State:
        self.ages = self._items.ravel().take(self._slots)
        bits = observe(self.ages[: self.learners], self._cells[: self.learners])
        alone = self._regions.shape[1] == 1
        return State(bits, bits if alone else joined(bits[self._regions]))


class WarehouseLocalSimulator:
    """R = len(streams) blocks of B robots, each alone, in E environments; neighbours are sampled sources.

    Robots are numbered block after block, R x B. Call ``reset`` first. Pictures read ``cell`` and ``ages``.
    """

    def __init__(
        self,
        block: Block,
        environments: int,
        item_probability: float,
        horizon: int,
        streams: Sequence[np.random.Generator],
    ) -> None:
        shape, robots = (len(streams), environments), len(block.shelves)
        self._block = block
        self.cell = np.full((len(streams) * robots, environments), CENTRE)
        self._ages = np.zeros((*shape, block.shelf_cells + 1), dtype=np.int32)
        self._draws = np.empty((*shape, block.shelf_cells), dtype=np.float32)
        self._probability = item_probability
        self._clocks = Clocks(environments, horizon)
        self._streams = streams

    @property
    def ages(self) -> np.ndarray:
        """The items of each robot's region, int [R x B, E, 13], see region.py."""
        ages = self._ages[:, :, self._block.shelves].swapaxes(1, 2)
        return ages.reshape(-1, *ages.shape[2:])

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Restart environments as the contract says: robots in their centres, items appear once."""
        where = self._clocks.restart(where, elapsed)
        self.cell[:, where] = CENTRE
        self._ages[:, where] = 0
        self._ages[:, where, 1:] = self._draw()[:, where] < self._probability
        return self._state()

    def step(self, actions: np.ndarray, sources: Rows) -> LocalStep:
        """One step, in this order: moves, rewards, removal of items under robots and sources, new items."""
        draws, block = self._draw(), self._block
        reward = np.empty(self.cell.shape, np.float32)
        tables = block.shelves, block.emptied
        state = self.cell, self._ages
        local_step(*state, actions, np.asarray(sources), draws, self._probability, *tables, reward)
        return LocalStep(self._state(), reward, self._clocks.tick())

    def _draw(self) -> np.ndarray:
        """Uniform numbers in [0, 1), float32 [R, E, S]; below ``item_probability`` an item appears."""
        for stream, draws in zip(self._streams, self._draws, strict=True):
            stream.random(out=draws, dtype=np.float32)
        return self._draws

    def _state(self) -> State:
        bits = np.zeros((*self.cell.shape, OBSERVATION_SIZE), np.uint8)
        observe_blocks(self.cell, self._ages, self._block.shelves, bits)
        robots = len(self._block.shelves)
        return State(bits, bits if robots == 1 else joined(bits.reshape(-1, robots, *bits.shape[1:])))
