"""Names and shapes of the networks' parameters, computed from the configuration and the domain alone.

This module loads no compiled code and builds no built-in network: a checkpoint can be checked without numba.
The parameters of a network in PyTorch are known once its module is built. A learner of the user's own says
itself what its parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.learning import learner

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.config import Influence as InfluenceConfig
    from dials_mpi.config import Policy as PolicyConfig
    from dials_mpi.domains.base import Agent, Description, Domain, Region

Table = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of a network's parameters, in the order of its parameter vector [P]."""


def state_widths(parameters: int) -> dict[str, int]:
    """What a network and its optimiser keep between segments: names and lengths, for P parameters."""
    vectors = dict.fromkeys(("parameters", "first_moment", "second_moment"), parameters)
    return {**vectors, "adam_steps": 1}


class NetworkConfig(Protocol):
    """The settings of one network: the section ``policy`` or ``influence`` of the configuration."""

    def __hash__(self) -> int: ...

    @property
    def key(self) -> str:
        """The name of the section, for messages."""
        ...

    @property
    def architecture(self) -> str:
        """A key of TABLES and of ``network.NETWORKS``, or a network in PyTorch."""
        ...

    @property
    def hidden(self) -> tuple[int, int]:
        """Units of the first and the second layer."""
        ...

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of the constructor of a network in PyTorch, by name."""
        ...


def gru_table(config: NetworkConfig, inputs: int, outputs: int) -> Table:
    """Of a GRU, a linear layer and a linear output layer."""
    first, _ = config.hidden
    return (
        ("gru.weight_ih", (3 * first, inputs)),
        ("gru.weight_hh", (3 * first, first)),
        ("gru.bias_ih", (3 * first,)),
        ("gru.bias_hh", (3 * first,)),
        *_last_layers(config, outputs),
    )


def fnn_table(config: NetworkConfig, inputs: int, outputs: int) -> Table:
    """Of three linear layers."""
    first, _ = config.hidden
    return (
        ("first.weight", (first, inputs)),
        ("first.bias", (first,)),
        *_last_layers(config, outputs),
    )


def _last_layers(config: NetworkConfig, outputs: int) -> Table:
    first, second = config.hidden
    return (
        ("second.weight", (second, first)),
        ("second.bias", (second,)),
        ("head.weight", (outputs, second)),
        ("head.bias", (outputs,)),
    )


TABLES: dict[str, Callable[[NetworkConfig, int, int], Table]] = {"gru": gru_table, "fnn": fnn_table}
"""The table of each built-in architecture, from its settings and its numbers of inputs and outputs."""


def network_table(config: NetworkConfig, inputs: int, outputs: int, description: Description = ()) -> Table:
    """The table of the configured network; description: of the inputs, which only a network in PyTorch sees.

    BadInput: the network in PyTorch cannot be built or does not fulfil the contract.
    """
    if config.architecture in TABLES:
        return TABLES[config.architecture](config, inputs, outputs)
    from dials_mpi.learning import torch_modules  # loads torch

    return torch_modules.contents(config, inputs, outputs, description).table


def network_state(config: NetworkConfig, inputs: int, outputs: int, description: Description = ()) -> int:
    """H, the length of the configured network's state; 0: it has none. BadInput: as of ``network_table``."""
    if config.architecture in TABLES:
        return config.hidden[0] if config.architecture == "gru" else 0
    from dials_mpi.learning import torch_modules  # loads torch

    return torch_modules.contents(config, inputs, outputs, description).memory.size


def policy_sizes(agent: Agent) -> tuple[int, int]:
    """Inputs and outputs of an agent's policy network: one output per action, and the value."""
    return agent.observation_size, agent.actions + 1


def source_outputs(classes: Sequence[int]) -> list[int]:
    """How many outputs of a predictor belong to each source: one for two classes, else one per class."""
    return [1 if count == 2 else count for count in classes]


def predictor_sizes(region: Region) -> tuple[int, int]:
    """Inputs and outputs of a region's predictor network."""
    return region.input_size, sum(source_outputs(region.source_classes))


def couplings_table(config: InfluenceConfig, classes: Sequence[int]) -> Table:
    """What autoregressive heads add to a predictor's table; nothing for independent ones.

    For each source, for each of its classes but the first: what this class adds to the outputs of the sources
    after it.
    """
    if config.heads == "independent":
        return ()
    outputs = source_outputs(classes)
    length = sum((count - 1) * sum(outputs[m + 1 :]) for m, count in enumerate(classes))
    return (("heads.couplings", (length,)),)


def policy_table(config: PolicyConfig, agent: Agent) -> Table:
    """The table of an agent's policy network."""
    return network_table(config, *policy_sizes(agent), agent.description)


def predictor_table(config: InfluenceConfig, region: Region) -> Table:
    """The table of a region's predictor: its network's, and the couplings of its heads."""
    own = network_table(config, *predictor_sizes(region), region.description)
    return own + couplings_table(config, region.source_classes)


def tables(config: Config, domain: Domain) -> dict[str, list[Table]]:
    """By kind of network: "policy", one table per agent; "predictor", one per region.

    In mode ``global`` there are no predictors, and the kind is absent. BadInput: as of ``network_table`` and
    ``learner.create``.
    """
    of_sizes, joined = cache(network_table), cache(tuple.__add__)  # equal tables are one object

    def table(config: NetworkConfig, sizes: tuple[int, int], description: Description) -> Table:
        return of_sizes(config, *sizes, () if config.architecture in TABLES else description)

    if config.own_learner:
        found = {"policy": [learner.sizes(config, agent).table for agent in domain.agents]}
    else:
        policy = config.policy
        found = {"policy": [table(policy, policy_sizes(agent), agent.description) for agent in domain.agents]}
    if config.mode != "global":
        found["predictor"] = [
            joined(
                table(config.influence, predictor_sizes(region), region.description),
                couplings_table(config.influence, region.source_classes),
            )
            for region in domain.regions
        ]
    return found


def shared_by(config: PolicyConfig, agents: Sequence[Agent], tables: Sequence[Table]) -> list[int]:
    """Who shares a policy: for each agent the lowest number of the agents that have the same one.

    tables: of the agents' policies. BadInput: all agents are to share one, and their tables differ.
    """
    if config.share == "none":
        return list(range(len(tables)))
    first: dict[Table, int] = {}
    found = [first.setdefault(table, i) for i, table in enumerate(tables)]
    if config.share == "all" and len(first) > 1:
        one, other = list(first.values())[:2]
        raise BadInput(
            f"policy.share is all, and agent {one} needs a policy of {_sizes(agents[one], tables[one])}, "
            f"agent {other} one of {_sizes(agents[other], tables[other])}: set policy.share=kind, or "
            "policy.architecture to a network with the same parameters for both (docs/networks.md)"
        )
    return found


def _sizes(agent: Agent, table: Table) -> str:
    inputs, outputs = policy_sizes(agent)
    return f"{inputs} inputs, {outputs} outputs and {size(table)} parameters"


def size(table: Table) -> int:
    """P, the number of parameters."""
    return sum(prod(shape) for _, shape in table)


def widths(tables: Mapping[str, Sequence[Table]]) -> dict[str, int]:
    """By kind of network, the length of the rows that hold parameters: P of the largest network."""
    return {kind: max(map(size, set(own))) for kind, own in tables.items()}


def layers(table: Table, vector: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters by name, as views of a vector [P] in the table's shapes."""
    found, start = {}, 0
    for name, shape in table:
        end = start + prod(shape)
        found[name] = vector[start:end].reshape(shape)
        start = end
    return found


def initialise(table: Table, vector: np.ndarray, stream: np.random.Generator) -> None:
    """Torch's default initialisation of a built-in network: uniform in +-1/sqrt(fan-in), of a GRU in
    +-1/sqrt(H)."""
    widths = {name.split(".")[0]: shape[1] for name, shape in table if len(shape) == 2}  # of a GRU: weight_hh
    for name, view in layers(table, vector).items():
        bound = 1 / sqrt(widths[name.split(".")[0]])
        view[:] = stream.uniform(-bound, bound, view.shape)
