"""A run read back, or a configuration alone: its series, trained networks, joint policies and kept data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.config import Config, from_yaml, load, load_changed
from dials_mpi.config.comparison import changed_for_looking
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, streams
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain, GlobalSimulator
from dials_mpi.domains.members import Members
from dials_mpi.learning.influence import Fit, Predictor, fit_anew, starts
from dials_mpi.learning.stored import stored
from dials_mpi.learning.tables import layers, tables, widths
from dials_mpi.results import series
from dials_mpi.results.agents import KeptDatasets, TrainedAgent
from dials_mpi.results.checkpoints import require_same_run
from dials_mpi.results.guard import guarded
from dials_mpi.storage import checkpoint as checkpoints
from dials_mpi.storage.checkpoint import Checkpoint, Rows
from dials_mpi.storage.runfile import RunFile

if TYPE_CHECKING:
    import pandas
    import xarray

    from dials_mpi.learning.policy import Policy

TRAINED, RANDOM = "trained", "random"
"""The joint policy of a run's trained policies, and the one that draws all actions uniformly."""


class Saved(NamedTuple):
    """A checkpoint: its steps per agent, and the mean return of the evaluation then; NaN without one."""

    env_steps: int
    mean_return: float
    path: Path


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

        """
        self.config, self.file = config, file
        self._checkpoint = None if checkpoint is None else str(checkpoint)
        self._unchecked = unchecked

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        unchecked: bool = False,
        settings: Sequence[str] = (),
    ) -> Run:
        """The run in a directory, or one that comes with the package, such as ``trained/warehouse``;
        checkpoint: as of the constructor.

        unchecked: also read files that another program has changed. settings: in place of the run's, only
        such as do not affect results, for example "traffic.gui=true". BadInput: there is no run that can be
        read, or a setting is refused.
        """
        file = RunFile.open(directory, unchecked)
        config = from_yaml(file.configuration(), printable(str(file.path)))
        return cls(changed_for_looking(config, settings) if settings else config, file, checkpoint, unchecked)

    @classmethod
    def of_config(cls, file: str | None = None, overrides: Sequence[str] = ()) -> Run:
        """A configuration alone: a YAML file (None: the defaults) and overrides ``key=value``.

        BadInput: it is not valid.
        """
        return cls(load(file, overrides))

    def __repr__(self) -> str:
        if self.file is None:
            return f"<configuration of {self.config.domain_key}>"
        steps = f"{self.file.trained():,} of {self.config.total_steps:,} steps"
        end = "finished" if self.finished else "not finished"
        return f"<run {self.file.directory}: {self.config.mode}, seed {self.config.seed}, {steps}, {end}>"

    @cached_property
    def domain(self) -> Domain:
        """The domain. BadInput: something that its simulator needs is missing on this machine."""
        domain = create(self.config.domain, self.config.domain_section)
        domain.versions()
        return domain

    # What the run has recorded (docs/python.md). Each is read from the file at its first use.

    @property
    def finished(self) -> bool:
        """Whether the run is finished, at this moment."""
        return self.recorded.finished()

    @cached_property
    def evaluations(self) -> xarray.Dataset:
        """``returns`` [env_steps, episode, agent], ``cross_entropy`` [env_steps, region] in nats per source,
        and the domain's statistics [env_steps, episode]; the coordinate ``wall_time`` in seconds.

        BadInput: there are none yet; this and the following: or xarray is not installed.
        """
        return series.series(self.recorded, "evaluation", "evaluation_statistics")

    @cached_property
    def training(self) -> xarray.Dataset:
        """What the learners report of each segment, [env_steps, agent]. BadInput: there is none yet."""
        return series.series(self.recorded, "training")

    @cached_property
    def influence(self) -> xarray.Dataset:
        """Cross-entropies of each refit, [env_steps, region], in nats per source. BadInput: there is none."""
        return series.series(self.recorded, "influence")

    @cached_property
    def timing(self) -> xarray.Dataset:
        """Seconds of each phase before each evaluation, [env_steps, rank, clock], and the failures of
        simulators, [env_steps, rank]. BadInput: there are none yet."""
        return series.series(self.recorded, "timing", "events")

    @cached_property
    def references(self) -> xarray.Dataset:
        """``returns`` [policy, episode, agent] of policies that need no training, and the domain's statistics
        [policy, episode]. BadInput: the run is not finished."""
        return series.references(self.recorded)

    @cached_property
    def map(self) -> xarray.Dataset:
        """``name``, ``x`` and ``y`` [agent]: names and positions. BadInput: the domain gives none, or the run
        is older than this part of the file."""
        return series.series(self.recorded, "map")

    def to_pandas(self) -> pandas.DataFrame:
        """The evaluations in long form: one row for each evaluation, episode and agent."""
        return series.long_form(self.evaluations)

    def checkpoints(self) -> list[Saved]:
        """The checkpoints of the run, oldest first."""
        found = reversed(checkpoints.present(self.recorded.directory))
        steps = [(int(path.stem.rpartition("-")[2]), path) for path in found]
        return [Saved(env_steps, self.recorded.mean_return(env_steps), path) for env_steps, path in steps]

    @cached_property
    def datasets(self) -> KeptDatasets:
        """The datasets that the run has kept (``datasets: last`` or ``all``), by steps per agent."""
        return KeptDatasets(self.recorded.directory)

    def refit(
        self, region: int, settings: Sequence[str] = (), env_steps: int | None = None
    ) -> tuple[Predictor, Fit]:
        """A new predictor of a region, fitted to kept data, and its cross-entropies in nats per source.

        settings: what differs from the run's, such as "influence.architecture=fnn". env_steps: which of
        ``datasets``, by default the newest. BadInput: an invalid setting, or no such region or data.
        """
        config = load_changed(self.config, settings)
        if env_steps is None:
            env_steps = max(self.datasets, default=0)
        kept, regions = self.datasets[env_steps], self.domain.regions
        own = kept.arrays(region)  # BadInput, if there is none

        def fitted(k: int, start: np.ndarray | None = None) -> tuple[Predictor, Fit]:
            data = own if k == region else kept.arrays(k)
            pair = data.inputs, data.sources
            return fit_anew(config.influence, regions[k], k, pair, self.config.seed, start=start)

        first = starts(config.influence, regions)[region]
        return fitted(region) if first == region else fitted(region, fitted(first)[0].vector)

    @cached_property
    def policies(self) -> list[TrainedAgent]:
        """The trained policies to act with, one per agent. BadInput: there are none yet."""
        agents, seed = zip(self.actors, self.domain.agents, strict=True), self.config.seed
        return [TrainedAgent(actor, agent, (seed, k)) for k, (actor, agent) in enumerate(agents)]

    def simulator(self, episodes: int = 1, number: int = 0) -> GlobalSimulator:
        """A global simulator of the run's system, with so many episodes side by side.

        number: which episodes; equal numbers give the same ones. They differ from those of the evaluations.
        BadInput: something that the simulator needs is missing on this machine; or, from ``step``, see
        ``guarded``.
        """
        keys = range(number * episodes, (number + 1) * episodes)
        own = streams(self.config.episodes_seed, Purpose.EVALUATION, keys, OTHER_EPISODES)
        return guarded(self.domain.global_simulator(own), self.domain, episodes)

    # What programs need to play.

    @property
    def recorded(self) -> RunFile:
        """The run file. BadInput: this is a configuration alone."""
        if self.file is None:
            raise BadInput("a configuration has no results: give the directory of a run")
        return self.file

    @property
    def joint_policies(self) -> tuple[str, ...]:
        """The names that ``joint_policy`` takes."""
        trained = (TRAINED,) if self.file else ()
        # A domain may list random among its hand-coded ones.
        return tuple(dict.fromkeys((*trained, RANDOM, *self.domain.hand_coded)))

    @cached_property
    def actors(self) -> Sequence[joint.Actor]:
        """The trained policies as joint policies use them, one per agent. BadInput: there are none yet."""
        return joint.policies(self.config, self.domain, self.parameters("policy"))

    @property
    def networks(self) -> list[Policy]:
        """The trained policies, of the built-in PPO. BadInput: there are none yet, or of another learner."""
        if self.config.own_learner:
            raise BadInput(
                f"the policies are those of learner={printable(self.config.learner)}, which are no networks "
                "of this package: export their parameters with --all"
            )
        return list(self.actors)  # type: ignore[arg-type]

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
            return joint.TrainedPolicies(self.actors, rngs)
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
                + (f"leave out {option('checkpoint')}" if file.finished() else "give the run itself")
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
