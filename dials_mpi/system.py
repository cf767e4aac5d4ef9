"""The networked system in training: what every rank does in each line of Algorithm 1.

Each method is called by all ranks at the same time. Root collects, evaluates and writes; the ranks that
hold regions fit and train; what has to travel between them does so at the beginning or end of a method.
"""

from __future__ import annotations

import numpy as np

from dials_mpi import domains, joint
from dials_mpi.collect import Dataset, collect
from dials_mpi.config import Config, Segment
from dials_mpi.evaluate import Evaluation, evaluate, evaluate_scripted
from dials_mpi.failures import Failures
from dials_mpi.learners import TRAINING, Learners
from dials_mpi.learning import set_up_torch
from dials_mpi.learning.influence import Fit
from dials_mpi.provenance import memory
from dials_mpi.ranks import Ranks
from dials_mpi.seeding import Purpose, streams
from dials_mpi.stopwatch import PHASES, Stopwatch


class System:
    """One rank's part of the system; on root also the joint policy, the run file and the progress."""

    def __init__(self, config: Config, ranks: Ranks, directory: str) -> None:
        set_up_torch()
        self.config, self.ranks = config, ranks
        self.watch = Stopwatch()
        self.domain = domains.create(config.domain, config.domain_section)
        mine = ranks.place(len(self.domain.regions), on_root=config.mode == "global")
        self.failures = Failures(ranks.rank)
        self.learners = Learners(config, self.domain, mine, self.failures)
        self.policy_width = joint.widest(joint.policy_size, config, self.domain)
        self.predictor_width = joint.widest(joint.predictor_size, config, self.domain)
        self.policies, self.predictors = [], []
        if ranks.is_root:
            # Workers have no use for these and save their memory.
            from dials_mpi.progress import Reporter
            from dials_mpi.runfile import RunFile

            units = {statistic.name: statistic.unit for statistic in self.domain.statistics}
            self.run = RunFile(directory, units)
            self.reporter = Reporter(config, len(self.domain.regions))
        self._record_hosts()
        self._gather_predictors()

    def __enter__(self) -> System:
        return self

    def __exit__(self, *reason: object) -> None:
        """Give the terminal back, so that the traceback of a fault comes out below the progress."""
        if self.ranks.is_root:
            self.reporter.close()

    def collect(self, segment: Segment) -> dict[int, Dataset]:
        """Line 3: root plays the joint policy on the global simulator; each rank gets its datasets."""
        config, episodes = self.config, self.config.dataset_episodes
        self._phase(f"collecting {config.dataset_size:,} samples per region")
        datasets = None
        if self.ranks.is_root:
            with self.watch("collect"):
                actions = streams(config.seed, Purpose.COLLECT_ACTIONS, episodes, segment.index)
                datasets = collect(
                    self.domain,
                    streams(config.seed, Purpose.COLLECT, episodes, segment.index),
                    lambda _, part: joint.TrainedPolicies(self.policies, actions[part]),
                    self.failures,
                ).datasets
        mine = {
            i: Dataset.empty(self.domain.regions[i], episodes, self.domain.horizon)
            for i in self.learners.regions
        }
        with self.watch("communicate"):
            for part in Dataset._fields:
                blocks = [getattr(dataset, part) for dataset in datasets] if datasets else None
                self.ranks.scatter(blocks, {i: getattr(dataset, part) for i, dataset in mine.items()})
        return mine

    def fit_predictors(self, datasets: dict[int, Dataset], segment: Segment) -> None:
        """Lines 4 to 6: each rank trains the predictors of its regions; root records their loss."""
        self._phase("fitting the influence predictors")
        with self.watch("influence"):
            fits = self.learners.fit(datasets, segment)
        self._gather_predictors()
        with self.watch("communicate"):
            rows = {i: np.array(fit) for i, fit in fits.items()}
            losses = self.ranks.gather(rows, len(Fit._fields), np.float64)
        if self.ranks.is_root:
            columns = dict(zip(Fit._fields, losses.T, strict=True))
            env_steps = segment.first_update * self.config.ppo.memory_size
            series = {f"influence/cross_entropy_{name}": column for name, column in columns.items()}
            self.run.append({"influence/env_steps": env_steps, **series})
            means = ", ".join(f"{name} {column.mean():.3f}" for name, column in columns.items())
            self._phase(f"cross-entropy of the predictors on held-out episodes: {means}")

    def train_policies(self, segment: Segment) -> None:
        """Lines 7 to 12: each rank trains the policies of its regions for one segment."""
        self._phase(f"training up to {segment.env_steps:,} steps per agent")
        with self.watch("train"):
            metrics = self.learners.train(segment)
        with self.watch("communicate"):
            rows = self.ranks.gather(metrics, len(TRAINING), np.float64)
        if self.ranks.is_root:
            columns = zip(TRAINING, rows.T, strict=True)
            series = {f"training/{name}": column for name, column in columns}
            self.run.append({"training/env_steps": segment.env_steps, **series})

    def evaluate(self, env_steps: int, segment: int) -> None:
        """Gather the policies; root plays and records them, and what the time and memory went into.

        segment: number of segments done, which keys the evaluation's random streams.
        """
        with self.watch("communicate"):
            parameters = self.ranks.gather(self.learners.policy_vectors(), self.policy_width, np.float32)
        if self.ranks.is_root:
            self.parameters = parameters
            self.policies = joint.policies(self.config, self.domain, parameters)
            with self.watch("evaluate"):
                episodes = self.config.evaluation_episodes
                self.latest = evaluate(
                    self.config,
                    self.domain,
                    self.policies,
                    self.predictors,
                    episodes,
                    segment,
                    self.failures,
                )
            self._record_evaluation(env_steps, self.latest)
        self._record_costs(env_steps)

    def finish(self) -> None:
        """Root stores the networks, compares with the policies that need no training, shows the table."""
        if self.ranks.is_root:
            tables = [policy.network.table for policy in self.policies]
            self.run.write_networks("policy", self.parameters, tables)
            if self.predictors:
                tables = [predictor.network.table for predictor in self.predictors]
                self.run.write_networks("predictor", self.predictor_parameters, tables)
            episodes = self.config.evaluation_episodes
            scripted = {
                name: evaluate_scripted(self.config, self.domain, name, episodes, failures=self.failures)
                for name in ("random", *self.domain.hand_coded)
            }
            arrays = {f"reference/{name}": result.returns for name, result in scripted.items()}
            for name, result in scripted.items():
                for figure, values in result.statistics.items():
                    arrays[f"reference_statistics/{name}/{figure}"] = values
            self.run.write(arrays, finished=True)
            results = {"random": scripted.pop("random"), "trained": self.latest, **scripted}
            self.reporter.finish(results, self.domain.statistics, self.run.directory)
        self.ranks.barrier()

    def _gather_predictors(self) -> None:
        if self.config.mode == "global":
            return
        with self.watch("communicate"):
            vectors = self.learners.predictor_vectors()
            parameters = self.ranks.gather(vectors, self.predictor_width, np.float32)
        if self.ranks.is_root:
            self.predictor_parameters = parameters
            self.predictors = joint.predictors(self.config, self.domain, parameters)

    def _record_evaluation(self, env_steps: int, evaluation: Evaluation) -> None:
        row = {
            "evaluation/env_steps": env_steps,
            "evaluation/wall_time": self.reporter.elapsed(),
            "evaluation/returns": evaluation.returns,
        }
        if evaluation.cross_entropy is not None:
            row["evaluation/cross_entropy"] = evaluation.cross_entropy
        for name, values in evaluation.statistics.items():
            row[f"evaluation_statistics/{name}"] = values
        self.run.append(row)
        self.reporter.evaluated(env_steps, evaluation)

    def _record_costs(self, env_steps: int) -> None:
        seconds = self.ranks.gather_by_rank(self.watch.take().ravel())
        others = self.ranks.gather_by_rank(np.array([*memory(), self.failures.take()]))
        if self.ranks.is_root:
            by_phase = seconds.reshape(self.ranks.size, len(PHASES), 2)
            series = {f"timing/{phase}": by_phase[:, k] for k, phase in enumerate(PHASES)}
            peak, proportional, failures = others.T
            events = {"events/env_steps": env_steps, "events/simulator_failures": failures.astype(np.int64)}
            self.run.append({"timing/env_steps": env_steps, **series, **events})
            self.run.write({"memory/peak_rss": peak, "memory/pss": proportional})

    def _record_hosts(self) -> None:
        name = np.zeros(64, np.uint8)
        own = np.frombuffer(self.ranks.host.encode()[:64], np.uint8)
        name[: own.size] = own
        rows = self.ranks.gather_by_rank(name)
        if self.ranks.is_root:
            hosts = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
            placement = [self.ranks.holder(region) for region in range(len(self.domain.regions))]
            where = {"hosts": hosts, "ranks": self.ranks.size, "mpi_library": self.ranks.library}
            self.run.write({"placement/rank": placement}, **where)

    def _phase(self, text: str) -> None:
        if self.ranks.is_root:
            self.reporter.phase(text)
