"""What an exported policy takes and gives, for whoever has nothing but the file."""

from __future__ import annotations

from typing import Any

from dials_mpi.core.provenance import versions
from dials_mpi.learning.policy import Policy
from dials_mpi.results.run import Run

FORMAT_VERSION = 1
"""Of the exported files; to be raised when their content changes its meaning."""


def describe_run(run: Run) -> dict[str, Any]:
    """Where the policies come from, and the networks' common settings; all of it goes into JSON."""
    config = run.config
    return {
        "format_version": FORMAT_VERSION,
        "creator": versions()["creator"],
        "domain": config.domain,
        "seed": config.seed,
        "env_steps": run.env_steps,
        "horizon": run.domain.horizon,
        "architecture": config.policy.architecture,
        "hidden": list(config.policy.hidden),
    }


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Inputs and outputs of one policy by name, in their order: shape (B is free), type, meaning."""
    network = policy.network
    actions, memory = network.sizes.outputs - 1, network.state_size
    remembers = "what the policy remembers" if memory else "empty, as the policy remembers nothing"
    return {
        "actions": actions,
        "inputs": [
            _tensor("observation", network.inputs, "the agent's observation, as its simulator gives it"),
            _tensor("state", memory, f"{remembers}: zeros at the beginning of an episode"),
        ],
        "outputs": [
            _tensor("logits", actions, "the policy draws action a with probability softmax(logits)[a]"),
            _tensor("value", None, "estimate of the discounted sum of the rewards to come"),
            _tensor("next_state", memory, "the state for the next step"),
        ],
    }


def _tensor(name: str, size: int | None, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "shape": ["B"] if size is None else ["B", size],
        "dtype": "float32",
        "meaning": meaning,
    }
