"""Compile all inner loops by calling them once, in one process per machine before the others need them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.core.first_start import compiling
from dials_mpi.core.signals import deferred
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.ppo import PPO

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Agent, Domain
    from dials_mpi.parallel.communicator import Communicator


def warm_up_together(comm: Communicator, hosts: Sequence[str], config: Config, domain: Domain) -> None:
    """One rank of each machine compiles, and the others load the code from the cache.

    hosts: the machine of each rank. Signals are handled afterwards: an exception within the compiler's
    callbacks into Python would be lost.
    """
    first = hosts.index(comm.host) == comm.rank
    if first:
        with deferred():
            warm_up(config, domain)
        compiling.end()
    comm.barrier()
    if not first:
        with deferred():
            _run_learning_functions(config, domain)


def warm_up(config: Config, domain: Domain) -> None:
    """Act, update, fit, sample and step once: the compiled code is in the cache from then on.

    Compiling takes one process some seconds; without this call every rank would compile at its start.
    """
    _run_learning_functions(config, domain)
    region = domain.regions[0]
    simulator = domain.local_simulator([0], 1, [np.random.default_rng(0)])
    with suppress(SimulatorFailure):
        simulator.reset()
        simulator.step(
            np.zeros((len(region.agents), 1), np.int64),
            [np.zeros((1, len(region.source_classes)), np.int64)],
        )


def _run_learning_functions(config: Config, domain: Domain) -> None:
    region = domain.regions[0]
    actor = domain.agents[region.agents[0]]
    envs, kind = config.envs_per_region, region.input_type
    if not config.own_learner:
        _update_policy(config, actor, np.zeros((envs, actor.observation_size), kind))
    predictor = Predictor(replace(config.influence, epochs=1), region, trainable=True)
    predictor.sample(
        np.zeros((envs, region.input_size), kind),
        predictor.network.initial_state(envs),
        np.zeros((envs, len(region.source_classes)), np.float32),
    )
    inputs = np.zeros((2, 2, region.input_size), kind)
    sources = np.zeros((2, 2, len(region.source_classes)), np.uint8)
    predictor.fit(inputs, sources, np.random.default_rng(0))


def _update_policy(config: Config, actor: Agent, observations: np.ndarray) -> None:
    """Act and update with these observations [E, O] at every step."""
    envs = len(observations)
    agent = PPO(config.policy, config.ppo, actor, envs)
    for _ in range(agent.length):
        agent.act(observations)
        agent.observe(np.zeros(envs, np.float32), np.ones(envs, bool), observations)
    agent.update(observations, 0.0)
