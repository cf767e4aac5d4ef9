"""Networks of the user's own are tried before a run begins: what only the built module shows."""

from __future__ import annotations

from dials_mpi.config import Config
from dials_mpi.config.validation import require_whole_sequences
from dials_mpi.domains.base import Domain
from dials_mpi.learning.tables import TABLES, network_state, policy_sizes, shared_by, tables


def require_networks(config: Config, domain: Domain) -> None:
    """BadInput: a network cannot be built, breaks the contract, or has a state and no whole sequences, or
    agents that are to share one need different ones."""
    policy, found = config.policy, tables(config, domain)
    shared_by(policy, domain.agents, found["policy"])
    if policy.architecture in TABLES or config.own_learner:  # the configuration alone shows it
        return
    kinds = {(*policy_sizes(agent), agent.description) for agent in domain.agents}
    if any(network_state(policy, *kind) for kind in kinds):
        require_whole_sequences(config)
