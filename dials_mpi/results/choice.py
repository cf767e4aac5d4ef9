"""What a command line chooses to look at: a run or a configuration, a joint policy, influence predictors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.cli import add_unchecked, word
from dials_mpi.config import Config, from_yaml, load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains import create
from dials_mpi.domains.base import GlobalSimulator
from dials_mpi.domains.members import Members
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy
from dials_mpi.results.checkpoints import require_same_run

if TYPE_CHECKING:
    from dials_mpi.storage.checkpoint import Checkpoint
    from dials_mpi.storage.runfile import RunFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``Choice`` reads."""
    parser.add_argument("arguments", nargs="*", metavar="DIR | key=value", help="a run, or settings")
    parser.add_argument("--config", metavar="FILE", help="a configuration in place of a run")
    parser.add_argument("--policy", type=word, help="trained (default for a run), random or hand-coded")
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        type=word,
        help="best, newest or its steps: a run's checkpoint in place of its end",
    )
    add_unchecked(parser)


class Choice:
    """A run (None: a configuration alone), its domain, and the name of the joint policy in ``policy``."""

    def __init__(self, options: argparse.Namespace, predictors: bool = False) -> None:
        """predictors: the run's are used even where its policies are not. BadInput: it cannot be had."""
        self.run, self.config = _source(options)
        self.domain = create(self.config.domain, self.config.domain_section)
        self.domain.versions()  # refuses where something is missing
        self._checkpoint, self._unchecked = options.checkpoint, options.unchecked
        scripted = ("random", *self.domain.hand_coded)
        name = options.policy or ("trained" if self.run else None)
        known = ("trained", *scripted) if self.run else scripted
        if name not in known:
            raise BadInput(
                (f"--policy is {printable(name)}" if name else "--policy is not given")
                + f": choose {', '.join(known)}"
                + ("" if self.run else " (trained needs the directory of a run)")
            )
        if name != "trained" and options.checkpoint is not None and not (self.run and predictors):
            raise BadInput(f"--checkpoint is given, and the policy {name} has none: leave one of them out")
        self.policy: str = name

    @classmethod
    def of_run(
        cls,
        directory: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        unchecked: bool = False,
    ) -> Choice:
        """The trained networks of a run: at its end, or of a checkpoint. BadInput: they cannot be had.

        unchecked: files that another program has changed are taken as well.
        """
        options = {"config": None, "policy": "trained", "unchecked": unchecked}
        wanted = None if checkpoint is None else str(checkpoint)
        return cls(argparse.Namespace(arguments=[os.fspath(directory)], checkpoint=wanted, **options))

    @cached_property
    def policies(self) -> list[Policy]:
        """The run's trained policies, one per agent. BadInput: there are none yet."""
        return joint.policies(self.config, self.domain, self._parameters("policy"))

    @cached_property
    def predictors(self) -> list[Predictor]:
        """The run's influence predictors, one per region; empty where it has none. BadInput: none yet."""
        if "predictor" not in self._widths:
            return []
        return joint.predictors(self.config, self.domain, self._parameters("predictor"))

    @property
    def env_steps(self) -> int:
        """Steps per agent after which the run's networks were as they are here. BadInput: there are none."""
        stored = self._stored
        return int(stored.read("training/env_steps")[-1]) if stored is self.run else stored.progress.env_steps

    def joint_policy(
        self, simulator: GlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> joint.JointPolicy:
        """The chosen joint policy for a simulator of the domain; one stream per episode."""
        if self.policy == "trained":
            return joint.TrainedPolicies(self.policies, streams)
        return joint.scripted(self.policy, self.domain, simulator, streams)

    @cached_property
    def _widths(self) -> Mapping[str, int]:
        return joint.widths(joint.tables(self.config, self.domain))

    def _parameters(self, kind: str) -> np.ndarray:
        """Stored networks, [N, P] or [R, P]. BadInput: none are there, or others than configured."""
        number = Members(self.domain.regions).numbers([kind])[kind]
        return self._stored.read(f"{kind}/parameters", (number, self._widths[kind]))

    @cached_property
    def _stored(self) -> RunFile | Checkpoint:
        """Where the networks are: in a finished run's file, else in the newest or the wanted checkpoint."""
        from dials_mpi.storage import checkpoint

        run, wanted = self.run, self._checkpoint
        where = printable(str(run.directory))
        if wanted is None and run.finished():
            return run
        if wanted == "best":
            path = checkpoint.best(run.directory, run.mean_return, unchecked=self._unchecked)
        elif wanted and wanted != "newest":
            path = run.directory / f"checkpoint-{wanted}.h5"
            path = path if path in checkpoint.present(run.directory) else None
        else:
            path = next(iter(checkpoint.present(run.directory)), None)
        if path is None:
            raise BadInput(
                f"there is no {printable(wanted or 'newest')} checkpoint in {where}: "
                + ("give best, newest or the steps of one that is there" if wanted else "wait for its first")
            )
        source = checkpoint.Checkpoint(path, unchecked=self._unchecked)
        require_same_run(source, self.config)
        return source


def is_run(word: str) -> bool:
    """Whether a word of the command line is the directory of a run."""
    return os.path.exists(f"{word}/run.h5")


def runs_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name directories, and the settings key=value; a run's name may have a = in it, too."""
    directories = [word for word in words if "=" not in word or is_run(word)]
    return directories, [word for word in words if word not in directories]


def _source(options: argparse.Namespace) -> tuple[RunFile | None, Config]:
    """The run whose directory is given, or none, and the configuration."""
    directories, overrides = runs_and_settings(options.arguments)
    if options.config or not directories:
        if directories:
            raise BadInput(f"{printable(directories[0])} is given beside --config: give one of them")
        if not options.config and not overrides:
            raise BadInput("there is nothing to play: give the directory of a run, or --config FILE")
        return None, load(options.config, overrides)
    if len(directories) > 1 or overrides:
        extra = printable([*overrides, *directories[1:]][0])
        raise BadInput(f"{extra} is one argument too many: a run has its own configuration")
    # Not at the top: training ranks import this file, and have no use for h5py.
    from dials_mpi.storage.runfile import RunFile

    run = RunFile.open(directories[0], options.unchecked)
    return run, from_yaml(run.configuration(), printable(str(run.path)))
