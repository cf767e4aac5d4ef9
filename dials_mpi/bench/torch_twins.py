"""The same training with the built-in networks' twins in PyTorch, in the same run."""

from __future__ import annotations

from dataclasses import replace

from dials_mpi.bench.subject import Subject
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.learning.network import NETWORKS


def with_twins(config: Config) -> Config:
    """The configuration with PyTorch in place of the built-in networks.

    BadInput: it has another network, which has no twin.
    """
    for name in ("policy", "influence"):
        architecture = getattr(config, name).architecture
        if architecture not in NETWORKS:
            raise BadInput(
                f"--torch compares the built-in networks with PyTorch, and {name}.architecture is "
                f"{shown(architecture)}: choose {' or '.join(NETWORKS)}, or leave --torch out"
            )
    policy, influence = config.policy, config.influence
    return replace(
        config,
        policy=replace(policy, architecture=f"torch:{policy.architecture}"),
        influence=replace(influence, architecture=f"torch:{influence.architecture}"),
    )


def prepared(config: Config, subject: Subject) -> Subject:
    """The system with the twins, its predictors fitted to the datasets of the other one."""
    twins = Subject(with_twins(config), subject.comm)
    twins.warm_up()
    twins.datasets = subject.datasets
    if twins.predicts:
        twins.fit()
    return twins
