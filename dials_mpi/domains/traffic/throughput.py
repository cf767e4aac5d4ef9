"""The speed of the traffic simulators beside SUMO alone with the same traffic; and the cost of resets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.domains.base import Rows
from dials_mpi.domains.sumo.simulation import Simulation
from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.command_log import LoggedTraffic

SWITCHING = 0.1
"""Probability per step that a measured signal is switched: about every 13 seconds."""

DRAWN = 1000
"""Steps after which actions and sources repeat."""


class TimedSimulation(Simulation):
    """A simulation that measures its steps: ``stepping``, seconds of ``clock``."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clock: Callable[[], float] = time.perf_counter
        self.stepping = 0.0

    def step(self) -> None:
        """As Simulation."""
        start = self.clock()
        super().step()
        self.stepping += self.clock() - start


def reset_often(domain: Traffic, resets: int, tiles: int = 16, steps: int = 20) -> None:
    """Fill tiles with traffic and empty them again, ``resets`` times, in one simulation."""
    stream = np.random.default_rng(resets)
    simulator = domain.local_simulator([0], tiles, [stream.spawn(1)[0]])
    simulator.reset()
    block, edges = _sizes(domain)
    for _ in range(resets):
        for _ in range(steps):
            sources = stream.random((1, tiles, edges)) < domain.config.inflow
            simulator.step(np.zeros((block, tiles), np.int64), sources)
        simulator.reset(where=np.ones(tiles, bool))
    simulator.junctions.simulation.close()


def throughput(
    domain: Traffic,
    tiles: int,
    seconds: float,
    rate: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Junction-steps per second of ``tiles`` local regions in SUMO: everything, and SUMO's stepping alone.

    Everything: episodes that end at different times, entries on every edge with probability ``rate`` per step
    (default: the configured inflow, which is the flow on every edge of the whole system while it does not
    jam), signals, observations, inputs and rewards. It takes about twice ``seconds`` of the clock.
    """
    rate = domain.config.inflow if rate is None else rate
    stream = np.random.default_rng(tiles)
    timed = Traffic(replace(domain.config, local="sumo"))
    timed.simulate = TimedSimulation
    simulator = timed.local_simulator([0], tiles, [stream.spawn(1)[0]])
    simulator.reset(elapsed=np.arange(tiles) * domain.horizon // tiles)
    simulation = simulator.junctions.simulation
    assert isinstance(simulation, TimedSimulation)
    simulation.clock = clock
    block, edges = _sizes(domain)
    # Drawn before the measurement: drawing is not the simulator's work.
    actions = stream.random((DRAWN, block, tiles)) < SWITCHING
    sources = stream.random((DRAWN, 1, tiles, edges)) < rate
    steps, start, warm = 0, clock(), False
    while True:
        done = simulator.step(actions[steps % DRAWN], sources[steps % DRAWN]).done
        if done.any():
            simulator.reset(where=done)
        steps += 1
        spent = clock() - start
        if not warm and spent > seconds and steps >= domain.horizon // 3:  # traffic has filled the tiles
            steps, start, simulation.stepping, warm = 0, clock(), 0.0, True
        elif warm and spent > seconds:
            break
    simulation.close()
    junction_steps = steps * tiles * block
    return junction_steps / spent, junction_steps / simulation.stepping


def _sizes(domain: Traffic) -> tuple[int, int]:
    """Numbers of junctions and of entry edges of a local region."""
    return len(domain.regions[0].agents), len(domain.regions[0].source_classes)


class Comparison(NamedTuple):
    """CPU seconds: of simulators; of SUMO alone, started, with the same vehicles and signals; and of these
    the seconds in ``simulationStep``."""

    played: float
    bare: float
    stepping: float


def compare(domain: Traffic, play: Callable[[Traffic], Any], repeats: int = 3) -> Comparison:
    """The cost of play(domain) beside SUMO alone: the least of ``repeats`` each, measured in turn.

    play: uses simulators of the domain that it is given, and does the same at every call. Other programs on
    the machine are not counted; with traci, whose SUMO is a process of its own, seconds are wall-clock.
    """
    clock = time.thread_time if domain.versions()["sumo_module"] == "libsumo" else time.perf_counter
    logged = LoggedTraffic(domain.config)
    play(logged)
    seconds = np.zeros((repeats, 3))
    for row in seconds:
        start = clock()
        play(domain)
        row[0] = clock() - start
        for log in logged.logs:
            simulation, *spent = log.replay(clock)
            row[1:] += spent
            simulation.close()
    return Comparison(*seconds.min(0).tolist())


def compare_global(domain: Traffic, episodes: int = 0, repeats: int = 3) -> Comparison:
    """``compare`` for whole episodes on the global simulator, with everything read and no policy.

    episodes: side by side; 0: the largest number that the domain allows at a time.
    """
    episodes = episodes or max(1, domain.side_by_side // len(domain.agents))

    def play(domain: Traffic) -> None:
        simulator = domain.global_simulator(np.random.default_rng(0).spawn(episodes))
        policy, state = switching(domain, episodes), simulator.reset()
        for _ in range(domain.horizon):
            state = simulator.step(policy(state.observations)).state
        simulator.statistics()

    return compare(domain, play, repeats)


def switching(domain: Traffic, episodes: int, seed: int = 0) -> Callable[[Rows], np.ndarray]:
    """A joint policy without cost: actions [N, E] drawn in advance, each signal switches with probability
    SWITCHING."""
    shape = domain.horizon, len(domain.agents), episodes
    actions = iter(np.random.default_rng(seed).random(shape) < SWITCHING)
    return lambda observations: next(actions)
