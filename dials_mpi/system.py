"""The networked system in training: what every rank does in each line of Algorithm 1.

Each method is called by all ranks at the same time. Root collects, evaluates and writes; the ranks that
hold regions fit and train; what has to travel between them does so at the beginning or end of a method.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dials_mpi import domains, joint
from dials_mpi.collect import Dataset, collect
from dials_mpi.config import Segment
from dials_mpi.errors import Unwritable
from dials_mpi.evaluate import Evaluation, evaluate, evaluate_scripted
from dials_mpi.failures import Failures
from dials_mpi.learners import TRAINING, Learners, NonFinite
from dials_mpi.learning.influence import Fit
from dials_mpi.logs import LOG
from dials_mpi.provenance import memory
from dials_mpi.ranks import Ranks
from dials_mpi.rehearsal import rehearse
from dials_mpi.seeding import Purpose, streams
from dials_mpi.signals import Wishes
from dials_mpi.start import Start
from dials_mpi.stopwatch import PHASES, Stopwatch
from dials_mpi.upkeep import Upkeep
from dials_mpi.walltime import Deadline


class System:
    """One rank's part of the system; on root also the joint policy, the run file and the progress."""

    def __init__(self, start: Start, ranks: Ranks, deadline: Deadline, wishes: Wishes) -> None:
        config = start.config
        self.config, self.ranks, self.directory = config, ranks, start.directory
        self.watch = Stopwatch()
        self.domain = domains.create(config.domain, config.domain_section)
        mine = ranks.place(len(self.domain.regions), on_root=config.mode == "global")
        hosts = ranks.meet(config.silence)
        if hosts.index(ranks.host) == ranks.rank:  # the others of this machine find what it compiles
            rehearse(config, self.domain)
        ranks.barrier()
        self.failures = Failures(ranks.rank, ranks.pulse.beat)
        self.learners = Learners(config, self.domain, mine, self.failures)
        self.tables = joint.tables(config, self.domain)
        self.widths = joint.widths(self.tables)
        self.policies, self.predictors = [], []
        self.record = self.reporter = self.latest = None
        if ranks.is_root:
            self._take_charge(start, hosts)
        self.upkeep = Upkeep(
            start, ranks, self.learners, self.tables, deadline, wishes, self.record, self.reporter
        )

    def __enter__(self) -> System:
        return self

    def __exit__(self, *reason: object) -> None:
        """Give the terminal back, so that the traceback of a fault comes out below the progress."""
        if self.ranks.is_root:
            self.reporter.close()

    def begin(self) -> None:
        """Line 1: networks as they are initialised, which are evaluated, or as the checkpoint holds them."""
        self.upkeep.restore()
        self._gather_predictors()
        if self.upkeep.start.checkpoint:
            self._gather_policies()
        else:
            self.evaluate(env_steps=0, segment=0)
            self.upkeep.commit()

    def collect(self, segment: Segment) -> dict[int, Dataset]:
        """Line 3: root plays the joint policy on the global simulator; each rank gets its datasets."""
        config, episodes = self.config, self.config.dataset_episodes
        self._phase(f"collecting {config.dataset_size:,} samples per region")
        datasets = None
        if self.ranks.is_root:
            with self.watch("collect"), self.upkeep.pace("collect"):
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
        with self.upkeep.pace("fit"):
            with self.watch("influence"), self._dumping():
                fits = self.learners.fit(datasets, segment)
            self._gather_predictors()
        with self.watch("communicate"):
            rows = {i: np.array(fit) for i, fit in fits.items()}
            losses = self.ranks.gather(rows, len(Fit._fields), np.float64)
        if self.ranks.is_root:
            self.record.refresh(segment.first_update * self.config.ppo.memory_size, losses)
            means = ", ".join(
                f"{name} {mean:.3f}" for name, mean in zip(Fit._fields, losses.mean(axis=0), strict=True)
            )
            self._phase(f"cross-entropy of the predictors on held-out episodes: {means}")

    def train_policies(self, segment: Segment) -> None:
        """Lines 7 to 12: each rank trains the policies of its regions for one segment."""
        self._phase(f"training up to {segment.env_steps:,} steps per agent")
        with self.upkeep.pace("train"):
            with self.watch("train"), self._dumping():
                metrics = self.learners.train(segment)
            with self.watch("communicate"):
                rows = self.ranks.gather(metrics, len(TRAINING), np.float64)
        if self.ranks.is_root:
            self.record.training(segment.env_steps, rows)

    def evaluate(self, env_steps: int, segment: int) -> None:
        """Gather the policies; root plays and records them, and what the time and memory went into.

        segment: number of segments done, which keys the evaluation's random streams.
        """
        self._gather_policies()
        if self.ranks.is_root:
            with self.watch("evaluate"), self.upkeep.pace("evaluate"), self._dumping():
                self.latest = evaluate(
                    self.config,
                    self.domain,
                    self.policies,
                    self.predictors,
                    self.config.evaluation_episodes,
                    segment,
                    self.failures,
                )
                _require_finite(self.latest, segment)
            self.record.evaluation(env_steps, self.reporter.elapsed(), self.latest)
            self.reporter.evaluated(env_steps, self.latest)
        self._record_costs(env_steps)

    def must_stop_after(self, segment: Segment) -> bool:
        """Write down what the segment brought, in a checkpoint where one is due; whether to stop here.

        Root's clock and the signals to any rank decide; all ranks come to the same answer.
        """
        evaluation = self.latest if segment.evaluate else None
        return self.upkeep.must_stop_after(segment, evaluation.mean if evaluation else float("nan"))

    def finish(self) -> None:
        """Root stores the networks, compares with the policies that need no training, shows the table."""
        if self.ranks.is_root:
            run = self.record.run
            run.write_networks("policy", self.policy_parameters, self.tables["policy"])
            if self.predictors:
                run.write_networks("predictor", self.predictor_parameters, self.tables["predictor"])
            episodes = self.config.evaluation_episodes
            scripted = {
                name: evaluate_scripted(self.config, self.domain, name, episodes, failures=self.failures)
                for name in ("random", *self.domain.hand_coded)
            }
            self.record.references(scripted)
            run.write({}, finished=True)
            run.commit()
            trained = self.latest or self.record.last_evaluation()
            results = {"random": scripted.pop("random"), "trained": trained, **scripted}
            self.reporter.finish(results, self.domain.statistics, run.directory)
        self.ranks.barrier()

    def _take_charge(self, start: Start, hosts: list[str]) -> None:
        """What root has beside the other ranks: they have no use for it and save the memory."""
        from dials_mpi.progress import Reporter
        from dials_mpi.record import Record

        self.record = Record(self.directory, self.domain.statistics)
        self.reporter = Reporter(self.config, len(self.domain.regions), start.position.wall_time)
        for note in start.notes:
            self.reporter.say(note)
        LOG.info("%d ranks on %s", self.ranks.size, ", ".join(dict.fromkeys(hosts)))
        holders = [self.ranks.holder(region) for region in range(len(self.domain.regions))]
        self.record.session(hosts, holders, self.ranks.library)
        self.record.run.commit()

    def _gather_policies(self) -> None:
        with self.watch("communicate"):
            vectors = self.learners.policy_vectors()
            parameters = self.ranks.gather(vectors, self.widths["policy"], np.float32)
        if self.ranks.is_root:
            self.policy_parameters = parameters
            self.policies = joint.policies(self.config, self.domain, parameters)

    def _gather_predictors(self) -> None:
        if self.config.mode == "global":
            return
        with self.watch("communicate"):
            vectors = self.learners.predictor_vectors()
            parameters = self.ranks.gather(vectors, self.widths["predictor"], np.float32)
        if self.ranks.is_root:
            self.predictor_parameters = parameters
            self.predictors = joint.predictors(self.config, self.domain, parameters)

    def _record_costs(self, env_steps: int) -> None:
        seconds = self.ranks.gather_by_rank(self.watch.take().ravel())
        others = self.ranks.gather_by_rank(np.array([*memory(), self.failures.take()]))
        if self.ranks.is_root:
            by_phase = seconds.reshape(self.ranks.size, len(PHASES), 2)
            self.record.costs(env_steps, by_phase, others[:, :2], others[:, 2])

    @contextmanager
    def _dumping(self) -> Iterator[None]:
        """Where a number is not finite, what led there is kept for inspection."""
        try:
            yield
        except NonFinite as fault:
            from dials_mpi.storage.dump import dump

            try:
                where = f"is in {dump(self.directory, fault.name, str(fault), fault.arrays)}"
            except Unwritable as full:
                where = f"is lost: {full}"
            raise FloatingPointError(f"{fault}; what led there {where}") from None

    def _phase(self, text: str) -> None:
        if self.ranks.is_root:
            self.reporter.phase(text)


def _require_finite(evaluation: Evaluation, segment: int) -> None:
    """NonFinite: a return or a cross-entropy is not. segment: number of segments done."""
    found = {"return": evaluation.returns}
    if evaluation.cross_entropy is not None:
        found["cross-entropy"] = evaluation.cross_entropy[None]
    for name, values in found.items():
        for region in np.flatnonzero(~np.isfinite(values).all(axis=0)):
            last = max(segment - 1, 0)  # the segment behind which the evaluation comes
            raise NonFinite(int(region), last, f"{name} in the evaluation", found)
