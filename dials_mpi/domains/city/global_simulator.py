"""The global simulator of a city: one SUMO simulation of the whole network for every episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dials_mpi.domains.base import GlobalStep, Rows, State
from dials_mpi.domains.city import outputs
from dials_mpi.domains.city import statistics as trip_statistics
from dials_mpi.domains.city.approaches import Approaches
from dials_mpi.domains.city.net import Net
from dials_mpi.domains.city.outputs import Outputs
from dials_mpi.domains.city.rewards import reward_class
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.city.signals import Lights
from dials_mpi.domains.clocks import Clocks
from dials_mpi.domains.sumo.simulation import Simulation

WAITING_MEMORY = ("--waiting-time-memory", "1000000")
"""SUMO forgets how long a vehicle has waited after 100 s otherwise."""


@dataclass(frozen=True)
class Rules:
    """How signals change, what agents see and what they are paid. Durations are whole seconds.

    observe_waiting: whether an observation includes the waiting time of each lane. reward: its name, see
    ``reward_class``; reward_scale: its factor.
    """

    decision_every: int = 10
    yellow: int = 3
    all_red: int = 0
    minimum_green: int = 0
    observe_waiting: bool = False
    reward: str = "diff-waiting-time"
    reward_scale: float = 1.0


class Influence(Protocol):
    """What the local simulators replace: read from the global simulation after every second, by region."""

    def reset(self, simulation: Simulation, lights: Lights, gone: float = 0.0) -> Rows:
        """An episode begins, ``gone`` seconds after the window; the inputs of its first state, [R, 1, D]."""
        ...

    def second(self, simulation: Simulation, lights: Lights) -> tuple[Rows, Rows]:
        """The inputs after a second, [R, 1, D], and the sources during it, int [R, 1, M]."""
        ...


class NoInfluence:
    """Nothing is read: inputs and sources of length 0."""

    def __init__(self, regions: int) -> None:
        self._inputs = [np.zeros((1, 0), np.uint8)] * regions
        self._sources = [np.zeros((1, 0), np.int64)] * regions

    def reset(self, simulation: Simulation, lights: Lights, gone: float = 0.0) -> Rows:
        """As Influence."""
        return self._inputs

    def second(self, simulation: Simulation, lights: Lights) -> tuple[Rows, Rows]:
        """As Influence."""
        return self._inputs, self._sources


class CityGlobalSimulator:
    """An episode of the whole city; N agents, those signals that have a choice.

    Time passes in steps of one second. Actions, indices of greens, count at the first second of a decision;
    the observations are those of the last decision in between. Call ``reset`` first: it starts SUMO.

    approaches, lights: of the agents' signals, read by controllers; simulation: the one that runs.
    """

    def __init__(
        self,
        scenario: Scenario,
        net: Net,
        rules: Rules,
        streams: Sequence[np.random.Generator],
        influence: Influence | None = None,
        files: Outputs | None = None,
        backend: str = "auto",
        gui: bool = False,
        simulate: Callable[..., Simulation] = Simulation,
    ) -> None:
        """streams: of one episode; its number, drawn at each reset, seeds SUMO. influence: None: not read.

        ValueError: there is more than one stream.
        """
        if len(streams) != 1:
            raise ValueError(f"a city's global simulator has one episode, not {len(streams)} side by side")
        self._scenario, self.net, self._rules, self._stream = scenario, net, rules, streams[0]
        self._backend, self._simulate = (backend, gui), simulate
        signals = list(net.agents.values())
        self.names = [signal.name for signal in signals]
        self.approaches = Approaches(signals, net.lengths, net.speeds, rules.observe_waiting)
        self.lights = Lights(
            [signal.greens for signal in signals], rules.yellow, rules.all_red, rules.minimum_green
        )
        self.reward = reward_class(rules.reward)(self.approaches, rules.decision_every)
        self.influence = influence or NoInfluence(len(signals))
        self.files = files or Outputs()
        self.horizon = round(scenario.end - scenario.begin)
        self._clocks = Clocks(1, self.horizon)
        self.programs: tuple[Path, str] | None = None
        self.own_programs = False
        self._state: State

    def use_programs(self, additional: Path | None = None, program: str = "") -> None:
        """From the next ``reset`` on SUMO switches the signals, and actions have no effect.

        By the programs of this name in an additional file, else by those of the network.
        """
        self.own_programs, self.programs = True, (additional, program) if additional else None

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As GlobalSimulator: SUMO starts ``elapsed`` seconds after the window's begin, without traffic."""
        if not self._clocks.restart(where, elapsed).any():
            return self._visible()
        self._start(self._scenario.begin + float(self._clocks.gone[0]))
        self._seconds = 0
        self._summary: dict[str, float] | None = None
        self.lights.reset()
        self.reward.reset()
        if not self.own_programs:
            self.simulation.set_lights(zip(self.names, self.lights.states, strict=True))
        self._read()
        inputs = self.influence.reset(self.simulation, self.lights, float(self._clocks.gone[0]))
        self._state = State(self._observations(), inputs)
        return self._visible()

    def step(self, actions: np.ndarray) -> GlobalStep:
        """One second; actions: int [N, 1], taken at the first second of a decision."""
        rules, simulation = self._rules, self.simulation
        if self._seconds % rules.decision_every == 0:
            self.lights.request(np.asarray(actions)[:, 0])
        changed = self.lights.second()
        if not self.own_programs:
            simulation.set_lights((self.names[k], self.lights.states[k]) for k in changed)
        simulation.step()
        self._seconds += 1
        rewards = np.zeros(len(self.names)) + self.reward.second(simulation)
        observations = self._state.observations
        if self._seconds % rules.decision_every == 0:
            self._read()
            rewards = rewards + self.reward.decision(simulation)
            observations = self._observations()
        inputs, sources = self.influence.second(simulation, self.lights)
        self._state = State(observations, inputs)
        paid = (rewards * rules.reward_scale).astype(np.float32)[:, None]
        return GlobalStep(self._visible(), sources, paid, self._clocks.tick())

    def statistics(self) -> dict[str, np.ndarray]:
        """statistics.STATISTICS of the episode so far, float64 [1] each.

        SUMO computes them when it ends: call ``reset`` before the next step. ``co2`` is NaN if emissions are
        not computed.
        """
        if self._summary is None:
            self._summary = self._summarised()
        return {s.name: np.array([self._summary[s.name]]) for s in trip_statistics.STATISTICS}

    def signal_delays(self) -> list[trip_statistics.SignalDelay]:
        """The delay at each signal of the network in the episode so far; it ends SUMO, as ``statistics``."""
        self.statistics()
        return trip_statistics.signal_delays(self._lanes, self.net)

    def close(self) -> None:
        """End SUMO and remove its files; ``reset`` starts it again."""
        self._end_simulation()
        self.files.remove()

    def _end_simulation(self) -> None:
        if hasattr(self, "simulation"):
            self.simulation.close()

    def _start(self, begin: float) -> None:
        self._end_simulation()
        scenario = self._scenario
        extra = [self.programs[0]] if self.programs else []
        additional = [*scenario.additional, *extra, self.files.additional()]
        options = [
            *scenario.options(int(self._stream.integers(2**31)), begin),
            *WAITING_MEMORY,
            *self.files.options(),
        ]
        self.simulation: Simulation = self._simulate(
            scenario.network, additional, (), *self._backend, options
        )
        if self.programs:
            self.simulation.run_program(self.names, self.programs[1])

    def _read(self) -> None:
        """Read what observations and rewards need at a decision."""
        self.approaches.read(self.simulation)
        if self.own_programs:
            for k, state in enumerate(self.simulation.lights(self.names)):
                greens = self.approaches.signals[k].greens
                if state in greens:
                    self.lights.green[k] = greens.index(state)

    def _visible(self) -> State:
        """A copy of the state: observations serve again until the next decision."""
        return State(*([part.copy() for part in parts] for parts in self._state))

    def _observations(self) -> list[np.ndarray]:
        return [row[None] for row in self.approaches.observe(self.lights)]

    def _summarised(self) -> dict[str, float]:
        self.simulation.close()
        folder, end = self.files.folder, self._scenario.begin + float(self._clocks.gone[0])
        trips = trip_statistics.read_trips(folder / outputs.TRIPINFO, end)
        values = trip_statistics.summarised(trips, self._scenario.listed_vehicles)
        self._lanes = trip_statistics.read_lanes(folder / outputs.LANES)
        waiting = [
            self._lanes[lane].waiting for lane in self.approaches.incoming.names if lane in self._lanes
        ]
        values["queue"] = sum(waiting) / self._seconds if self._seconds else math.nan
        values["teleports"] = trip_statistics.teleports(folder / outputs.STATISTICS)
        if not self.files.emissions:
            values["co2"] = math.nan
        return values
