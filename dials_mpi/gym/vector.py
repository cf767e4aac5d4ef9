"""An influence-augmented local simulator (IALS, Algorithm 3) as a Gymnasium ``VectorEnv``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dials_mpi.algorithm.decisions import decide
from dials_mpi.algorithm.ials import IALS
from dials_mpi.config import Config, load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, stream
from dials_mpi.core.text import shown
from dials_mpi.domains import create, require_local
from dials_mpi.domains.base import Closable
from dials_mpi.domains.decisions import decision_steps, decisions_per_episode
from dials_mpi.gym.libraries import AutoresetMode, VectorEnv, batch_space
from dials_mpi.gym.spaces import action_space, actions_of, observation_space
from dials_mpi.learning.influence import Predictor
from dials_mpi.results.run import Run


class RegionEnv(VectorEnv):
    """E environments of one region; its influence predictor replaces the rest of the system.

    Observations: float32 [E, O]; actions: int [E], an array, a tensor or a list; rewards: float32 [E].

    Autoreset mode same_step: an episode that ends with a step has begun anew when ``step`` returns. The
    observation that ended it is then in ``infos["final_obs"]``, an object array [E] with None where no
    episode ended (mask ``_final_obs``). Mode next_step: ``step`` returns the observation that ended it, and
    the next ``step`` begins anew in that environment, whatever its action, with reward 0.

    A copy, by ``copy`` or ``pickle``, has no episodes: they begin anew with ``reset``. horizon: the length of
    an episode, as ``step`` counts: decisions.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        config: Config,
        region: int = 0,
        num_envs: int | None = None,
        predictor: Predictor | None = None,
        autoreset_mode: str | AutoresetMode = "same_step",
    ) -> None:
        """num_envs: E, by default ``envs_per_region``. predictor: by default an untrained one.

        autoreset_mode: same_step or next_step, or Gymnasium's of these. BadInput: it is another one, there is
        no such region, it holds several agents, or what the domain's simulator needs is
        missing.
        """
        self.config, self.region = config, region
        self.domain = create(config.domain, config.domain_section)
        require_local(self.domain)
        self.horizon = decisions_per_episode(self.domain)
        self.num_envs = config.envs_per_region if num_envs is None else num_envs
        if self.num_envs < 1:
            raise BadInput(f"num_envs is {num_envs}: give 1 or more")
        _require_region(region, len(self.domain.regions))
        agents = self.domain.regions[region].agents
        if len(agents) > 1:
            raise BadInput(
                f"region {region} holds {len(agents)} agents: a Gymnasium environment has one, choose a "
                "domain or a block with one agent in each region"
            )
        mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": mode}
        self._next_step = mode is AutoresetMode.NEXT_STEP
        self._ended = np.zeros(self.num_envs, bool)  # by the last step, in mode next_step
        self.predictor = self._untrained() if predictor is None else predictor
        self._environment: IALS | None = None
        self.single_observation_space = observation_space(self._begin(config.seed).reset()[0])
        self.single_action_space = self._actions = action_space(self.domain, agents[0])
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    @classmethod
    def from_config(
        cls,
        file: str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
        region: int = 0,
        num_envs: int | None = None,
        autoreset_mode: str | AutoresetMode = "same_step",
    ) -> RegionEnv:
        """With an untrained predictor: a YAML file (None: the defaults) and overrides ``key=value``.

        BadInput: as of the constructor, or it is no configuration.
        """
        config = load(None if file is None else os.fspath(file), overrides)
        return cls(config, region, num_envs, autoreset_mode=autoreset_mode)

    @classmethod
    def from_run(
        cls,
        directory: str | os.PathLike[str],
        region: int = 0,
        num_envs: int | None = None,
        checkpoint: str | int | None = None,
        unchecked: bool = False,
        autoreset_mode: str | AutoresetMode = "same_step",
    ) -> RegionEnv:
        """With the region's predictor that a run has trained.

        checkpoint: best, newest, or its steps; None: the run's end, or the newest while it is unfinished.
        unchecked: also read files that another program has changed. BadInput: as of the constructor,
        or there is no run, checkpoint or predictor.
        """
        run = Run.open(directory, checkpoint, unchecked)
        if not run.predictors:
            raise BadInput("the run has no influence predictors: its mode is global")
        _require_region(region, len(run.predictors))
        return cls(run.config, region, num_envs, run.predictors[region], autoreset_mode)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in each environment: observations [E, O], and an empty dictionary.

        seed: these episodes, and those that follow, are the same whenever it is given; without one the random
        numbers continue, at first those of the configuration's seed. options: ``elapsed``, int [E], the
        decisions that each episode has behind it, so that they do not all end together. ValueError: it is
        not E decisions of an episode, or there is another option.
        """
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"elapsed"}:
            raise ValueError(f"the option {min(unknown)!r} is not known: there is elapsed")
        elapsed = self._elapsed((options or {}).get("elapsed"))
        if seed is not None or self._environment is None:
            self._environment = self._begin(self.config.seed if seed is None else seed)
        self._ended[:] = False
        return self._environment.reset(elapsed=elapsed)[0].astype(np.float32), {}

    def close_extras(self, **kwargs: Any) -> None:
        """End the simulator, also outside this process; called by Gymnasium's ``close``."""
        if self._environment is not None and isinstance(self._environment.simulator, Closable):
            self._environment.simulator.close()
        self._environment = None

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by one decision: observations, rewards, terminated (all False), truncated bool [E], infos.

        ValueError: the actions are not E of this region's; RuntimeError: ``reset`` was not called.
        SimulatorFailure: the simulator failed; ``reset`` starts it again, with other episodes.
        """
        if self._environment is None:
            raise RuntimeError("no episode is running: call reset first")
        chosen = actions_of(self._actions, actions, self.num_envs)
        every = decision_steps(self.domain)
        observations, rewards, done = decide(self._environment, chosen[None], every)
        reached, paid, infos = observations[0].astype(np.float32), np.array(rewards[0], np.float32), {}
        done = done & ~self._ended
        again = done | self._ended
        if again.any():
            first = self._environment.reset(where=again)[0].astype(np.float32)
            if self._next_step:
                reached[self._ended], paid[self._ended] = first[self._ended], 0
            else:
                reached, infos = first, self._final(reached, done)
        if self._next_step:  # all step side by side: what has just begun takes a step, and begins once more
            self._ended = done.copy()
        return reached, paid, np.zeros_like(done), done.copy(), infos

    def _final(self, observations: np.ndarray, done: np.ndarray) -> dict[str, Any]:
        """What SAME_STEP asks for beside the first observations of the episodes that follow."""
        last = np.full(self.num_envs, None, object)
        for e in np.flatnonzero(done):
            last[e] = observations[e]
        return {"final_obs": last, "_final_obs": done.copy(), "final_info": {}, "_final_info": done.copy()}

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: no simulation goes with it, for a process holds one SUMO at most."""
        return {**self.__dict__, "_environment": None}

    def _begin(self, seed: int) -> IALS:
        """Simulators and sources with rngs of their own, which no run uses."""
        simulator, sources = (
            [stream(seed, purpose, self.region, OTHER_EPISODES)]
            for purpose in (Purpose.SIMULATOR, Purpose.SOURCES)
        )
        local = self.domain.local_simulator([self.region], self.num_envs, simulator)
        return IALS(local, [self.predictor], self.num_envs, sources)

    def _untrained(self) -> Predictor:
        """The predictor with which a run of this configuration begins."""
        predictor = Predictor(self.config.influence, self.domain.regions[self.region])
        predictor.network.initialise(stream(self.config.seed, Purpose.PREDICTOR_INITIALISATION, self.region))
        return predictor

    def _elapsed(self, elapsed: Any) -> np.ndarray | None:
        if elapsed is None:
            return None
        decisions, last = np.asarray(elapsed), self.horizon - 1
        fits = decisions.shape == (self.num_envs,) and decisions.dtype.kind in "iu"
        if not fits or decisions.min() < 0 or decisions.max() > last:
            raise ValueError(f"elapsed is {elapsed!r}: give {self.num_envs} integers from 0 to {last}")
        return decisions * decision_steps(self.domain)


def _autoreset_mode(given: str | AutoresetMode) -> AutoresetMode:
    known = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}
    if given in known.values():
        return AutoresetMode(given)
    if given not in known:
        raise BadInput(f"autoreset_mode is {shown(given)}: choose same_step or next_step")
    return known[given]


def _require_region(region: int, regions: int) -> None:
    if not 0 <= region < regions:
        raise BadInput(f"region is {region}: there are 0 to {regions - 1}")
