"""The traffic domain (Section 5.2 and Appendix F of the paper): lights of a city grid, simulated by SUMO.

network.py builds the roads, installation.py finds SUMO, sumo.py is the only file that asks it, crossings.py
sets lights and reads edges, simulators.py holds the global and the local simulator; demand.py says who comes
from outside, entries.py and platoons.py how vehicles enter a region, controllers.py the hand-coded policies.
kernels.py are the loops of every step; throughput.py and tape.py measure what they cost beside SUMO alone;
drawing.py draws pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Agent, Drawing, Region, Source
from dials_mpi.domains.blocks import blocks, require_fit
from dials_mpi.domains.traffic.controllers import CONTROLLERS, TrafficController
from dials_mpi.domains.traffic.demand import STATISTICS
from dials_mpi.domains.traffic.insertion import Drop, Entrances, Hold
from dials_mpi.domains.traffic.junctions import CELL_LENGTH, Crossings
from dials_mpi.domains.traffic.network import PHASES, SIDES, Network
from dials_mpi.domains.traffic.platoons import platoons
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator, TrafficLocalSimulator
from dials_mpi.domains.traffic.sumo import installation
from dials_mpi.domains.traffic.sumo.trial import require_start
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Traffic", "TrafficConfig", "TrafficController", "TrafficGlobalSimulator", "TrafficLocalSimulator"]

SIDE_BY_SIDE = 16
"""Crossings in one SUMO process: with 8 to 16 what SUMO holds of them fits into a core's cache beside the
networks; 32 cost a fifth more per step, 64 a third."""


@dataclass(frozen=True)
class TrafficConfig:
    """Settings of the traffic domain."""

    grid: tuple[int, int] = setting(
        (2, 2), "Rows and columns of crossings (Section 5.2: 2x2, 5x5, 7x7, 10x10)", low=1, high=100
    )
    block: tuple[int, int] = setting(
        (1, 1),
        "Rows and columns of crossings that share a local simulator and a predictor; they divide grid "
        "(Appendix E.2)",
        low=1,
        high=100,
        newer=True,
    )
    inflow: float = setting(
        0.1,
        "Probability per second that a vehicle comes, at every entry edge (authors' code)",
        low=0.001,
        high=1,
    )
    edge_length: float = setting(100.0, "Length of every edge, m (authors' code)", low=30, high=2000)
    speed_limit: float = setting(10.0, "On all edges, m/s (authors' code)", low=1, high=50)
    cells: int = setting(
        9,
        "Observed cells of 10 m on each incoming edge, from the stop line (authors' code)",
        low=1,
        high=1000,
    )
    yellow: int = setting(3, "Steps of yellow between two greens (authors' code)", low=1, high=60)
    horizon: int = setting(300, "Length of an episode, steps of one second (Appendix I)", low=1)
    predictor_sees_lights: bool = setting(
        False, "Whether the predictor's input has the 4 bits of the light, too (Appendix E.1: it has not)"
    )
    entries: str = setting(
        "hold",
        "What happens to a sampled vehicle that does not fit: hold it and let it enter as real ones do, or "
        "drop it as in the authors' code",
        choices=("hold", "drop"),
    )
    sumo: str = setting(
        "auto", "auto: libsumo, traci where there is none; traci is slower", choices=installation.BACKENDS
    )
    gui: bool = setting(False, "Show SUMO's window; only with traci")

    def __post_init__(self) -> None:
        require_fit("traffic", self.grid, self.block)
        if self.cells * CELL_LENGTH > self.edge_length:
            most = int(self.edge_length // CELL_LENGTH)
            raise BadInput(
                f"traffic.cells is {self.cells}, and so many cells of {CELL_LENGTH:g} m are longer than "
                f"traffic.edge_length={self.edge_length:g}: make it at most {most}"
            )


class Traffic:
    """The grid as a networked system: crossings row by row, a region for each block of them.

    A region's sources are the entries onto the edges that lead into it, crossing after crossing.
    """

    name = "traffic"
    hand_coded = tuple(CONTROLLERS)
    statistics = STATISTICS
    side_by_side = SIDE_BY_SIDE

    def __init__(self, config: TrafficConfig) -> None:
        self.config = config
        self.horizon = config.horizon
        seen = len(SIDES) * config.cells
        own = seen + len(PHASES) * config.predictor_sees_lights
        self.agents = [Agent(seen + len(PHASES), actions=2)] * (config.grid[0] * config.grid[1])
        self._ways = self._network(*config.block, 1).ways()
        self.regions = [
            Region(crossings, len(crossings) * own, (2,) * len(self._ways))
            for crossings in blocks(config.grid, config.block)
        ]

    def versions(self) -> dict[str, str]:
        """Of SUMO, and which of its Python modules is used. BadInput: missing, too old, or does not start."""
        found = installation.versions(self.config.sumo, self.config.gui)
        require_start(self.config.sumo, self.config.gui)
        return found

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> TrafficGlobalSimulator:
        """E = len(streams) episodes of the whole grid; stream e decides who comes from outside."""
        config = self.config
        crossings = self._crossings(self._network(*config.grid, len(streams)))
        return TrafficGlobalSimulator(
            crossings,
            config.inflow,
            config.horizon,
            config.predictor_sees_lights,
            np.array([region.agents for region in self.regions]),
            self._ways,
            streams,
        )

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> TrafficLocalSimulator:
        """Local simulators of the given regions, one stream each; ValueError if the numbers differ."""
        if len(regions) != len(streams):
            raise ValueError(f"{len(regions)} regions need as many streams, not {len(streams)}")
        config = self.config
        crossings = self._crossings(self._network(*config.block, len(regions) * environments))
        entrances = self._entrances(crossings, regions, environments)
        return TrafficLocalSimulator(
            crossings, entrances, environments, config.horizon, config.predictor_sees_lights, streams
        )

    def controller(
        self, name: str, simulator: TrafficGlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> TrafficController:
        """The policy ``name`` of CONTROLLERS, before the simulator's first reset; no chance is in them."""
        if name not in CONTROLLERS:
            raise ValueError(f"no hand-coded traffic policy {name!r}; there are {', '.join(CONTROLLERS)}")
        return TrafficController(name, simulator)

    def sources(self, region: int) -> tuple[Source, ...]:
        """Whether a vehicle comes onto each edge that leads into the region in the step."""
        crossings = self.regions[region].agents
        return tuple(
            Source(
                f"car from the {SIDES[way % len(SIDES)]}"
                + (f" to {crossings[way // len(SIDES)]}" if len(crossings) > 1 else ""),
                ("none", "enters"),
            )
            for way in self._ways.tolist()
        )

    def drawing(
        self, simulator: TrafficGlobalSimulator | TrafficLocalSimulator, axes: Axes, region: int | None
    ) -> Drawing:
        """The grid with its cars and lights, or one region of it; of a simulator of one episode."""
        from dials_mpi.domains.traffic.drawing import CrossingsDrawing

        if region is None:
            return CrossingsDrawing(simulator.crossings, axes, range(len(self.agents)))
        return CrossingsDrawing(simulator.crossings, axes, self.regions[region].agents, self._ways)

    def _network(self, rows: int, columns: int, copies: int) -> Network:
        return Network(rows, columns, copies, self.config.edge_length, self.config.speed_limit)

    def _crossings(self, network: Network) -> Crossings:
        config = self.config
        return Crossings(network, config.cells, config.yellow, config.sumo, config.gui)

    def _entrances(self, crossings: Crossings, regions: Sequence[int], environments: int) -> Entrances:
        config = self.config
        if config.entries == "drop":
            return Drop(crossings)
        agents = np.array([self.regions[k].agents for k in regions])
        edges = self._network(*config.grid, 1).outside()[agents].reshape(len(agents), -1)
        outside = edges[:, self._ways].repeat(environments, axis=0)
        inner = None
        if not outside.all():
            inner = platoons(
                config.edge_length, config.speed_limit, config.inflow, config.yellow, config.sumo
            )
        return Hold(crossings, outside, inner)
