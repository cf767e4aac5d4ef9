"""The time of a step in both simulators, and whether local ones are faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from dials_mpi.algorithm.collect import parts
from dials_mpi.check.findings import Finding, good, note
from dials_mpi.check.play import agents_of, groups, random_actions, random_sources
from dials_mpi.config import Config
from dials_mpi.core.seeding import Purpose, stream, streams
from dials_mpi.domains.base import Domain, GlobalSimulator, LocalSimulator
from dials_mpi.learning.influence import Predictor

SECONDS = 1.0
"""CPU time of one measurement."""


def check_speed(config: Config, domain: Domain) -> Iterator[Finding]:
    """Microseconds of CPU time per step of one agent; and how many times faster training can be."""
    agents, regions = len(domain.agents), len(domain.regions)
    whole = _global(config, domain) / agents
    alone = _local(config, domain, [0]) / len(domain.regions[0].agents)
    beside = groups(domain, range(regions), config.envs_per_region)[0]  # as a rank trains them
    together = _local(config, domain, beside) / len(agents_of(domain, beside))
    predictor = _predictor(config, domain) / len(domain.regions[0].agents)
    yield note("a step of the global simulator", f"{1e6 * whole:.3g} us for each of {agents} agents")
    yield note(
        "a step of a local simulator",
        f"{1e6 * alone:.3g} us an agent, one region alone; {1e6 * together:.3g} us with others beside it",
    )
    yield note("a sample from its predictor", f"{1e6 * predictor:.3g} us an agent")
    one_core = whole / (together + predictor)
    cores = agents * whole / (alone + predictor) / len(domain.regions[0].agents)
    said = (
        f"with one core per region the simulators of {regions} regions take a step {cores:.3g} times as fast "
        f"as the global simulator on its one core; on a single core {one_core:.3g} times"
    )
    yield (good if cores > 1 else note)(
        "local simulators are faster" if cores > 1 else "local simulators are not faster", said
    )


def _global(config: Config, domain: Domain) -> float:
    episodes = len(range(config.envs_per_region)[parts(domain, config.envs_per_region)[0]])
    simulator = domain.global_simulator(streams(0, Purpose.EVALUATION, episodes))
    actions = random_actions(domain, range(len(domain.agents)), 0, episodes)
    return _seconds(simulator, lambda: simulator.step(next(actions)), domain.horizon) / episodes


def _local(config: Config, domain: Domain, regions: list[int]) -> float:
    envs = config.envs_per_region
    simulator = domain.local_simulator(regions, envs, streams(0, Purpose.SIMULATOR, len(regions)))
    actions = random_actions(domain, agents_of(domain, regions), 0, envs)
    sources = random_sources(domain, regions, 0, envs)
    return _seconds(simulator, lambda: simulator.step(next(actions), next(sources)), domain.horizon) / envs


def _predictor(config: Config, domain: Domain) -> float:
    envs, region = config.envs_per_region, domain.regions[0]
    predictor = Predictor(config.influence, region)
    predictor.network.initialise(stream(0, Purpose.PREDICTOR_INITIALISATION))
    inputs = np.zeros((envs, region.input_size), region.input_type)
    uniforms = np.full((envs, len(region.source_classes)), 0.5, np.float32)
    state = predictor.network.initial_state(envs)
    predictor.sample(inputs, state, uniforms)  # compiles it
    return _repeat(lambda: predictor.sample(inputs, state, uniforms)) / envs


def _seconds(simulator: GlobalSimulator | LocalSimulator, step: Callable[[], object], horizon: int) -> float:
    """CPU seconds of a step, with the resets between episodes."""
    count = 0

    def forward() -> None:
        nonlocal count
        if count % horizon == 0:
            simulator.reset()
        step()
        count += 1

    forward()
    return _repeat(forward)


def _repeat(work: Callable[[], object]) -> float:
    begun, count = time.process_time(), 0
    while time.process_time() - begun < SECONDS:
        work()
        count += 1
    return (time.process_time() - begun) / count
