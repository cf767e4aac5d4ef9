"""The speed of a city's simulators beside SUMO alone with the same vehicles and signals."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dials_mpi.domains.city import City, CityLocalSimulator
from dials_mpi.domains.city.recording import start
from dials_mpi.domains.sumo.command_log import LoggedSimulation, replayed
from dials_mpi.domains.sumo.simulation import Simulation

COPIES = 8
"""Copies of a region that are measured in one simulation."""

REGIONS = 4
"""The most regions that are measured; they are spread over the city."""

SEED = 5


def collect_ratio(domain: City, seconds: int = 0, repeats: int = 2) -> float:
    """CPU seconds of an episode on the global simulator over those of SUMO alone.

    With everything read that a dataset has, no policy, and random greens; SUMO alone has the same vehicles
    and signals, and writes no files. seconds: of the episode; 0: all. The least of ``repeats`` each.
    """
    clock = _clock(domain)
    logged, logs = _logging(domain)
    _collect(logged, seconds)
    played = min(_timed(clock, lambda: _collect(domain, seconds)) for _ in range(repeats))
    bare = min(
        _timed(clock, lambda: replayed(logs[0].commands, lambda: _bare(domain)).simulation.close())
        for _ in range(repeats)
    )
    return played / bare


def local_share(domain: City, seconds: int = 600, repeats: int = 2) -> float:
    """CPU seconds of SUMO alone over those of the local simulators with the same vehicles and signals.

    COPIES of each measured region, under the true influence sources of one episode and random greens.
    """
    clock, spent = _clock(domain), np.zeros(2)
    regions = np.unique(np.linspace(0, len(domain.regions) - 1, REGIONS).round().astype(int)).tolist()
    seconds = min(seconds, domain.horizon)
    sources = _collect(domain, seconds)
    for k in regions:
        spent += _local_seconds(domain, k, [step[k] for step in sources], clock, repeats)
    return float(spent[0] / spent[1])


def _local_seconds(
    domain: City, k: int, sources: list[np.ndarray], clock: Callable[[], float], repeats: int
) -> tuple[float, float]:
    """CPU seconds of a region: SUMO alone, and the local simulator."""

    def play() -> None:
        simulator = _local(domain, k)
        _play(simulator, domain, k, sources)
        simulator.close()

    logged, logs = _logging(domain)
    simulator = _local(logged, k)  # its files are needed until it is closed
    _play(simulator, domain, k, sources)
    bare = min(_timed(clock, lambda: logs[0].replay().simulation.close()) for _ in range(repeats))
    simulator.close()
    return bare, min(_timed(clock, play) for _ in range(repeats))


def _collect(domain: City, seconds: int) -> list[Any]:
    """The sources of an episode under random greens, [T][R]."""
    simulator = domain.global_simulator([np.random.default_rng(SEED)])
    simulator.reset()
    actions = _actions(domain, list(range(len(domain.agents))), 1)
    sources = [simulator.step(actions(t)).sources for t in range(seconds or domain.horizon)]
    simulator.close()
    return sources


def _bare(domain: City) -> Simulation:
    """The whole city as the global simulator starts it, without its files."""
    seed = int(np.random.default_rng(SEED).integers(2**31))
    return start(domain.scenario, seed, domain.config.sumo)


def _local(domain: City, k: int) -> CityLocalSimulator:
    return domain.local_simulator([k], COPIES, [np.random.default_rng(SEED)])


def _play(simulator: CityLocalSimulator, domain: City, k: int, sources: list[np.ndarray]) -> None:
    simulator.reset()
    actions = _actions(domain, list(domain.regions[k].agents), COPIES)
    for t, given in enumerate(sources):
        simulator.step(actions(t), [np.repeat(given, COPIES, 0)])
    simulator.simulation.close()


def _actions(domain: City, agents: list[int], environments: int) -> Callable[[int], np.ndarray]:
    """Random greens by second, int [N, E], the same at every call of this function."""
    rng, greens = np.random.default_rng(SEED), np.array([[domain.agents[i].actions] for i in agents])
    drawn = rng.integers(greens, size=(domain.horizon // domain.decision_every, len(agents), environments))
    return lambda second: drawn[second // domain.decision_every]


def _logging(domain: City) -> tuple[City, list[LoggedSimulation]]:
    """The same city, and the logs of the simulations that it starts."""
    logs: list[LoggedSimulation] = []

    def simulate(*arguments: Any) -> LoggedSimulation:
        logs.append(LoggedSimulation(*arguments))
        return logs[-1]

    logged = copy.copy(domain)
    logged.simulate = simulate
    return logged, logs


def _clock(domain: City) -> Callable[[], float]:
    """CPU seconds of this thread; with traci, whose SUMO is a process of its own, wall-clock."""
    return time.thread_time if domain.versions()["sumo_module"] == "libsumo" else time.perf_counter


def _timed(clock: Callable[[], float], work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start
