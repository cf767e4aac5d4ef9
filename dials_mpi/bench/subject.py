"""The measured system: that of a configuration on all ranks, with predictors that are fitted before training.

Untrained predictors would insert far too many vehicles in traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.algorithm.learners import TRAINING, Learners
from dials_mpi.algorithm.networks import require_networks
from dials_mpi.bench.floors import timed
from dials_mpi.bench.shares import PARTS, Profile, global_methods, training_methods
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.domains.members import OWNERS
from dials_mpi.learning.tables import tables, widths
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import AGENT, REGION, Layout
from dials_mpi.run.warm_up import warm_up_together

FIT_EPOCHS = 5
"""Epochs of the measured fit; how long one takes does not depend on their number."""

FIT_LEARNING_RATE = 1e-3
"""The lowest learning rate of the fit, so that few epochs give about the sources' true frequencies."""

WARMING = 2
"""Updates, episodes and decisions of an episode before measurements, for all that is compiled or loaded at
first use."""


class Subject:
    """One rank's part of the measured system. Methods are called by all ranks at the same time.

    learners: of the regions that this rank holds, maybe none. config: as configured, but with the
    measured fit's epochs, without annealing, as at the beginning of a long run, and without shared policies,
    because some ranks are measured alone.
    """

    def __init__(self, config: Config, comm: Communicator) -> None:
        influence = replace(
            config.influence,
            epochs=FIT_EPOCHS,
            start="own",
            refit_epochs=0,
            learning_rate=max(config.influence.learning_rate, FIT_LEARNING_RATE),
        )
        ppo, policy = replace(config.ppo, anneal=False), replace(config.policy, share="none")
        self.config = replace(config, influence=influence, ppo=ppo, policy=policy)
        self.comm = comm
        self.domain = create(config.domain, config.domain_section)
        agents = [region.agents for region in self.domain.regions]
        self.layout = Layout(comm.rank, comm.size, agents, config.mode == "global", config.global_ranks)
        self.mine = self.layout.regions
        warm_up_together(comm, comm.exchange_hosts(silence=0), self.config, self.domain)
        self.learners = Learners(self.config, self.domain, self.mine)
        require_networks(config, self.domain)
        self.tables = tables(config, self.domain)
        self.datasets: dict[int, Dataset] = {}
        self._segments = 0

    def among_first(self, count: int) -> bool:
        """Whether this rank is one of the first so many that hold regions."""
        before = range(self.mine[0]) if self.mine else ()
        return bool(self.mine) and len({self.layout.region_ranks[k] for k in before}) < count

    @property
    def predicts(self) -> bool:
        """Whether there are influence predictors."""
        return self.config.mode != "global"

    def warm_up(self) -> None:
        """Train, collect and evaluate for a short time."""
        self.train(WARMING)
        horizon = WARMING * decision_steps(self.domain)
        section = replace(self.config.domain_section, horizon=horizon)
        self.evaluate(WARMING, create(self.config.domain, section))

    def collect(self, episodes: int) -> np.ndarray:
        """Datasets of so many episodes for all regions, played with the present policies.

        Returns root's CPU seconds and its share of them in simulationStep, [2]; zeros elsewhere.
        """
        spent = np.zeros(2)
        policies, _ = self._networks()
        played = None
        if self.comm.is_root:
            profile, actions = Profile(), streams(0, Purpose.COLLECT_ACTIONS, episodes)
            with profile.watching(global_methods(self.config, self.domain)), timed() as seconds:
                profile.take()
                played = collect(
                    self.domain,
                    streams(0, Purpose.COLLECT, episodes),
                    lambda _, part: joint.TrainedPolicies(policies, actions[part]),
                ).datasets
                parts = profile.take()
            spent[:] = seconds[1], parts[PARTS.index("sumo")] / parts.sum()
        self.datasets = {
            k: Dataset.empty(self.domain.regions[k], episodes, self.domain.horizon) for k in self.mine
        }
        given = None if played is None else {k: dataset.stored for k, dataset in enumerate(played)}
        room = {k: dataset.stored for k, dataset in self.datasets.items()}
        self.comm.scatter(given, room, self.layout.owned[REGION])
        return spent

    def fit(self) -> float:
        """Fit this rank's predictors to the datasets, after a short fit for warm-up; CPU seconds."""
        few = {i: Dataset(*dataset.some(slice(WARMING))) for i, dataset in self.datasets.items()}
        self.learners.fit(few, self._segment(0))
        self.comm.barrier()
        with timed() as seconds:
            self.learners.fit(self.datasets, self._segment(0))
        return float(seconds[1])

    def evaluate(self, episodes: int, domain: Domain | None = None) -> float:
        """Evaluate the present networks, maybe in another domain; root's CPU seconds, 0 elsewhere."""
        policies, predictors = self._networks()
        with timed() as seconds:
            if self.comm.is_root:
                evaluate(self.config, domain or self.domain, policies, predictors, episodes, segment=0)
        return float(seconds[1])

    def train(self, updates: int) -> np.ndarray:
        """So many updates of each of this rank's policies; wall-clock and CPU seconds [2]."""
        self.comm.barrier()
        with timed() as seconds:
            if self.mine:
                self.learners.train(self._segment(updates))
        return seconds

    def profile(self, updates: int) -> np.ndarray:
        """The same and what comes behind a segment, in seconds of PARTS; zeros where nothing trains."""
        self.comm.barrier()
        profile = Profile()
        watched = training_methods(self.config, self.domain) if self.mine else []
        profile.take()
        rows = {}
        with profile.watching(watched):
            if self.mine:
                rows = self.learners.train(self._segment(updates))
        with profile("waiting"):
            self.comm.barrier()
        with profile("communication"):
            self.comm.gather(rows, self.layout.owned[AGENT], len(TRAINING), np.float64)
            self._gather("policy")
        return profile.take() if self.mine else np.zeros(len(PARTS))

    def _segment(self, updates: int) -> Segment:
        """A segment of streams of its own."""
        self._segments += 1
        return Segment(self._segments, 0, updates, 0, False, False)

    def _networks(self) -> tuple[Sequence[joint.Actor], list]:
        """All regions' policies and predictors as they are, on root; elsewhere nothing."""
        policies, predictors = self._gather("policy"), self._gather("predictor") if self.predicts else None
        return (
            [] if policies is None else joint.policies(self.config, self.domain, policies),
            [] if predictors is None else joint.predictors(self.config, self.domain, predictors),
        )

    def _gather(self, kind: str) -> np.ndarray | None:
        vectors, width = self.learners.vectors(kind), widths(self.tables)[kind]
        return self.comm.gather(vectors, self.layout.owned[OWNERS[kind]], width, np.float32)
