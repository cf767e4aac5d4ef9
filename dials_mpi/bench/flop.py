"""Floating-point operations of learning, counted from the configuration.

Only matrix products count, each element as a multiplication and an addition; Tables 4 and 5 of the paper give
the sizes. Counted are the operations that Algorithm 3 and PPO need, not additional ones of a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.config.schedule import segments
from dials_mpi.domains import create
from dials_mpi.domains.base import Agent, Description, Domain, Region
from dials_mpi.domains.decisions import decision_steps, decisions_per_episode
from dials_mpi.learning.influence import starts
from dials_mpi.learning.tables import (
    TABLES,
    NetworkConfig,
    network_table,
    policy_sizes,
    predictor_sizes,
    size,
)


class Count(NamedTuple):
    """Operations of one forward step of a network.

    first: the first layer's product with the input; recurrent: with the state, 0 for an FNN; rest: the other
    layers.
    """

    first: int
    recurrent: int
    rest: int

    @property
    def forward(self) -> int:
        """Operations of one forward step."""
        return sum(self)

    def training(self, sequence: int) -> float:
        """Operations of one step forward and backward, in sequences of ``sequence`` steps.

        The gradients of the weights take as many operations as the forward products, and so do the gradients
        of the inputs, except those of the network's input and of the state before a sequence.
        """
        return 2 * self.first + (3 - 1 / sequence) * self.recurrent + 3 * self.rest


def count(architecture: str, inputs: int, hidden: tuple[int, int], outputs: int) -> Count:
    """The operations of a network of these sizes."""
    first, second = hidden
    gates, recurrent = (3, 3 * first * first) if architecture == "gru" else (1, 0)
    return Count(2 * gates * inputs * first, 2 * recurrent, 2 * (first * second + second * outputs))


def policy_count(config: Config, agent: Agent) -> Count:
    """The operations of an agent's policy, which has one output per action and one for the value."""
    return _count(config.policy, *policy_sizes(agent), agent.description)


def predictor_count(config: Config, region: Region) -> Count:
    """The operations of a region's influence predictor, without the few that autoregressive heads add."""
    return _count(config.influence, *predictor_sizes(region), region.description)


def _count(config: NetworkConfig, inputs: int, outputs: int, description: Description) -> Count:
    """Of a network of the user's own an estimate: each parameter is multiplied once in a step."""
    built_in = config.architecture.removeprefix("torch:")
    if built_in in TABLES:
        return count(built_in, inputs, config.hidden, outputs)
    return Count(0, 0, 2 * size(network_table(config, inputs, outputs, description)))


def flop_per_agent_step(config: Config) -> float:
    """Operations of one agent-step of training: policy and predictor act, the policy learns ``epochs`` times.

    An agent-step is a decision: the predictor acts at each of its simulator steps. The mean over the agents;
    those of a region share its predictor. Values are bootstrapped at the end of
    each environment's part of the rollout buffer, and if configured at the end of an episode.
    """
    domain, counts = _domain(config), []
    bootstraps = 1 / config.steps_per_env
    if config.ppo.time_limit == "bootstrap":
        bootstraps += 1 / decisions_per_episode(domain)
    for agent in domain.agents:
        policy = policy_count(config, agent)
        acting = (1 + bootstraps) * policy.forward
        counts.append(acting + config.ppo.epochs * policy.training(config.policy.sequence_length))
    predicting = 0
    if config.mode != "global":
        forward = sum(predictor_count(config, region).forward for region in domain.regions)
        predicting = decision_steps(domain) * forward
    return float(np.mean(counts)) + predicting / len(domain.agents)


def fit_flop(config: Config) -> float:
    """Operations of one refit of a predictor, the mean over regions and refits: its epochs, and the
    cross-entropy on the held-out episodes before and after them."""
    horizon, held_out = config.domain_section.horizon, config.held_out_episodes
    steps, regions = (config.dataset_episodes - held_out) * horizon, _domain(config).regions
    counts = [predictor_count(config, region) for region in regions]
    return float(
        np.mean(
            [
                epochs * steps * one.training(horizon) + 2 * held_out * horizon * one.forward
                for epochs, one in zip(mean_epochs(config, regions), counts, strict=True)
            ]
        )
    )


def mean_epochs(config: Config, regions: Sequence[Region]) -> list[float]:
    """Of each region the epochs of a refit, the mean over those of the run."""
    settings, refits = config.influence, max(1, sum(segment.refit for segment in segments(config)))
    fitted = [bool(config.predictors_from) or start != k for k, start in enumerate(starts(settings, regions))]
    later = settings.fit_epochs(True)
    return [later + (settings.fit_epochs(one) - later) / refits for one in fitted]


def _domain(config: Config) -> Domain:
    return create(config.domain, config.domain_section)
