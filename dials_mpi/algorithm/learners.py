"""The learners of one rank's regions: policies, influence predictors and their optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import IALS, Environment, GlobalEnvironment
from dials_mpi.algorithm.own import AgentEnvironment, OwnAgent
from dials_mpi.algorithm.rollout import Rollout
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment
from dials_mpi.core.logging import LOG
from dials_mpi.core.seeding import Purpose, stream, streams
from dials_mpi.domains.base import Domain, local_side_by_side
from dials_mpi.domains.members import Members
from dials_mpi.learning import side_by_side
from dials_mpi.learning.adam import Adam, Gradients
from dials_mpi.learning.influence import Fit, Predictor, starts
from dials_mpi.learning.learner import find, metrics
from dials_mpi.learning.policy import Policy
from dials_mpi.learning.ppo import METRICS, PPO
from dials_mpi.learning.sharing import Alone, Exchange, SharedPolicies
from dials_mpi.learning.side_by_side import Together
from dials_mpi.learning.tables import shared_by, size, tables

TRAINING = ("episode_return", *METRICS)
"""The figures that ``Learners.train`` returns for each agent of the built-in PPO."""


def training_figures(config: Config) -> tuple[str, ...]:
    """The figures that ``Learners.train`` returns for each agent."""
    return ("episode_return", *metrics(find(config.learner))) if config.own_learner else TRAINING


class NonFinite(ArithmeticError):
    """A number became infinite or NaN. name: part of a file name; arrays: the data behind it, by name."""

    def __init__(self, owner: str, segment: int, what: str, arrays: Mapping[str, np.ndarray]) -> None:
        """owner: an agent or a region, such as "agent 3"; what: the number's name."""
        super().__init__(f"{what} of {owner} is not finite in segment {segment}")
        self.name = f"{owner.replace(' ', '')}-segment{segment}"
        self.arrays = arrays


class Learners:
    """Line 1 of Algorithm 1: a predictor (AIP) for each of this rank's regions, a policy for each agent in
    them.

    agents: the built-in PPO of each agent, by number; own: the other learners, if the configuration has one.
    shared: the policies that agents share, None if each has its own. predictors: by region, empty in mode
    ``global``.
    """

    def __init__(
        self,
        config: Config,
        domain: Domain,
        regions: list[int],
        failures: Failures | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        """exchange: adds up gradients over all ranks that train; by default this one trains alone."""
        self.config, self.domain, self.regions = config, domain, regions
        self.failures = failures or Failures()
        self.members = Members(domain.regions)
        numbers = sorted(self.members.of(regions))
        self._gradients = Gradients()
        self._stacks: dict[tuple[Any, ...], tuple[Together | None, Together | None]] = {}
        self.shared = self._shared(numbers, exchange or Alone()) if config.shared else None
        self.agents = {} if config.own_learner else {i: self._agent(i) for i in numbers}
        self.own = {i: self._own_agent(i) for i in numbers} if config.own_learner else {}
        self.predictors = {} if config.mode == "global" else {k: self._predictor(k) for k in regions}

    def starts_from(self, segment: Segment) -> list[int]:
        """For each region of the system the one whose fitted predictor its own starts from at the refit
        before a segment: mostly itself."""
        if self._fitted_before(segment):
            return list(range(len(self.domain.regions)))
        return starts(self.config.influence, self.domain.regions)

    def fit(
        self, datasets: Mapping[int, Dataset], segment: Segment, regions: Sequence[int] | None = None
    ) -> dict[int, Fit]:
        """Lines 4 to 6: train each region's predictor on its dataset; the cross-entropies by region.

        regions: some of this rank's, by default all. NonFinite: a cross-entropy or a parameter is infinite or
        NaN.
        """
        fits, start, fitted = {}, self.starts_from(segment), self._fitted_before(segment)
        for k in self.regions if regions is None else regions:
            inputs, sources = datasets[k]
            epochs = self.config.influence.fit_epochs(fitted or start[k] != k)
            random = self._stream(Purpose.INFLUENCE_FIT, k, segment)
            fit = self.predictors[k].fit(inputs, sources, random, epochs)
            losses = {f"cross-entropy {name} the fit": loss for name, loss in fit._asdict().items()}
            state = self.state("predictor", k)
            self._require_finite(
                f"region {k}", segment, losses | state, state | {"inputs": inputs, "sources": sources}
            )
            LOG.info("fitted the predictor of region %d: %s", k, fit)
            fits[k] = fit
            self.failures.beat()
        return fits

    def _fitted_before(self, segment: Segment) -> bool:
        """Whether all predictors are fitted ones already at the refit before a segment."""
        return segment.index > 0 or bool(self.config.predictors_from)

    def train(self, segment: Segment) -> dict[int, np.ndarray]:
        """Lines 7 to 12: train each policy for one segment; its ``training_figures`` by agent, float64 each.

        NonFinite: a value, a reward, a metric or a parameter is infinite or NaN.
        """
        rows: dict[int, np.ndarray] = {}
        groups = groups_of(self.config, self.domain, self.regions)
        for ready in [groups] if self.shared and groups else [[regions] for regions in groups]:
            if self.config.own_learner:
                rows |= self._train_own(ready[0], segment)
            else:
                rows |= self._train(ready, segment)
            for regions in ready:
                LOG.info("trained regions %s up to %d steps", regions, segment.env_steps)
        return rows

    def vectors(self, kind: str) -> dict[int, np.ndarray]:
        """Parameters float32 [P], a copy or not: "policy" by agent, "predictor" by region."""
        owners = self.predictors if kind == "predictor" else self.own or self.agents
        return {owner: self._holder(kind, owner).parameters for owner in owners}

    def state(self, kind: str, owner: int) -> dict[str, np.ndarray]:
        """Parameters and optimiser state of an agent's "policy" or a region's "predictor": arrays [n] by
        name, copies or not."""
        state = self._holder(kind, owner).state()
        return {f"{kind}/{part}": array.reshape(-1) for part, array in state.items()}

    def restore(self, kind: str, owner: int, part: str, row: np.ndarray) -> None:
        """Set one array of ``state``, whose name is kind/part; row: at least as long."""
        self._holder(kind, owner).restore(part, row)

    def _holder(self, kind: str, owner: int) -> Adam | OwnAgent:
        """What holds the parameters and the state of an agent's policy or a region's predictor."""
        if kind == "predictor":
            return self.predictors[owner].optimiser
        return self.own[owner] if self.config.own_learner else self.agents[owner].optimiser

    def _train(self, groups: list[list[int]], segment: Segment) -> dict[int, np.ndarray]:
        """Train the policies of some regions' agents for one segment; each group has a simulator.

        The segment begins with new episodes at different steps of the horizon, so that the memory of an
        update holds all steps of an episode.
        """
        config = self.config
        rollouts = [(self._numbers(regions), self._rollout(regions, segment)) for regions in groups]
        learn_together = None if self.shared else self._together("policy", rollouts[0][0])[1]
        for update in range(segment.first_update, segment.first_update + segment.updates):
            observations: dict[int, np.ndarray] = {}
            for numbers, rollout in rollouts:
                observations |= zip(numbers, rollout.fill(config.steps_per_env), strict=True)
            self._update(observations, segment, update / config.total_updates, learn_together)
        rows = {}
        for numbers, rollout in rollouts:
            for i, mean in zip(numbers, rollout.returns.means(), strict=True):
                # Not at every update: the losses of a network with such a parameter are not finite either.
                self._require_finite(f"agent {i}", segment, self.state("policy", i), self._inputs(i))
                rows[i] = np.array([mean, *self.agents[i].mean_metrics()])
        return rows

    def _numbers(self, regions: list[int]) -> list[int]:
        """The agents of some regions in the simulator's order; the global one has all in their own order."""
        return list(self.agents) if self.config.mode == "global" else self.members.of(regions)

    def _rollout(self, regions: list[int], segment: Segment) -> Rollout:
        """Let the agents of some regions begin a segment in a simulator."""
        numbers = self._numbers(regions)
        for i in numbers:
            self.agents[i].begin_segment(
                self._stream(Purpose.ACTIONS, i, segment), self._stream(Purpose.MINIBATCHES, i, segment)
            )
        agents, environment = [self.agents[i] for i in numbers], self._environment(regions, segment)
        envs = self.config.envs_per_region
        together = None if self.shared else self._together("policy", numbers)[0]
        return Rollout(environment, agents, envs, self.domain, self.failures, together)

    def compute_alone(self) -> None:
        """From now on networks are computed one after another, as the bench compares it."""
        self._stacks = dict.fromkeys(self._stacks, (None, None))

    def _together(self, kind: str, owners: list[int]) -> tuple[Together | None, Together | None]:
        """What computes the networks of agents or regions at a time as they act, and as they learn."""
        key = kind, *owners
        if key not in self._stacks:
            batches: Sequence[tuple[int, int]] = ()
            if kind == "policy":
                networks = [self.agents[i].policy.network for i in owners]
                optimisers = [self.agents[i].optimiser for i in owners]
                batches = self.agents[owners[0]].batches()
            else:
                networks = [self.predictors[k].network for k in owners]
                optimisers = [self.predictors[k].optimiser for k in owners]
            self._stacks[key] = side_by_side.together(
                networks, optimisers, self.config.envs_per_region, batches
            )
        return self._stacks[key]

    def _update(
        self,
        observations: Mapping[int, np.ndarray],
        segment: Segment,
        progress: float,
        together: Together | None = None,
    ) -> None:
        """Let agents learn from their full memories; arguments as of ``PPO.update``, by agent.

        together: computes their networks at a time.
        """
        for i in observations:
            inputs = self._inputs(i)
            seen = {"value": inputs["values"][:-1], "reward": inputs["rewards"]}
            self._require_finite(f"agent {i}", segment, seen, inputs)
        if self.shared:
            self._update_together(self.shared, observations, segment, progress)
        elif together:
            side_by_side.update([self.agents[i] for i in observations], together, observations, progress)
        else:
            for i, after in observations.items():
                self.agents[i].update(after, progress)
        for i in observations:
            metrics = dict(zip(METRICS, self.agents[i].mean_metrics(), strict=True))
            self._require_finite(f"agent {i}", segment, metrics, self._inputs(i))

    def _update_together(
        self,
        shared: SharedPolicies,
        observations: Mapping[int, np.ndarray],
        segment: Segment,
        progress: float,
    ) -> None:
        """``PPO.update`` of agents that share policies: each step is along the mean of their gradients.

        A gradient that is not finite ends the run on the rank of its agent, which can be named there.
        """
        minibatches = [self.agents[i].gradients(after, progress) for i, after in observations.items()]
        gradients = {i: self.agents[i].gradient for i in observations}
        inputs = {i: self._inputs(i) for i in observations}
        for learning_rate, *_ in zip(*minibatches, strict=True):
            for i, gradient in gradients.items():
                self._require_finite(f"agent {i}", segment, {"gradient": gradient}, inputs[i])
            shared.descend(gradients, self.config.ppo, learning_rate)

    def _inputs(self, i: int) -> dict[str, np.ndarray]:
        """What an agent learns from: its memory, and the policy with its optimiser; not copied."""
        return self.agents[i].memory() | self.state("policy", i)

    def _train_own(self, regions: list[int], segment: Segment) -> dict[int, np.ndarray]:
        """``_train`` of the only agent of the only region, with a learner of the user's own."""
        (i,) = self.members.of(regions)
        config, agent = self.config, self.own[i]
        environment = AgentEnvironment(
            self._environment(regions, segment),
            self.domain,
            self.domain.agents[i],
            config.envs_per_region,
            segment.updates * config.ppo.memory_size,
            self.failures,
        )
        figures = agent.learn(environment, self._stream(Purpose.ACTIONS, i, segment))
        parameters = {"policy/parameters": agent.parameters}
        self._require_finite(f"agent {i}", segment, parameters, parameters)
        return {i: figures}

    def _own_agent(self, i: int) -> OwnAgent:
        rng = stream(self.config.seed, Purpose.POLICY_INITIALISATION, i)
        return OwnAgent(self.config, self.domain.agents[i], rng=rng)

    def _agent(self, i: int) -> PPO:
        config = self.config
        optimiser = self.shared.optimisers[self.shared.kinds[i]] if self.shared else None
        # Agents that share a policy need their gradients at the same time.
        gradients = None if optimiser else self._gradients
        own = self.domain.agents[i], config.envs_per_region
        agent = PPO(config.policy, config.ppo, *own, optimiser, gradients)
        if not optimiser:
            agent.policy.network.initialise(stream(config.seed, Purpose.POLICY_INITIALISATION, i))
        return agent

    def _shared(self, numbers: list[int], exchange: Exchange) -> SharedPolicies:
        """The policies that these agents share, each initialised as that of its first agent.

        BadInput: as of ``tables.shared_by``.
        """
        config, found = self.config, tables(self.config, self.domain)["policy"]
        kinds = shared_by(config.policy, self.domain.agents, found)
        optimisers = {}
        for first in sorted({kinds[i] for i in numbers}):
            network = Policy(config.policy, self.domain.agents[first]).network
            network.initialise(stream(config.seed, Purpose.POLICY_INITIALISATION, first))
            optimisers[first] = Adam(network.vector, np.zeros_like(network.vector), config.ppo.adam_epsilon)
        return SharedPolicies(kinds, [size(table) for table in found], optimisers, exchange)

    def _predictor(self, k: int) -> Predictor:
        region, gradients = self.domain.regions[k], self._gradients
        predictor = Predictor(self.config.influence, region, trainable=True, gradients=gradients)
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
        # The parameters of autoregressive heads lie in the same vectors, which cannot be moved.
        independent = config.influence.heads == "independent"
        stacked = self._together("predictor", regions)[0] if independent else None
        return IALS(simulator, predictors, config.envs_per_region, sources, stacked)

    def _stream(self, purpose: Purpose, number: int, segment: Segment) -> np.random.Generator:
        """The random stream of an agent or a region, depending on the purpose."""
        return stream(self.config.seed, purpose, number, segment.index)

    def _require_finite(
        self, owner: str, segment: Segment, values: Mapping[str, Any], inputs: Mapping[str, np.ndarray]
    ) -> None:
        """NonFinite: one of the values is infinite or NaN; inputs: the data behind it."""
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise NonFinite(owner, segment.index, name, inputs)


def groups_of(config: Config, domain: Domain, regions: list[int]) -> list[list[int]]:
    """The regions of a rank in groups that train in one simulator; on the global simulator all of them do.

    A learner of the user's own has its simulator for itself.
    """
    if config.own_learner:
        return [[k] for k in regions]
    most = local_side_by_side(domain)
    if not most or config.mode == "global":
        return [regions] if regions else []
    return Members(domain.regions).groups(regions, most // config.envs_per_region)
