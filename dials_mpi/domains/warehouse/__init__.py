"""The warehouse domain (Section 5.2 and Appendix F of the paper): robots that collect items from shelves.

region.py has the tables of one region, floor.py the map of all regions, simulators.py the global and the
local simulator, kernels.py their compiled loops, scripts.py the hand-coded policies, drawing.py pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.domains.base import Agent, Drawing, Region, Source
from dials_mpi.domains.blocks import placed, require_fit
from dials_mpi.domains.warehouse.floor import lay_out
from dials_mpi.domains.warehouse.region import ACTIONS, OBSERVATION_SIZE, parts
from dials_mpi.domains.warehouse.scripts import SCRIPTS, Script
from dials_mpi.domains.warehouse.simulators import WarehouseGlobalSimulator, WarehouseLocalSimulator
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Warehouse",
    "WarehouseConfig",
    "WarehouseController",
    "WarehouseGlobalSimulator",
    "WarehouseLocalSimulator",
]


@dataclass(frozen=True)
class WarehouseConfig:
    """Settings of the warehouse domain."""

    grid: tuple[int, int] = setting(
        (10, 10), "Rows and columns of learning robots (Section 5.2: 2x2, 5x5, 7x7, 10x10)", low=1, high=100
    )
    block: tuple[int, int] = setting(
        (1, 1),
        "Rows and columns of robots that share a local simulator and a predictor; they divide grid (Appendix "
        "E.2)",
        low=1,
        high=100,
        newer=True,
    )
    ring: bool = setting(
        True, "Surround the learners with a border of scripted robots (as in the paper's experiments)"
    )
    ring_policy: str = setting(
        "closest", "Target of the ring's robots (authors' code: closest item)", choices=("closest", "oldest")
    )
    item_probability: float = setting(
        0.02, "Probability per step that an item appears on a free shelf cell (Section 5.2)", low=0, high=1
    )
    horizon: int = setting(100, "Length of an episode, steps (Appendix I)", low=1)

    def __post_init__(self) -> None:
        require_fit("warehouse", self.grid, self.block)


class Warehouse:
    """The warehouse as a networked system: learning robots row by row, a region for each block of them.

    A region's sources are the neighbours behind its border sides, robot after robot; its d-set is the
    concatenation of its robots' observations: an item that two robots see is included twice.
    """

    name = "warehouse"
    Config = WarehouseConfig
    hand_coded = tuple(SCRIPTS)
    statistics = ()
    side_by_side = None

    def __init__(self, config: WarehouseConfig) -> None:
        self.config = config
        self.horizon = config.horizon
        self._floor = floor = lay_out(config.grid, config.ring, config.block)
        self.agents = placed(Agent(OBSERVATION_SIZE, ACTIONS, parts()), config.grid)
        inputs = parts(floor.regions.shape[1])
        self.regions = [
            Region(
                tuple(robots),
                len(robots) * OBSERVATION_SIZE,
                (4,) * len(floor.block.sides),
                parts=inputs,
            )
            for robots in floor.regions.tolist()
        ]

    def versions(self) -> dict[str, str]:
        """There are none: only this package is needed."""
        return {}

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> WarehouseGlobalSimulator:
        """E = len(streams) episodes of the whole warehouse."""
        config = self.config
        return WarehouseGlobalSimulator(
            self._floor, config.ring_policy, config.item_probability, config.horizon, streams
        )

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> WarehouseLocalSimulator:
        """Local simulators of the given regions, one stream each; ValueError if the numbers differ."""
        if len(regions) != len(streams):
            raise ValueError(f"{len(regions)} regions need as many streams, not {len(streams)}")
        config = self.config
        return WarehouseLocalSimulator(
            self._floor.block, environments, config.item_probability, config.horizon, streams
        )

    def controller(
        self, name: str, simulator: WarehouseGlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> WarehouseController:
        """All learners follow the script ``name`` ("oldest", "closest"). ValueError: another name."""
        return WarehouseController(name, simulator, streams)

    def sources(self, region: int) -> tuple[Source, ...]:
        """The neighbours at the border, and the shelf cells of the shared side on which they may stand."""
        across, down = ("top", "middle", "bottom"), ("left", "middle", "right")
        sides = (("right", across), ("lower", down), ("left", across), ("upper", down))
        block, robots = self._floor.block, self.regions[region].agents
        alone = len(robots) == 1
        return tuple(
            Source(
                f"{sides[side][0]} neighbour" + ("" if alone else f" of {robots[robot]}"),
                (*sides[side][1], "not there"),
            )
            for robot, side in zip(block.robots.tolist(), block.sides.tolist(), strict=True)
        )

    def drawing(
        self,
        simulator: WarehouseGlobalSimulator | WarehouseLocalSimulator,
        axes: Axes,
        region: int | None,
    ) -> Drawing:
        """The warehouse with its robots and items, or one region."""
        from dials_mpi.domains.warehouse.drawing import FloorDrawing, RegionDrawing

        if isinstance(simulator, WarehouseGlobalSimulator):
            return FloorDrawing(simulator, axes, self._floor.places, self.horizon)
        assert region is not None
        return RegionDrawing(simulator, axes, self._floor, region, self.horizon)


class WarehouseController:
    """A hand-coded joint policy: every learner follows the same script."""

    def __init__(
        self, name: str, simulator: WarehouseGlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> None:
        self._simulator = simulator
        self._streams = streams
        self._uniforms = np.empty((len(streams), simulator.learners), dtype=np.float32)
        self._script = Script(name, (simulator.learners, len(streams)))
        self._restarts = simulator.restarts.copy()

    def act(self) -> np.ndarray:
        """Actions for the current state, int [N, E]."""
        simulator, n = self._simulator, self._simulator.learners
        self._script.forget(simulator.restarts != self._restarts)
        self._restarts[:] = simulator.restarts
        for stream, uniforms in zip(self._streams, self._uniforms, strict=True):
            stream.random(out=uniforms, dtype=np.float32)
        return self._script.act(simulator.ages[:n], simulator.cell[:n], self._uniforms.T)
