"""A run read back, or a configuration alone: its domain, its trained networks and its joint policies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.config import Config, from_yaml, load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains import create
from dials_mpi.domains.base import GlobalSimulator
from dials_mpi.domains.members import Members
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.stored import stored
from dials_mpi.learning.tables import layers, tables, widths
from dials_mpi.results.checkpoints import require_same_run
from dials_mpi.storage import checkpoint as checkpoints
from dials_mpi.storage.checkpoint import Checkpoint, Rows
from dials_mpi.storage.runfile import RunFile

if TYPE_CHECKING:
    from dials_mpi.learning.policy import Policy

TRAINED, RANDOM = "trained", "random"
"""The joint policy of a run's trained policies, and the one that draws all actions uniformly."""


class Run:
    """A configuration with its domain; with a run file, also the networks that the run has trained.

    file: the run file; None for a configuration alone, which has no trained networks.
    """

    def __init__(
        self,
        config: Config,
        file: RunFile | None = None,
        checkpoint: str | int | None = None,
        unchecked: bool = False,
    ) -> None:
        """checkpoint: the one whose networks are used: best, newest or its steps per agent; None: the
        networks at the run's end, or of its newest checkpoint while it is unfinished. unchecked: also read a
        checkpoint that another program has changed.

        BadInput: something that the domain's simulator needs is missing on this machine.
        """
        self.config, self.file = config, file
        self.domain = create(config.domain, config.domain_section)
        self.domain.versions()  # raises BadInput where something is missing
        self._checkpoint = None if checkpoint is None else str(checkpoint)
        self._unchecked = unchecked

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        unchecked: bool = False,
    ) -> Run:
        """The run in a directory, or one that comes with the package, such as ``trained/warehouse``;
        checkpoint: as of the constructor.

        unchecked: also read files that another program has changed. BadInput: there is no run that can be
        read, or as of the constructor.
        """
        file = RunFile.open(directory, unchecked)
        config = from_yaml(file.configuration(), printable(str(file.path)))
        return cls(config, file, checkpoint, unchecked)

    @classmethod
    def of_config(cls, file: str | None = None, overrides: Sequence[str] = ()) -> Run:
        """A configuration alone: a YAML file (None: the defaults) and overrides ``key=value``.

        BadInput: it is not valid, or as of the constructor.
        """
        return cls(load(file, overrides))

    @property
    def joint_policies(self) -> tuple[str, ...]:
        """The names that ``joint_policy`` takes."""
        trained = (TRAINED,) if self.file else ()
        # A domain may list random among its hand-coded ones.
        return tuple(dict.fromkeys((*trained, RANDOM, *self.domain.hand_coded)))

    @cached_property
    def policies(self) -> Sequence[joint.Actor]:
        """The trained policies, one per agent. BadInput: there are none yet."""
        return joint.policies(self.config, self.domain, self.parameters("policy"))

    @property
    def networks(self) -> list[Policy]:
        """The trained policies, of the built-in PPO. BadInput: there are none yet, or of another learner."""
        if self.config.own_learner:
            raise BadInput(
                f"the policies are those of learner={printable(self.config.learner)}, which are no networks "
                "of this package: export their parameters with --all"
            )
        return list(self.policies)  # type: ignore[arg-type]

    @property
    def layers(self) -> list[dict[str, np.ndarray]]:
        """The parameters of each agent's policy, float32 by name. BadInput: there are none yet."""
        every = tables(self.config, self.domain)["policy"]
        rows = self.parameters("policy")
        return [layers(table, row) for table, row in zip(every, rows, strict=True)]

    @cached_property
    def predictors(self) -> list[Predictor]:
        """The influence predictors, one per region; none in mode global. BadInput: there are none yet."""
        if self.config.mode == "global":
            return []
        return joint.predictors(self.config, self.domain, self.parameters("predictor"))

    @property
    def env_steps(self) -> int:
        """Steps per agent for which the networks were trained. BadInput: there are none yet."""
        stored = self._stored
        if isinstance(stored, Checkpoint):
            return stored.progress.env_steps
        return int(stored.read("training/env_steps")[-1])

    def joint_policy(
        self, name: str, simulator: GlobalSimulator, rngs: Sequence[np.random.Generator]
    ) -> joint.JointPolicy:
        """One of ``joint_policies`` on a global simulator of the domain; rngs: one per episode.

        BadInput: its networks cannot be read.
        """
        if name == TRAINED:
            return joint.TrainedPolicies(self.policies, rngs)
        return joint.scripted(name, self.domain, simulator, rngs)

    def parameters(self, kind: str) -> np.ndarray:
        """The parameters of the "policy" of each agent, float32 [N, P], or the "predictor" of each region,
        [R, P]; in mode global there is no predictor. BadInput: there are none, or of another shape."""
        number = Members(self.domain.regions).numbers([kind])[kind]
        width = widths(tables(self.config, self.domain))[kind]
        return self._stored.read(f"{kind}/parameters", (number, width))

    @cached_property
    def _stored(self) -> RunFile | Checkpoint:
        """The file that holds the networks: the run file, or a checkpoint of this run."""
        if self.file is None:
            raise BadInput("a configuration has no trained networks: give the directory of a run")
        if self._checkpoint is None and self.file.finished():
            return self.file
        checkpoint = Checkpoint(self._checkpoint_path(self.file), unchecked=self._unchecked)
        require_same_run(checkpoint, self.config)
        checkpoint.verify(self._networks())
        return checkpoint

    def _networks(self) -> list[Rows]:
        """What a checkpoint of the run holds of its networks and optimisers."""
        kept = list(stored(self.config, self.domain))
        numbers = Members(self.domain.regions).numbers({one.kind for one in kept})
        return [Rows(one.name, numbers[one.kind], one.width, one.dtype) for one in kept]

    def _checkpoint_path(self, file: RunFile) -> Path:
        """BadInput: there is no such checkpoint."""
        if file.archived():
            raise BadInput(
                f"{printable(str(file.path))} is an archived copy, which has no checkpoints: "
                + ("leave out --checkpoint" if file.finished() else "give the run itself")
            )
        wanted, present = self._checkpoint or "newest", checkpoints.present(file.directory)
        path: Path | None
        if wanted == "best":
            path = checkpoints.best(file.directory, file.mean_return, unchecked=self._unchecked)
        elif wanted == "newest":
            path = next(iter(present), None)
        else:
            path = next((one for one in present if one.name == f"checkpoint-{wanted}.h5"), None)
        if path is None:
            raise BadInput(
                f"there is no {printable(wanted)} checkpoint in {printable(str(file.directory))}: "
                + (
                    "wait for its first"
                    if self._checkpoint is None
                    else "give best, newest or the steps of one that is there"
                )
            )
        return path
