"""The traffic domain (Section 5.2 and Appendix F of the paper): signals of a city grid, simulated by SUMO.

network.py builds the roads; trial.py starts SUMO once before a run; junctions.py sets signals, reads edges;
simulators.py has the global and the local simulator; demand.py is the traffic that enters the grid,
insertion.py and platoons.py the vehicles that enter a local region; vehicles.py has the vehicle type,
approaches.py the delays and queues on them,
controllers.py the hand-coded policies, kernels.py the compiled loops of every step. compiled.py simulates
local junctions without SUMO, in the loops of crossing.py, driving.py and entering.py, sameness.py compares
them with SUMO. throughput.py and command_log.py measure the cost beside SUMO alone, fidelity.py compares
local simulators with the global one, drawing.py draws pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Agent, Details, Drawing, OnlyOne, Region, Source
from dials_mpi.domains.blocks import blocks, placed, require_fit
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.domains.traffic.approaches import Counts, table
from dials_mpi.domains.traffic.controllers import CONTROLLERS, TrafficController
from dials_mpi.domains.traffic.demand import STATISTICS
from dials_mpi.domains.traffic.insertion import Drop, Hold, InsertionRule
from dials_mpi.domains.traffic.junctions import CELL_LENGTH, Junctions, Observed, parts
from dials_mpi.domains.traffic.network import PHASES, SIDES, Network
from dials_mpi.domains.traffic.platoons import recorded_platoons
from dials_mpi.domains.traffic.simulators import TrafficGlobalSimulator, TrafficLocalSimulator
from dials_mpi.domains.traffic.trial import require_start
from dials_mpi.domains.traffic.vehicles import longest_insertion
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dials_mpi.domains.traffic.compiled import CompiledJunctions

__all__ = ["Traffic", "TrafficConfig", "TrafficController", "TrafficGlobalSimulator", "TrafficLocalSimulator"]

SIDE_BY_SIDE = 16
"""Junctions in one SUMO simulation: with 8 to 16 its data fits into a core's cache beside the networks; with
32 a step costs a fifth more per junction, with 64 a third."""


@dataclass(frozen=True)
class TrafficConfig:
    """Settings of the traffic domain."""

    grid: tuple[int, int] = setting(
        (2, 2), "Rows and columns of junctions (Section 5.2: 2x2, 5x5, 7x7, 10x10)", low=1, high=100
    )
    block: tuple[int, int] = setting(
        (1, 1),
        "Rows and columns of junctions that share a local simulator and a predictor; they divide grid "
        "(Appendix E.2)",
        low=1,
        high=100,
        newer=True,
    )
    inflow: float = setting(
        0.1,
        "Probability per second that a vehicle enters, on every entry edge (authors' code)",
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
        False, "Whether the predictor's input includes the 4 bits of the signal (Appendix E.1: it does not)"
    )
    entries: str = setting(
        "hold",
        "What happens to a sampled vehicle that does not fit: hold it until it fits, with the headways and "
        "speeds of the whole system, or drop it as in the authors' code",
        choices=("hold", "drop"),
    )
    local: str = setting(
        "sumo",
        "What simulates local regions: sumo, or compiled, the same traffic of single junctions in compiled "
        "loops, several times faster (docs/grid.md)",
        choices=("sumo", "compiled"),
        newer=True,
    )
    sumo: str = setting(
        "auto",
        "auto: libsumo, or traci if it is missing; traci is slower",
        choices=installation.BACKENDS,
        affects_results=False,
    )
    gui: bool = setting(False, "Show SUMO's window; only with traci", affects_results=False)

    def __post_init__(self) -> None:
        require_fit("traffic", self.grid, self.block)
        if self.local == "compiled":
            self._require_single_junctions()
        if self.cells * CELL_LENGTH > self.edge_length:
            most = int(self.edge_length // CELL_LENGTH)
            raise BadInput(
                f"traffic.cells is {self.cells}, but cells of {CELL_LENGTH:g} m then cover more than "
                f"traffic.edge_length={self.edge_length:g}: make it at most {most}"
            )

    def _require_single_junctions(self) -> None:
        """BadInput: there is no compiled simulator of such regions."""
        if self.block != (1, 1):
            raise BadInput(
                f"traffic.block is {list(self.block)}, and traffic.local=compiled simulates single "
                "junctions: make it [1, 1], or use traffic.local=sumo"
            )
        for key in ("edge_length", "speed_limit"):
            value = getattr(self, key)
            if round(value, 2) != value:  # as in SUMO's files
                raise BadInput(
                    f"traffic.{key} is {value}, and traffic.local=compiled takes at most two decimals: "
                    "round it, or use traffic.local=sumo"
                )
        least = longest_insertion(self.speed_limit)
        if self.edge_length < least:
            raise BadInput(
                f"traffic.edge_length is {self.edge_length:g}, and traffic.local=compiled needs "
                f"{least:g} m or more at traffic.speed_limit={self.speed_limit:g}: use traffic.local=sumo"
            )


class Traffic:
    """The grid as a networked system: junctions row by row, a region for each block of them.

    A region's sources are the entries on its entry edges, junction after junction. simulate: starts a SUMO
    simulation for each simulator; it takes the arguments of Simulation.
    """

    name = "traffic"
    Config = TrafficConfig
    hand_coded = tuple(CONTROLLERS)
    statistics = STATISTICS
    side_by_side = SIDE_BY_SIDE
    return_tolerance = 0.05  # the source does not say where in its second a vehicle enters

    def __init__(self, config: TrafficConfig) -> None:
        self.config = config
        self.horizon = config.horizon
        self.simulate: Callable[..., Simulation] = Simulation
        bits = len(SIDES) * config.cells
        input_size = bits + len(PHASES) * config.predictor_sees_lights
        agent = Agent(bits + len(PHASES), actions=2, parts=parts(config.cells))
        self.agents = placed(agent, config.grid)
        self._entry_indices = self._network(*config.block, 1).entry_indices()
        inputs = parts(config.cells, config.predictor_sees_lights, config.block[0] * config.block[1])
        self.regions = [
            Region(junctions, len(junctions) * input_size, (2,) * len(self._entry_indices), parts=inputs)
            for junctions in blocks(config.grid, config.block)
        ]

    def versions(self) -> dict[str, str]:
        """Versions of SUMO, and its Python module.

        BadInput: it is missing, too old or does not start.
        """
        found = installation.versions(self.config.sumo, self.config.gui)
        require_start(self.config.sumo, self.config.gui)
        return found

    def require_local(self) -> None:
        """BadInput: this SUMO's traffic is not that of the compiled local simulator."""
        if self.config.local == "compiled":
            from dials_mpi.domains.traffic.sameness import require_same_traffic

            require_same_traffic(self.config, self.versions()["sumo"])

    @property
    def local_side_by_side(self) -> int | None:
        """As ``side_by_side``, for local simulators."""
        return SIDE_BY_SIDE if self.config.local == "sumo" else None

    @property
    def only_one(self) -> OnlyOne | None:
        """With libsumo a process has one simulation at a time."""
        alone = installation.in_process(self.config.sumo, self.config.gui)
        return OnlyOne("traffic.sumo=traci") if alone else None

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> TrafficGlobalSimulator:
        """E = len(streams) episodes of the whole grid; stream e draws the vehicles that enter."""
        config = self.config
        junctions = self._junctions(self._network(*config.grid, len(streams)))
        return TrafficGlobalSimulator(
            junctions,
            config.inflow,
            config.horizon,
            config.predictor_sees_lights,
            np.array([region.agents for region in self.regions]),
            self._entry_indices,
            streams,
        )

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> TrafficLocalSimulator:
        """Local simulators of the given regions, one stream each; ValueError if the numbers differ."""
        if len(regions) != len(streams):
            raise ValueError(f"{len(regions)} regions need as many streams, not {len(streams)}")
        config = self.config
        junctions = self._local_junctions(self._network(*config.block, len(regions) * environments))
        insertion = self._insertion(junctions, regions, environments)
        return TrafficLocalSimulator(
            junctions, insertion, environments, config.horizon, config.predictor_sees_lights, streams
        )

    def controller(
        self, name: str, simulator: TrafficGlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> TrafficController:
        """The policy ``name`` of CONTROLLERS, made before the simulator's first reset; all are deterministic.

        ValueError: there is no such policy.
        """
        if name not in CONTROLLERS:
            raise ValueError(f"no hand-coded traffic policy {name!r}; there are {', '.join(CONTROLLERS)}")
        return TrafficController(name, simulator)

    def details(self, simulator: TrafficGlobalSimulator) -> Counts:
        """What happened on each approach."""
        return simulator.approaches()

    def merged_details(self, episodes: Sequence[Counts]) -> Details:
        """Vehicles, delay and queues on each approach."""
        return table(episodes, [agent.name for agent in self.agents])

    def sources(self, region: int) -> tuple[Source, ...]:
        """Whether a vehicle enters each entry edge of the region in the step."""
        junctions = self.regions[region].agents
        return tuple(
            Source(
                f"car from the {SIDES[edge % len(SIDES)]}"
                + (f" to {junctions[edge // len(SIDES)]}" if len(junctions) > 1 else ""),
                ("none", "enters"),
            )
            for edge in self._entry_indices.tolist()
        )

    def drawing(
        self, simulator: TrafficGlobalSimulator | TrafficLocalSimulator, axes: Axes, region: int | None
    ) -> Drawing:
        """The grid with its cars and signals, or one region; the simulator has one episode."""
        from dials_mpi.domains.traffic.drawing import JunctionsDrawing

        if region is None:
            return JunctionsDrawing(simulator.junctions, axes, range(len(self.agents)))
        return JunctionsDrawing(simulator.junctions, axes, self.regions[region].agents, self._entry_indices)

    def _network(self, rows: int, columns: int, copies: int) -> Network:
        return Network(rows, columns, copies, self.config.edge_length, self.config.speed_limit)

    def _junctions(self, network: Network) -> Junctions:
        config = self.config
        return Junctions(network, config.cells, config.yellow, config.sumo, config.gui, self.simulate)

    def _local_junctions(self, network: Network) -> Junctions | CompiledJunctions:
        if self.config.local == "sumo":
            return self._junctions(network)
        from dials_mpi.domains.traffic.compiled import CompiledJunctions

        return CompiledJunctions(network, self.config.cells, self.config.yellow)

    def _insertion(self, junctions: Observed, regions: Sequence[int], environments: int) -> InsertionRule:
        config = self.config
        if config.entries == "drop":
            return Drop(junctions)
        agents = np.array([self.regions[k].agents for k in regions])
        edges = self._network(*config.grid, 1).entry_mask()[agents].reshape(len(agents), -1)
        outside = edges[:, self._entry_indices].repeat(environments, axis=0)
        platoons = None
        if not outside.all():
            platoons = recorded_platoons(
                config.edge_length, config.speed_limit, config.inflow, config.yellow, config.sumo
            )
        return Hold(junctions, outside, platoons)
