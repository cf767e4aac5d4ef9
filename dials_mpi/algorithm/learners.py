"""The regions that one rank holds: their agents' policies, their influence predictors, the optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dials_mpi.algorithm.collect import Dataset
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import IALS, Environment, GlobalEnvironment, Outcome
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment
from dials_mpi.core.logging import LOG
from dials_mpi.core.seeding import Purpose, stream, streams
from dials_mpi.domains.base import Domain, SimulatorFailure
from dials_mpi.domains.members import Members
from dials_mpi.learning.influence import Fit, Predictor
from dials_mpi.learning.ppo import METRICS, PPO

TRAINING = ("episode_return", *METRICS)
"""What ``Learners.train`` reports of each agent."""


class NonFinite(ArithmeticError):
    """A number that became infinite or NaN. name: for a file; arrays: what led there, by name."""

    def __init__(self, owner: str, segment: int, what: str, arrays: Mapping[str, np.ndarray]) -> None:
        """owner: whose it is, such as "agent 3"."""
        super().__init__(f"{what} of {owner} is not finite in segment {segment}")
        self.name = f"{owner.replace(' ', '')}-segment{segment}"
        self.arrays = arrays


class Learners:
    """Line 1 of Algorithm 1: a predictor (AIP) for each of this rank's regions, a policy for each agent in
    them."""

    def __init__(
        self, config: Config, domain: Domain, regions: list[int], failures: Failures | None = None
    ) -> None:
        self.config, self.domain, self.regions = config, domain, regions
        self.failures = failures or Failures()
        self.members = Members(domain.regions)
        self.agents = {i: self._agent(i) for i in sorted(self.members.of(regions))}
        self.predictors = {} if config.mode == "global" else {k: self._predictor(k) for k in regions}

    def fit(self, datasets: Mapping[int, Dataset], segment: Segment) -> dict[int, Fit]:
        """Lines 4 to 6: train each region's predictor on its dataset; the cross-entropies by region."""
        fits = {}
        for k in self.regions:
            fit = self.predictors[k].fit(*datasets[k], self._stream(Purpose.INFLUENCE_FIT, k, segment))
            losses = {f"cross-entropy {name} the fit": loss for name, loss in fit._asdict().items()}
            state = self.state("predictor", k)
            self._require_finite(f"region {k}", segment, losses | state, state | datasets[k]._asdict())
            LOG.info("fitted the predictor of region %d: %s", k, fit)
            fits[k] = fit
            self.failures.beat()
        return fits

    def train(self, segment: Segment) -> dict[int, np.ndarray]:
        """Lines 7 to 12: train each policy for one segment; TRAINING by agent, float64."""
        rows: dict[int, np.ndarray] = {}
        for regions in self._groups():
            rows |= self._train(regions, segment)
            LOG.info("trained regions %s up to %d steps", regions, segment.env_steps)
        return rows

    def policy_vectors(self) -> dict[int, np.ndarray]:
        """Each agent's policy parameters, float32 [P]."""
        return {i: agent.policy.network.vector for i, agent in self.agents.items()}

    def predictor_vectors(self) -> dict[int, np.ndarray]:
        """Each region's predictor parameters, float32 [P]."""
        return {k: predictor.network.vector for k, predictor in self.predictors.items()}

    def vectors(self, kind: str) -> dict[int, np.ndarray]:
        """The parameters of each agent's "policy" or each region's "predictor", float32 [P], not copied."""
        return self.policy_vectors() if kind == "policy" else self.predictor_vectors()

    def state(self, kind: str, number: int) -> dict[str, np.ndarray]:
        """What an agent's "policy" or a region's "predictor" has learnt and its optimiser remembers: arrays
        [n], not copied."""
        optimiser = {"policy": self.agents, "predictor": self.predictors}[kind][number].optimiser
        return {f"{kind}/{part}": array.reshape(-1) for part, array in optimiser.state().items()}

    def _groups(self) -> list[list[int]]:
        """The regions in groups that train side by side; on the global simulator all do."""
        if not self.domain.side_by_side or self.config.mode == "global":
            return [self.regions] if self.regions else []
        return self.members.groups(self.regions, self.domain.side_by_side // self.config.envs_per_region)

    def _train(self, regions: list[int], segment: Segment) -> dict[int, np.ndarray]:
        """Train the policies of some regions' agents for one segment.

        Every episode starts anew with the segment, at different times of its horizon, so that an update's
        memory holds all times of an episode.
        """
        config = self.config
        # The global simulator has all agents in their own order.
        numbers = list(self.agents) if config.mode == "global" else self.members.of(regions)
        agents = [self.agents[i] for i in numbers]
        for i, agent in zip(numbers, agents, strict=True):
            agent.begin_segment(
                self._stream(Purpose.ACTIONS, i, segment), self._stream(Purpose.MINIBATCHES, i, segment)
            )
        environment = self._environment(regions, segment)
        rollout = Rollout(environment, agents, config.envs_per_region, self.domain.horizon, self.failures)
        for update in range(segment.first_update, segment.first_update + segment.updates):
            observations = rollout.fill(config.steps_per_env)
            for n, (i, agent) in enumerate(zip(numbers, agents, strict=True)):
                led_there = agent.memory() | self.state("policy", i)
                seen = {"value": led_there["values"][:-1], "reward": led_there["rewards"]}
                self._require_finite(f"agent {i}", segment, seen, led_there)
                agent.update(observations[n], update / config.total_updates)
                metrics = dict(zip(METRICS, agent.mean_metrics(), strict=True))
                self._require_finite(f"agent {i}", segment, metrics, led_there)
        for i, agent in zip(numbers, agents, strict=True):
            # Once is enough: a broken network soon breaks the losses.
            state = self.state("policy", i)
            self._require_finite(f"agent {i}", segment, state, agent.memory() | state)
        return {
            i: np.array([mean, *agent.mean_metrics()])
            for i, agent, mean in zip(numbers, agents, rollout.returns.means(), strict=True)
        }

    def _agent(self, i: int) -> PPO:
        config = self.config
        agent = PPO(config.policy, config.ppo, self.domain.agents[i], config.envs_per_region)
        agent.policy.network.initialise(stream(config.seed, Purpose.POLICY_INITIALISATION, i))
        return agent

    def _predictor(self, k: int) -> Predictor:
        predictor = Predictor(self.config.influence, self.domain.regions[k], trainable=True)
        predictor.network.initialise(stream(self.config.seed, Purpose.PREDICTOR_INITIALISATION, k))
        return predictor

    def _environment(self, regions: list[int], segment: Segment) -> Environment:
        config, domain = self.config, self.domain
        if config.mode == "global":
            episodes = streams(config.seed, Purpose.GLOBAL_TRAINING, config.envs_per_region, segment.index)
            return GlobalEnvironment(domain.global_simulator(episodes))
        simulator = domain.local_simulator(
            regions,
            config.envs_per_region,
            [self._stream(Purpose.SIMULATOR, k, segment) for k in regions],
        )
        sources = [self._stream(Purpose.SOURCES, k, segment) for k in regions]
        predictors = [self.predictors[k] for k in regions]
        return IALS(simulator, predictors, config.envs_per_region, sources)

    def _stream(self, purpose: Purpose, number: int, segment: Segment) -> np.random.Generator:
        """That of an agent or a region, as the purpose has it."""
        return stream(self.config.seed, purpose, number, segment.index)

    def _require_finite(
        self, owner: str, segment: Segment, values: Mapping[str, Any], led_there: Mapping[str, np.ndarray]
    ) -> None:
        """NonFinite: one of the values is not; what led there goes with it."""
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise NonFinite(owner, segment.index, name, led_there)


class Rollout:
    """Agents that act side by side in an environment, episode after episode."""

    def __init__(
        self, environment: Environment, agents: list[PPO], envs: int, horizon: int, failures: Failures
    ) -> None:
        self.environment, self.agents, self.failures = environment, agents, failures
        self.elapsed = np.arange(envs) * horizon // envs
        self.returns = EpisodeReturns(len(agents), self.elapsed)
        self.observations: Sequence[np.ndarray] | None = None  # nothing has begun

    def fill(self, steps: int) -> Sequence[np.ndarray]:
        """Act for so many steps; the observations [N, E, O] that follow.

        Where the simulator breaks down, the agents forget these steps and begin anew.
        """
        while True:
            try:
                if self.observations is None:
                    self.observations = self.environment.reset(elapsed=self.elapsed)
                for _ in range(steps):
                    self._step()
            except SimulatorFailure as failure:
                self.failures.note(failure)
                self.observations = None
                self.returns.drop(self.elapsed)
                for agent in self.agents:
                    agent.forget()
            else:
                self.failures.over()
                self.failures.beat()
                return self.observations

    def _step(self) -> None:
        observations, agents = self.observations, self.agents
        actions = np.stack([agent.act(observations[n]) for n, agent in enumerate(agents)])
        outcome = self.environment.step(actions)
        for n, agent in enumerate(agents):
            agent.observe(outcome.rewards[n], outcome.done, outcome.observations[n])
        self.returns.add(outcome)
        self.observations = outcome.observations
        if outcome.done.any():
            self.observations = self.environment.reset(where=outcome.done)


class EpisodeReturns:
    """Undiscounted returns of the episodes that were seen whole, of N agents in E environments."""

    def __init__(self, agents: int, elapsed: np.ndarray) -> None:
        self.total, self.count = np.zeros(agents), 0
        self.drop(elapsed)

    def drop(self, elapsed: np.ndarray) -> None:
        """All episodes begin anew, so many steps [E] after their beginning."""
        self.whole = elapsed == 0
        self.running = np.zeros((len(self.total), len(elapsed)))

    def add(self, outcome: Outcome) -> None:
        """Count one step."""
        self.running += outcome.rewards
        if outcome.done.any():
            finished = outcome.done & self.whole
            self.total += self.running[:, finished].sum(1)
            self.count += finished.sum()
            self.running[:, outcome.done] = 0
            self.whole = self.whole | outcome.done

    def means(self) -> np.ndarray:
        """Mean return per agent, float64 [N]; NaN where no whole episode has ended."""
        return self.total / self.count if self.count else np.full_like(self.total, np.nan)
