"""The global simulator as a PettingZoo ``ParallelEnv``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from operator import lt
from typing import Any

import numpy as np

from dials_mpi.algorithm.decisions import decide
from dials_mpi.algorithm.ials import GlobalEnvironment
from dials_mpi.config import Config, load
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.domains import create
from dials_mpi.domains.base import Closable, GlobalSimulator, Rows
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.gym.libraries import Box, Discrete, ParallelEnv
from dials_mpi.gym.spaces import action_of, action_space, observation_space
from dials_mpi.results.run import Run


class GlobalEnv(ParallelEnv[str, np.ndarray, int]):
    """One episode at a time of the global simulator (GS) with all agents.

    The agents are ``agent_0`` to ``agent_<N-1>``, in the order of the regions; all of them act until the
    time limit. Observations: float32 [O], O may differ by agent; actions: int, of Python, numpy or torch;
    rewards: float. A copy, by ``copy`` or ``pickle``, has no episode: it begins anew with ``reset``.
    """

    metadata: dict[str, Any]
    render_mode = None

    def __init__(self, config: Config) -> None:
        """BadInput: something that the domain's simulator needs is missing on this machine."""
        self.config = config
        self.domain = create(config.domain, config.domain_section)
        self.domain.versions()
        self.metadata = {"name": f"dials_mpi_{config.domain_key}", "render_modes": []}
        self.possible_agents = [f"agent_{i}" for i in range(len(self.domain.agents))]
        self.agents: list[str] = []
        self._counts = [agent.actions for agent in self.domain.agents]
        self._decision_steps = decision_steps(self.domain)
        self._simulator: GlobalSimulator | None = None
        seen = self._begin(config.seed).reset().observations
        spaces = [(observation_space(seen[i]), action_space(self.domain, i)) for i in range(len(seen))]
        self._spaces = dict(zip(self.possible_agents, spaces, strict=True))

    @classmethod
    def from_config(
        cls, file: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()
    ) -> GlobalEnv:
        """The system of a configuration: a YAML file (None: the defaults) and overrides ``key=value``.

        BadInput: it is not valid, or something that its domain needs is missing.
        """
        return cls(load(None if file is None else os.fspath(file), overrides))

    @classmethod
    def from_run(cls, directory: str | os.PathLike[str], unchecked: bool = False) -> GlobalEnv:
        """The system of a run. BadInput: there is no run in the directory.

        unchecked: also read a file that another program has changed.
        """
        return cls(Run.open(directory, unchecked=unchecked).config)

    def observation_space(self, agent: str) -> Box:
        """The space of an agent's observations."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> Discrete:
        """The space of an agent's actions."""
        return self._spaces[agent][1]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Begin an episode: observations and empty infos by agent.

        seed: the episode, and those that follow it, are the same whenever it is given; without one the random
        numbers continue, at first those of the configuration's seed. options: there are none.
        """
        if seed is not None or self._simulator is None:
            self._simulator = self._begin(self.config.seed if seed is None else seed)
        self.agents = list(self.possible_agents)
        return self._observed(self._simulator.reset().observations), self._infos()

    def close(self) -> None:
        """End the simulator, also outside this process; ``reset`` starts it again."""
        if isinstance(self._simulator, Closable):
            self._simulator.close()
        self._simulator, self.agents = None, []

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Advance by one decision: observations, rewards, terminated, truncated and infos by agent.

        ValueError: an action is missing or invalid; RuntimeError: ``reset`` was not called.
        SimulatorFailure: the simulator failed; ``reset`` starts it again, with another episode.
        """
        if self._simulator is None or not self.agents:
            raise RuntimeError("no episode is running: call reset first")
        environment = GlobalEnvironment(self._simulator)
        seen, rewards, done = decide(environment, self._joint(actions), self._decision_steps)
        earned = dict(zip(self.agents, rewards[:, 0].tolist(), strict=True))
        observations, over = self._observed(seen), bool(done[0])
        result = observations, earned, self._of_all(False), self._of_all(over), self._infos()
        if over:
            self.agents = []
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: no simulation goes with it, for a process holds one SUMO at most."""
        return {**self.__dict__, "_simulator": None, "agents": []}

    def _joint(self, actions: Mapping[str, Any]) -> np.ndarray:
        """The actions of all agents, int64 [N, 1]. ValueError: one is missing or invalid."""
        given: list[Any] = [actions.get(agent) for agent in self.agents]
        # Mostly they are ints. Comparing a few of them is faster in Python than in numpy.
        if not (set(map(type, given)) == {int} and min(given) >= 0 and all(map(lt, given, self._counts))):
            given = [self._action(agent, one) for agent, one in zip(self.agents, given, strict=True)]
        return np.array(given, np.int64)[:, None]

    def _action(self, agent: str, given: Any) -> int:
        space = self.action_space(agent)
        action = action_of(space, given)
        if action is None:
            raise ValueError(f"the action of {agent} is {given!r}: give one of {space}")
        return action

    def _begin(self, seed: int) -> GlobalSimulator:
        """A simulator with an rng of its own, which no run and no ``evaluate`` uses."""
        return self.domain.global_simulator([stream(seed, Purpose.GLOBAL_TRAINING, 0, OTHER_EPISODES)])

    def _observed(self, observations: Rows) -> dict[str, np.ndarray]:
        if isinstance(observations, np.ndarray):  # at once
            rows = list(observations[:, 0].astype(np.float32))
        else:
            rows = [own[0].astype(np.float32) for own in observations]
        return dict(zip(self.agents, rows, strict=True))

    def _of_all(self, value: bool) -> dict[str, bool]:
        return dict.fromkeys(self.agents, value)

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {agent: {} for agent in self.agents}
