"""A trained agent to act with, and the data that a run has kept, for users of the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.algorithm.joint import Actor, GreedyActor
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Agent
from dials_mpi.results.series import library
from dials_mpi.storage import datasets as storage
from dials_mpi.storage.datasets import DatasetFile, RegionData

if TYPE_CHECKING:
    import xarray


class TrainedAgent:
    """One agent's trained policy.

    observations: the length of an observation; actions: their number. actor: the policy, whose random numbers
    come from the caller (``algorithm/joint.py``).
    """

    def __init__(self, actor: Actor, agent: Agent, seed: tuple[int, int]) -> None:
        """seed: of the random numbers of ``act``."""
        self.actor = actor
        self.observations, self.actions = agent.observation_size, agent.actions
        self._rng = np.random.default_rng(seed)

    def act(
        self,
        observations: np.ndarray,
        state: Any = None,
        greedy: bool = False,
        rng: np.random.Generator | None = None,
    ) -> tuple[Any, Any]:
        """Actions and the next state for observations [B, O] or, of a single environment, [O].

        Actions are int [B], or an int. state: what the call before returned; None at the beginning of an
        episode. greedy: take the most probable action in place of drawing one. rng: draws; by default the
        agent's own, which gives the same actions each time that the run is opened.

        BadInput: the observations have another length, or the learner does not know its most probable action.
        """
        rows = np.atleast_2d(np.ascontiguousarray(observations, np.float32))
        if rows.ndim != 2 or rows.shape[1] != self.observations:
            raise BadInput(
                f"observations have the shape {list(np.shape(observations))}: give [{self.observations}], or "
                f"[B, {self.observations}] for B environments"
            )
        if state is None:
            state = self.actor.initial_state(len(rows))
        if not greedy:
            uniforms = (rng or self._rng).random(len(rows), dtype=np.float32)
            decision = self.actor.act(rows, state, uniforms)
            actions, state = decision.actions, decision.state
        elif isinstance(self.actor, GreedyActor):
            actions, state = self.actor.most_probable(rows, state)
        else:
            raise BadInput("the learner of this run has no method most_probable: act without greedy")
        return (actions if np.ndim(observations) > 1 else int(actions[0])), state


class KeptDataset:
    """The data that a run has kept of one refit (docs/datasets.md). file: reads the arrays."""

    def __init__(self, path: Path) -> None:
        """BadInput: it is damaged, or not a dataset file."""
        self.file = DatasetFile(path)

    @property
    def regions(self) -> int:
        """The number of regions."""
        return self.file.regions

    def arrays(self, k: int) -> RegionData:
        """The episodes of region k as numpy arrays. BadInput: there is no such region."""
        if not 0 <= k < self.regions:
            raise BadInput(f"there is no region {k}: give a number from 0 to {self.regions - 1}")
        return self.file.region(k)

    def region(self, k: int) -> xarray.Dataset:
        """The episodes of region k: inputs [episode, step, input] of its predictor, sources [episode, step,
        source], actions and rewards [episode, step, agent]. BadInput: there is no such region, no xarray."""
        found, names = self.arrays(k), self.file.names(k)
        axes = {"inputs": "input", "sources": "source", "actions": "agent", "rewards": "agent"}
        arrays = found._asdict()
        return library().Dataset(
            {name: (("episode", "step", axes[name]), array) for name, array in arrays.items()},
            {
                "agent": list(names.agents),
                "classes": ("source", list(names.classes)),
                **({"source": list(names.source_names)} if names.source_names else {}),
            },
        )


class KeptDatasets(Mapping[int, KeptDataset]):
    """The datasets of a run, by the steps per agent of their refit."""

    def __init__(self, directory: Path) -> None:
        self._paths = {int(path.stem): path for path in reversed(storage.present(directory))}
        self._directory = directory

    def __getitem__(self, env_steps: int) -> KeptDataset:
        if env_steps not in self._paths:
            where = printable(str(self._directory))
            has = ", ".join(map(str, self._paths)) or "none; train with datasets=last or all"
            raise BadInput(f"{where} has no dataset of {env_steps} steps: it has {has}")
        return KeptDataset(self._paths[env_steps])

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"<datasets of {list(self._paths)} steps>"
