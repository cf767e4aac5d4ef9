"""How fast local regions step, beside SUMO's own stepping of the same tiles in the same run; and resets."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.traffic.network import SIDES

SWITCHING = 0.1
"""Probability per step that the measured lights are told to switch: about every 13 seconds."""


DRAWN = 1000
"""Steps after which the same actions and sources come again."""


def reset_often(domain: Traffic, resets: int, tiles: int = 16, steps: int = 20) -> None:
    """Fill tiles with traffic and empty them again, so many times, in one simulation."""
    stream = np.random.default_rng(resets)
    simulator = domain.local_simulator([0], tiles, [stream.spawn(1)[0]])
    simulator.reset()
    for _ in range(resets):
        for _ in range(steps):
            sources = stream.random((1, tiles, len(SIDES))) < domain.config.inflow
            simulator.step(np.zeros((1, tiles), np.int64), sources)
        simulator.reset(where=np.ones(tiles, bool))
    simulator.crossings.simulation.close()


def throughput(
    domain: Traffic, tiles: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Local-region-steps per second of ``tiles`` tiles: everything included, and SUMO's stepping alone.

    Everything: episodes that end at different times, entries at the configured inflow on every edge, lights,
    observations, inputs and rewards. It takes about twice ``seconds`` of the clock.
    """
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
    # Drawn beforehand: choosing is not the simulator's work.
    actions = stream.random((DRAWN, 1, tiles)) < SWITCHING
    sources = stream.random((DRAWN, 1, tiles, len(SIDES))) < domain.config.inflow
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
    return steps * tiles / spent, steps * tiles / bare
