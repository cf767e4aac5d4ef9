"""The description in an exported file: a policy's inputs and outputs, and where it comes from."""

from __future__ import annotations

from typing import Any

from dials_mpi.config import Config
from dials_mpi.core.provenance import versions
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.learning.policy import Policy
from dials_mpi.learning.tables import TABLES
from dials_mpi.results.run import Run

FORMAT_VERSION = 1
"""Of the exported files; raise it when the meaning of their content changes."""


def describe_run(run: Run) -> dict[str, Any]:
    """The run that the policies come from, and the settings of their networks; all values fit into JSON."""
    config = run.config
    return {
        "format_version": FORMAT_VERSION,
        "creator": versions()["creator"],
        "domain": config.domain,
        "seed": config.seed,
        "env_steps": run.env_steps,
        "horizon": run.domain.horizon,
        "decision_every": decision_steps(run.domain),
        **_trained_by(config),
    }


def _trained_by(config: Config) -> dict[str, Any]:
    if config.own_learner:
        return {"learner": config.learner, "learner_arguments": config.learner_arguments}
    policy = config.policy
    built_in = policy.architecture.removeprefix("torch:") in TABLES
    hidden = {"hidden": list(policy.hidden)} if built_in else {}
    return {"architecture": policy.architecture, **hidden, "arguments": policy.arguments}


def describe_all(run: Run) -> dict[str, Any]:
    """``describe_run`` with all policies, by agent. BadInput: there are none yet."""
    if run.config.own_learner:
        sizes = [{"actions": one.actions, "observation": one.observation_size} for one in run.domain.agents]
        return {**describe_run(run), "policies": sizes}
    return {**describe_run(run), "policies": [describe_policy(policy) for policy in run.networks]}


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Inputs and outputs of one policy by name, in their order: shape (B is free), type, meaning."""
    agent, size = policy.agent, policy.network.state_size
    state = "the recurrent state" if size else "empty: the policy has no recurrent state"
    return {
        "actions": agent.actions,
        "inputs": [
            _tensor(
                "observation", agent.observation_size, "the agent's observation, as its simulator gives it"
            ),
            _tensor("state", size, f"{state}; zeros at the beginning of an episode"),
        ],
        "outputs": [
            _tensor("logits", agent.actions, "the policy draws action a with probability softmax(logits)[a]"),
            _tensor("value", None, "estimate of the discounted sum of future rewards"),
            _tensor("next_state", size, "the state for the next decision"),
        ],
    }


def _tensor(name: str, size: int | None, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "shape": ["B"] if size is None else ["B", size],
        "dtype": "float32",
        "meaning": meaning,
    }
