"""Real cities: any SUMO network, cut into a local region for each traffic light.

scenario.py finds the files, net.py reads the network; blocks.py says which signals share a region, regions.py
which roads belong to it, cutting.py and tiles.py cut them out; influence.py has the influence sources and the
predictor's input, tracking.py and global_influence.py read them from the whole city, recording.py and
insertion.py say how vehicles enter a local region. signals.py switches signals, approaches.py and rewards.py
are what agents see and receive; global_simulator.py and local_simulator.py are the simulators, statistics.py
the figures of an episode, controllers.py the hand-coded policies; fidelity.py measures the accuracy of local
simulators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.domains.base import Agent, Details, Drawing, OnlyOne, Region, Source, Survey
from dials_mpi.domains.city import scenario as scenarios
from dials_mpi.domains.city import survey as surveys
from dials_mpi.domains.city import vehicle_types
from dials_mpi.domains.city.approaches import observation_size, parts
from dials_mpi.domains.city.blocks import groups
from dials_mpi.domains.city.control import control
from dials_mpi.domains.city.controllers import CONTROLLERS, CityController
from dials_mpi.domains.city.destinations import destinations
from dials_mpi.domains.city.global_influence import GlobalInfluence
from dials_mpi.domains.city.global_simulator import CityGlobalSimulator, Rules
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.local_simulator import CityLocalSimulator
from dials_mpi.domains.city.net import Net, read
from dials_mpi.domains.city.outputs import Outputs
from dials_mpi.domains.city.recording import Recorded, recorded
from dials_mpi.domains.city.regions import REACH, Roads, plan, with_upstream
from dials_mpi.domains.city.rewards import reward_class
from dials_mpi.domains.city.statistics import STATISTICS, SignalDelay, delay_table
from dials_mpi.domains.city.tiles import Cutter
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.settings import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["City", "CityConfig", "CityGlobalSimulator", "CityLocalSimulator"]

HOUR = 3600


@dataclass(frozen=True)
class CityConfig:
    """Settings of the city domain. Times are whole seconds."""

    scenario: str = setting(
        "",
        "A .sumocfg, resco:NAME, lille or bologna (extra lille); empty: network and routes",
    )
    network: str = setting("", "The network (.net.xml or .net.xml.gz), in place of a scenario")
    routes: tuple[str, ...] = setting(
        (), "Files with vehicles, flows, trips, types and additional files, in SUMO's order"
    )
    begin: int = setting(-1, "Begin of the window, s of the day; -1: the scenario's", low=-1, high=10**7)
    end: int = setting(-1, "End of the window; -1: begin + horizon", low=-1, high=10**7)
    horizon: int = setting(HOUR, "Length of an episode, s; with begin and end set, their difference", low=1)
    decision_every: int = setting(10, "Seconds between an agent's decisions (RESCO: 10)", low=1, high=600)
    yellow: int = setting(3, "Seconds of yellow between two greens (RESCO: 3)", low=0, high=60)
    all_red: int = setting(0, "Seconds of red after yellow (RESCO: 0)", low=0, high=60)
    minimum_green: int = setting(0, "Least seconds of a green (RESCO: 0)", low=0, high=600)
    reward: str = setting(
        "queue",
        "What an agent receives for a decision: queue, delay, diff-waiting-time, pressure, average-speed, or "
        "a class of your own as module:Class (docs/city.md)",
    )
    reward_scale: float = setting(
        1.0, "Factor of all rewards; PPO learns best if a reward is about 1", low=1e-6, high=1e6
    )
    observe_waiting: bool = setting(False, "Whether agents see the waiting time on each lane, too")
    block: str = setting(
        "", 'Signals that share a region: "" (one each), auto:K (K near each other), or "a+b, c+d+e" (names)'
    )
    reach: float = setting(
        REACH,
        "Metres of road before the stop lines that belong to a region, if no other signal comes before",
        low=20,
        high=2000,
    )
    approach: float = setting(
        REACH,
        "Metres of road before a stop line that an agent observes and is paid for; 0: only the last lane, as "
        "in sumo-rl",
        low=0,
        high=2000,
    )
    emissions: bool = setting(False, "Whether SUMO computes CO2 in evaluations; it is a fifth slower then")
    sumo: str = setting(
        "auto",
        "auto: libsumo, or traci if it is missing; traci is slower",
        choices=installation.BACKENDS,
        affects_results=False,
    )
    gui: bool = setting(False, "Show SUMO's window; only with traci", affects_results=False)

    def __post_init__(self) -> None:
        if self.begin >= 0 and self.end >= 0:
            if self.end <= self.begin:
                raise BadInput(f"city.end is {self.end}, not after city.begin={self.begin}: make it larger")
            if self.horizon not in (HOUR, self.end - self.begin):
                raise BadInput(
                    f"city.horizon is {self.horizon}, but from city.begin to city.end it is "
                    f"{self.end - self.begin} s: remove one of the three"
                )
            # From here on the horizon alone says how long the window is.
            object.__setattr__(self, "horizon", self.end - self.begin)
            object.__setattr__(self, "end", -1)
        elif self.end >= 0:
            raise BadInput(f"city.end is {self.end} without city.begin: set both, or city.horizon")
        if ":" not in self.reward:
            reward_class(self.reward)
        change = self.yellow + self.all_red
        if change >= self.decision_every:
            raise BadInput(
                f"city.yellow and city.all_red are {change} s together, and a decision lasts "
                f"{self.decision_every} s: make city.decision_every larger"
            )

    @property
    def system_name(self) -> str:
        """The name of the map: of RESCO's, or of the file without its ending."""
        file = self.scenario or self.network
        return re.sub(r"(\.net)?\.(sumocfg|xml)(\.gz)?$", "", Path(file.rpartition(":")[2]).name)


class City:
    """A city as a networked system: an agent for each signal that has a choice, and a region around it.

    simulate: starts a SUMO simulation for each simulator; it takes the arguments of Simulation.
    """

    name = "city"
    Config = CityConfig
    hand_coded = tuple(CONTROLLERS)
    statistics = STATISTICS
    side_by_side = 1
    return_tolerance = 0.1  # docs/city.md: jams in the city and in the tile differ

    def __init__(self, config: CityConfig) -> None:
        """BadInput: files are missing or cannot be used, or there is no signal that has a choice."""
        self.config, self.horizon, self.decision_every = config, config.horizon, config.decision_every
        self.simulate: Callable[..., Simulation] = Simulation
        found = scenarios.find(config.scenario, config.network, config.routes, *_window(config))
        self.scenario = replace(found, end=found.begin + config.horizon)
        files = self._demand_files()
        self._types = vehicle_types.read(files)
        net = read(found.network, self._types.driving)
        surveys.require_agents(net)
        self.rules = Rules(
            *(config.decision_every, config.yellow, config.all_red, config.minimum_green),
            *(config.observe_waiting, config.reward, config.reward_scale),
        )
        reward_class(config.reward)  # refused before anything is begun
        roads, ends = Roads(net), destinations(files)
        blocks = groups(net, config.block)
        plans = [plan(net, names, config.reach, ends, roads) for names in blocks]
        self.net: Net = with_upstream(net, plans, min(config.approach, config.reach))
        self.signals = list(self.net.agents.values())
        self.influences = [Influence(each, self.net) for each in plans]
        self.agents = [
            Agent(
                observation_size(signal, config.observe_waiting),
                len(signal.greens),
                parts(signal, config.observe_waiting),
                name=signal.name,
                position=self.net.centre(signal),
            )
            for signal in self.signals
        ]
        index = {signal.name: k for k, signal in enumerate(self.signals)}
        self.regions = [
            Region(
                tuple(index[name] for name in names),
                influence.input_size,
                influence.classes,
                parts=influence.parts(),
            )
            for names, influence in zip(blocks, self.influences, strict=True)
        ]

    @cached_property
    def recorded(self) -> list[Recorded]:
        """What the recording shows of each region."""
        return recorded(self.scenario, self.influences, self.config.sumo)

    def _demand_files(self) -> tuple[Path, ...]:
        return (*self.scenario.additional, *self.scenario.routes)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self.net)

    def versions(self) -> dict[str, str]:
        """Versions of SUMO, and its Python module. BadInput: it is missing or too old."""
        return installation.versions(self.config.sumo, self.config.gui)

    @property
    def only_one(self) -> OnlyOne | None:
        """With libsumo a process has one simulation at a time."""
        alone = installation.in_process(self.config.sumo, self.config.gui)
        return OnlyOne("city.sumo=traci") if alone else None

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> CityGlobalSimulator:
        """One episode of the whole city; ValueError: more are asked for."""
        names = [signal.name for signal in self.signals]
        return CityGlobalSimulator(
            self.scenario,
            self.net,
            self.rules,
            streams,
            GlobalInfluence(self.influences, names, self.horizon),
            Outputs(emissions=self.config.emissions),
            backend=self.config.sumo,
            gui=self.config.gui,
            simulate=self.simulate,
        )

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> CityLocalSimulator:
        """The local simulator of one region; ValueError: more are asked for."""
        if len(regions) != 1 or len(streams) != 1:
            raise ValueError(f"a city's local simulator has one region, not {len(regions)}")
        influence = self.influences[regions[0]]
        return CityLocalSimulator(
            influence,
            self._cutter.tile(influence.plan, environments),
            self.recorded[regions[0]],
            self._types.xml,
            self._types.classes,
            self.rules,
            self.horizon,
            streams[0],
            self.config.sumo,
            self.config.gui,
            self.simulate,
        )

    def controller(
        self, name: str, simulator: CityGlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> CityController:
        """The policy ``name`` of CONTROLLERS, made before the simulator's first reset."""
        return CityController(name, simulator, streams[0])

    def keep_files(self, simulator: CityGlobalSimulator, folder: Path) -> None:
        """SUMO's files of the coming episode stay in the folder: see outputs.py."""
        if "," in str(folder):  # it separates the files in SUMO's options
            raise BadInput(f"{shown(str(folder))} has a comma, which SUMO cannot read: choose another folder")
        simulator.files = Outputs(folder, self.config.emissions)

    def details(self, simulator: CityGlobalSimulator) -> list[SignalDelay]:
        """The delay at each signal in the episode that has just ended."""
        return simulator.signal_delays()

    def merged_details(self, episodes: Sequence[Sequence[SignalDelay]]) -> Details:
        """The delay at each signal, with its level of service, over several episodes."""
        return delay_table(episodes)

    def control(self) -> dict[str, Any]:
        """What a program outside needs to control this city: see export/traci_program.py."""
        return control(self.scenario, self.net, self.rules)

    def sources(self, region: int) -> tuple[Source, ...]:
        """The influence sources of a region."""
        return self.influences[region].sources()

    def survey(self) -> Survey:
        """What the files say of each signal, and what stands in the way."""
        plans = [influence.plan for influence in self.influences]
        return surveys.table(surveys.survey(self.scenario, self.net, plans))

    def drawing(
        self, simulator: CityGlobalSimulator | CityLocalSimulator, axes: Axes, region: int | None
    ) -> Drawing:
        """The city with its cars and signals, or copy 0 of a region's tile."""
        from dials_mpi.domains.city.drawing import city_drawing, region_drawing

        if region is None:
            return city_drawing(lambda: simulator.simulation, axes, self.net, self.influences)
        agents = self.regions[region].agents
        return region_drawing(lambda: simulator.simulation, axes, self.influences[region], agents)

    def draw_map(self, axes: Axes, colours: Sequence[str] | None = None) -> None:
        """The roads of each region in a colour, and the numbers of the agents."""
        from dials_mpi.domains.city.drawing import draw_regions

        draw_regions(axes, self.net, self.influences, colours)

    def draw_scores(self, axes: Axes, simulator: CityGlobalSimulator) -> None:
        """The delay at each signal in the simulator's episode, and its level of service."""
        from dials_mpi.domains.city.drawing import draw_delays

        draw_delays(axes, self.net, self.influences, simulator.signal_delays())


def _window(config: CityConfig) -> tuple[float | None, float | None]:
    """Begin and end for ``scenarios.find``; None: the scenario's."""
    if config.begin < 0:
        return None, None
    return float(config.begin), float(config.begin + config.horizon)
