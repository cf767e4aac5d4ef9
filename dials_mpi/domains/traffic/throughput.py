"""How fast traffic's simulators are beside SUMO alone with the same traffic, in the same run; and resets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.tape import Recorder

SWITCHING = 0.1
"""Probability per step that the measured lights are told to switch: about every 13 seconds."""


DRAWN = 1000
"""Steps after which the same actions and sources come again."""


def reset_often(domain: Traffic, resets: int, tiles: int = 16, steps: int = 20) -> None:
    """Fill tiles with traffic and empty them again, so many times, in one simulation."""
    stream = np.random.default_rng(resets)
    simulator = domain.local_simulator([0], tiles, [stream.spawn(1)[0]])
    simulator.reset()
    block, ways = _sizes(domain)
    for _ in range(resets):
        for _ in range(steps):
            sources = stream.random((1, tiles, ways)) < domain.config.inflow
            simulator.step(np.zeros((block, tiles), np.int64), sources)
        simulator.reset(where=np.ones(tiles, bool))
    simulator.crossings.simulation.close()


def throughput(
    domain: Traffic,
    tiles: int,
    seconds: float,
    rate: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Crossing-steps per second of ``tiles`` local regions: everything included, and SUMO's stepping alone.

    Everything: episodes that end at different times, entries on every edge with probability ``rate`` per step
    (default: the configured inflow, which is what comes onto every edge in the whole system while it keeps
    flowing), lights, observations, inputs and rewards. It takes about twice ``seconds`` of the clock.
    """
    rate = domain.config.inflow if rate is None else rate
    stream = np.random.default_rng(tiles)
    simulator = domain.local_simulator([0], tiles, [stream.spawn(1)[0]])
    simulator.reset(elapsed=np.arange(tiles) * domain.horizon // tiles)
    stepping = simulator.crossings.simulation.step
    bare = 0.0

    def timed() -> None:
        nonlocal bare
        start = clock()
        stepping()
        bare += clock() - start

    simulator.crossings.simulation.step = timed
    block, ways = _sizes(domain)
    # Drawn beforehand: choosing is not the simulator's work.
    actions = stream.random((DRAWN, block, tiles)) < SWITCHING
    sources = stream.random((DRAWN, 1, tiles, ways)) < rate
    steps, start, warm = 0, clock(), False
    while True:
        done = simulator.step(actions[steps % DRAWN], sources[steps % DRAWN]).done
        if done.any():
            simulator.reset(where=done)
        steps += 1
        spent = clock() - start
        if not warm and spent > seconds and steps >= domain.horizon // 3:  # traffic has filled the tiles
            steps, start, bare, warm = 0, clock(), 0.0, True
        elif warm and spent > seconds:
            break
    simulator.crossings.simulation.close()
    done = steps * tiles * block
    return done / spent, done / bare


def _sizes(domain: Traffic) -> tuple[int, int]:
    """Crossings of a local region, and ways into it."""
    return len(domain.regions[0].agents), len(domain.regions[0].source_classes)


class Beside(NamedTuple):
    """CPU seconds of something played on simulators; of SUMO alone, started, driving the same vehicles under
    the same lights; and of these the ones in ``simulationStep``."""

    played: float
    bare: float
    stepping: float


def beside_bare(domain: Traffic, play: Callable[[Traffic], Any], repeats: int = 3) -> Beside:
    """What play(domain) costs beside SUMO alone: each the least of ``repeats``, taken in turn.

    play: whatever uses simulators of the domain it is given, and does the same at every call. Other programs
    on the machine do not count; with traci, whose SUMO is a process of its own, seconds are on the wall.
    """
    clock = time.thread_time if domain.versions()["sumo_module"] == "libsumo" else time.perf_counter
    recorder = Recorder(domain.config)
    play(recorder)
    seconds = np.zeros((repeats, 3))
    for row in seconds:
        start = clock()
        play(domain)
        row[0] = clock() - start
        for tape in recorder.tapes:
            simulation, *spent = tape.replay(clock)
            row[1:] += spent
            simulation.close()
    return Beside(*seconds.min(0).tolist())


def bare_global(domain: Traffic, episodes: int = 0, repeats: int = 3) -> Beside:
    """``beside_bare`` of whole episodes on the global simulator, with everything read and no policy.

    episodes: side by side; 0 is as many as the domain says it should hold at a time.
    """
    episodes = episodes or max(1, domain.side_by_side // len(domain.agents))

    def play(domain: Traffic) -> None:
        simulator = domain.global_simulator(np.random.default_rng(0).spawn(episodes))
        policy, state = switching(domain, episodes), simulator.reset()
        for _ in range(domain.horizon):
            state = simulator.step(policy(state.observations)).state
        simulator.statistics()

    return beside_bare(domain, play, repeats)


def switching(domain: Traffic, episodes: int, seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """A joint policy that costs nothing: actions [N, E] drawn beforehand, each light told to switch with
    probability SWITCHING."""
    shape = domain.horizon, len(domain.agents), episodes
    actions = iter(np.random.default_rng(seed).random(shape) < SWITCHING)
    return lambda observations: next(actions)
