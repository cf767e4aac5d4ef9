"""The networked system in training: what every rank does in each line of Algorithm 1.

All ranks call each method, in the same order. The global ranks, root among them, collect and evaluate; the
ranks that hold regions fit and train; root writes. Ranks exchange data at the beginning or end of a method.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from dials_mpi import domains
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.learners import Learners, NonFinite, training_figures
from dials_mpi.config.schedule import Segment, evaluates, segments
from dials_mpi.core import signals
from dials_mpi.core.errors import Unwritable
from dials_mpi.core.jit import processor
from dials_mpi.core.logging import LOG
from dials_mpi.core.provenance import PROCESSORS, differences, libraries, memory
from dials_mpi.core.timing import PHASES, Stopwatch
from dials_mpi.domains.members import OWNERS
from dials_mpi.learning import devices
from dials_mpi.learning.influence import Fit
from dials_mpi.learning.tables import tables, widths
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.parallel.layout import AGENT, REGION, Layout
from dials_mpi.run.checkpointing import CheckpointManager
from dials_mpi.run.collection import Collection
from dials_mpi.run.costs import UnrecordedCosts
from dials_mpi.run.datasets import DatasetStore, Refit
from dials_mpi.run.global_ranks import GlobalRank
from dials_mpi.run.session import SessionStart
from dials_mpi.run.sharing import GradientExchange
from dials_mpi.run.sinks.base import SegmentEnd, Session, Sink, Sinks
from dials_mpi.run.state import RankState
from dials_mpi.run.state_exchange import StateExchange
from dials_mpi.run.walltime import Deadline
from dials_mpi.run.warm_up import warm_up_together

T = TypeVar("T")


class System:
    """One rank's part of the system; global ranks also have the joint policy, root the sinks."""

    def __init__(
        self,
        start: SessionStart,
        comm: Communicator,
        deadline: Deadline,
        callbacks: Sequence[Sink] = (),
        quiet: bool = False,
    ) -> None:
        """callbacks: further sinks; root alone calls them. quiet: without the console."""
        config = start.config
        self.config, self.comm, self.directory = config, comm, start.directory
        self.watch = Stopwatch()
        self.domain = domains.create(config.domain, config.domain_section)
        agents = [region.agents for region in self.domain.regions]
        self.layout = Layout(comm.rank, comm.size, agents, config.mode == "global", config.global_ranks)
        hosts = comm.exchange_hosts(config.silence)
        own = {PROCESSORS: processor(), **libraries()}
        platform = {name: comm.allgather_names(value) for name, value in own.items()}
        devices.choose(devices.Device(config.learning.device, hosts[: comm.rank].count(comm.host)))
        self.failures = Failures(comm.rank, comm.heartbeat.beat)
        held = self.layout.owned[REGION]
        gradients = GradientExchange(comm, held, self.watch) if config.shared else None
        self.learners = Learners(config, self.domain, self.layout.regions, self.failures, gradients)
        self.state = RankState(self.learners, UnrecordedCosts(self.watch, self.failures))
        self.tables = tables(config, self.domain)
        self.widths = widths(self.tables)
        self.global_rank = GlobalRank(config, self.domain, comm, self.layout, self.watch, self.failures)
        division = self.global_rank.division
        recorded = division.recorded(division.played(config.dataset_episodes))
        self.store = DatasetStore(config, self.domain, Path(start.directory), comm.rank, recorded)
        playing = comm, self.layout, self.watch, self.global_rank, self.store
        self.collection = Collection(config, self.domain, *playing, self._exchange)
        self.latest: Evaluation | None = None
        self.refitted = True  # since the predictors were last sent to the global ranks
        opened = (start, hosts, platform, callbacks, quiet)
        self.sinks = self._open_sinks(*opened) if comm.is_root else Sinks()
        self.global_rank.keeps_policies = comm.broadcast(self.sinks.needs_policies)
        warm_up_together(comm, hosts, config, self.domain)
        exchange = StateExchange(comm, self.layout, self.state)
        self.checkpoints = CheckpointManager(start, self.domain, exchange, deadline, self.sinks)

    def __enter__(self) -> System:
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the sinks; the console restores the terminal, so that a traceback is printed below it."""
        self.sinks.close()

    def begin(self) -> None:
        """Line 1: the networks as initialised, which are evaluated, or as the checkpoint holds them."""
        self.checkpoints.restore()
        if self.checkpoints.next_refit_is_overdue():
            self._gather("policy", self.state.earlier)
            self._collect_ahead(self.checkpoints.start.progress.segments)
        self._gather_networks()
        if not self.checkpoints.start.checkpoint and not self.config.overlapped:
            self._play_evaluation(env_steps=0, segments=0)
            self._record_costs(env_steps=0)
            self.checkpoints.commit()

    def collect(self, segment: Segment) -> dict[int, Dataset]:
        """Line 3: the joint policy plays on the global simulators; each rank gets its regions' datasets.

        In the schedule overlapped it has played during the segment before, except for the first segment.
        """
        if self.collection.is_ahead:
            return self.collection.datasets(self._refit(segment))
        self._phase(f"collecting {self.config.dataset_size:,} samples per region")
        with self.checkpoints.pace("collect"):
            return self.collection.datasets(self._refit(segment))

    def fit_predictors(self, datasets: dict[int, Dataset], segment: Segment) -> None:
        """Lines 4 to 6: each rank trains the predictors of its regions; root records their losses."""
        self._phase("fitting the influence predictors")
        self.refitted = True
        with self.checkpoints.pace("fit"):
            fits = self._fit(datasets, segment)
            with self._exchange():
                rows = {k: np.array(fit) for k, fit in fits.items()}
                losses = self.comm.gather_few(rows, self.layout.owned[REGION], len(Fit._fields), np.float64)
        if losses is not None:
            self.store.join(self._start(segment))
            self.sinks.fit(self._start(segment), self.sinks.elapsed(), Fit._fields, losses)

    def _fit(self, datasets: dict[int, Dataset], segment: Segment) -> dict[int, Fit]:
        """This rank's predictors; those that others start from come first, on all ranks."""
        starts = self.learners.starts_from(segment)
        first = {start for k, start in enumerate(starts) if start != k}
        early = [k for k in self.learners.regions if k in first]
        rest = [k for k in self.learners.regions if k not in first]
        with self.watch("influence"), self._dumping():
            fits = self.learners.fit(datasets, segment, early)
        if first:
            self._start_predictors(sorted(first), starts)
        with self.watch("influence"), self._dumping():
            return fits | self.learners.fit(datasets, segment, rest)

    def _start_predictors(self, first: list[int], starts: list[int]) -> None:
        """Every rank gets the parameters of the regions ``first``; its other predictors start from them."""
        own, row = self.learners.predictors, {k: place for place, k in enumerate(first)}
        held = [[row[k] for k in owned if k in row] for owned in self.layout.owned[REGION]]
        with self._exchange():
            rows = {row[k]: own[k].vector for k in own if k in row}
            table = self.comm.broadcast(self.comm.gather(rows, held, self.widths["predictor"], np.float32))
        for k, predictor in own.items():
            if starts[k] != k:
                predictor.vector[:] = table[row[starts[k]]][: predictor.vector.size]

    def play_ahead(self, segment: Segment) -> None:
        """In the schedule overlapped: while the other ranks train, the global ranks evaluate the joint policy
        with which the segment starts, and collect the datasets for the refit before the next segment."""
        if not self.config.overlapped:
            return
        if evaluates(self.config, segment.index):
            self._play_evaluation(self._start(segment), segment.index)
        following = self.checkpoints.segments.get(segment.index + 1)
        if following and following.refit:
            self._collect_ahead(following.index)

    def train_policies(self, segment: Segment) -> None:
        """Lines 7 to 12: each rank trains the policies of its regions for one segment."""
        self._phase(f"training up to {segment.env_steps:,} steps per agent")
        ahead = self.checkpoints.collects_ahead(segment.index + 1)
        vectors = self.learners.vectors("policy")
        self.state.earlier = {i: vector.copy() for i, vector in vectors.items()} if ahead else {}
        begun = time.monotonic()
        with self.watch("train"), self._dumping():
            metrics = self.learners.train(segment)
        milliseconds = round(1000 * (time.monotonic() - begun))
        with self.watch("wait"):
            slowest = self.comm.allreduce_max(milliseconds)
        self.checkpoints.pace.note("train", slowest / 1000)
        with self.watch("communicate"):
            figures = training_figures(self.config)
            rows = self.comm.gather_few(metrics, self.layout.owned[AGENT], len(figures), np.float64)
        if rows is not None:
            self.sinks.training(segment.env_steps, self.sinks.elapsed(), figures, rows)

    def evaluate(self, segment: Segment) -> None:
        """Send the networks to the global ranks, which evaluate them where the segment ends with that.

        In the schedule overlapped they do so while the next segment trains; this method then records the
        costs of the evaluation before.
        """
        if self.config.overlapped:
            self._gather_networks()
            if evaluates(self.config, segment.index):
                self._record_costs(self._start(segment))
        elif segment.evaluate:
            self._gather_networks()
            self._play_evaluation(segment.env_steps, segment.index + 1)
            self._record_costs(segment.env_steps)

    def must_stop_after(self, segment: Segment) -> bool:
        """Write a checkpoint if one is due; whether to stop here, the same on all ranks.

        Root's clock, root's sinks and the signals to any rank decide.
        """
        if self.comm.is_root:
            self._end_segment(segment)
        return self.checkpoints.must_stop_after(segment)

    def finish(self) -> None:
        """Root stores the networks, evaluates the policies that need no training, and shows the table.

        They play the episodes of the last evaluation.
        """
        last = segments(self.config)[-1]
        if self.config.overlapped:
            self._play_evaluation(last.env_steps, last.index + 1)
            self._record_costs(last.env_steps)
        names = ("random", *self.domain.hand_coded) if self.layout.is_global else ()
        if names:
            self._phase("playing the policies that need no training")
        found = {name: self.global_rank.evaluate_scripted(name, last.index + 1) for name in names}
        scripted = {name: result for name, result in found.items() if result is not None}
        for kind in self.tables:
            parameters = self._rows(kind, self.learners.vectors(kind))
            if parameters is not None:
                self.sinks.run_file.run.write_networks(kind, parameters, self.tables[kind])
        if self.comm.is_root:
            trained = self.latest or self.sinks.run_file.last_evaluation()
            self.sinks.references(trained, scripted)
            self.sinks.flush()
        self.comm.barrier()

    def _open_sinks(
        self,
        start: SessionStart,
        hosts: list[str],
        platform: Mapping[str, list[str]],
        callbacks: Sequence[Sink],
        quiet: bool,
    ) -> Sinks:
        """Root's sinks, after their call of ``session``."""
        from dials_mpi.run.sinks import registry  # other ranks do not load them, and save the memory
        from dials_mpi.run.sinks.console import ConsoleSink
        from dials_mpi.run.sinks.run_file import RunFileSink

        run_file = RunFileSink(self.directory, self.domain.statistics)
        here, earlier = run_file.run.provenance()
        notes = (*start.notes, *differences({**here, **platform}, earlier, self.config.built_in))
        console = [] if quiet else [ConsoleSink()]
        others = [*console, *registry.create(self.config.sinks), *callbacks]
        sinks = Sinks(run_file, others, start.progress.wall_time)
        sinks.session(self._session(start, hosts, platform))
        for note in notes:
            sinks.message(note)
        LOG.info("%d ranks on %s", self.comm.size, ", ".join(dict.fromkeys(hosts)))
        sinks.flush()
        return sinks

    def _session(self, start: SessionStart, hosts: list[str], platform: Mapping[str, list[str]]) -> Session:
        region_of = {i: k for k, region in enumerate(self.domain.regions) for i in region.agents}
        return Session(
            directory=Path(self.directory),
            config=self.config,
            region_of=[region_of[i] for i in range(len(region_of))],
            statistics=self.domain.statistics,
            env_steps=start.progress.env_steps,
            wall_time=start.progress.wall_time,
            continued=start.continued,
            hosts=hosts,
            platform=platform,
            owners=self.layout.region_ranks,
            agent_names=_of_all(agent.name for agent in self.domain.agents),
            positions=_of_all(agent.position for agent in self.domain.agents),
        )

    def _end_segment(self, segment: Segment) -> None:
        """Root: the sinks write what they have; a callback may request a stop."""
        self.sinks.flush()
        policies = self.global_rank.all_policies
        end = SegmentEnd(segment.index, segment.env_steps, self.sinks.elapsed(), self.latest, policies)
        self.sinks.on_segment_end(end)
        if end.stop_requested:
            signals.request_stop()

    def _collect_ahead(self, index: int) -> None:
        """For the refit before segment ``index``, while or after the other ranks train."""
        self._phase(f"collecting {self.config.dataset_size:,} samples per region")
        with self.checkpoints.pace("collect"):
            self.collection.play_ahead(index)

    def _play_evaluation(self, env_steps: int, segments: int) -> None:
        """The global ranks evaluate the joint policy; root records the result.

        segments: number of segments done; the evaluation's random streams depend on it.
        """
        if not self.layout.is_global:
            return
        with self.checkpoints.pace("evaluate"), self._dumping():
            self.latest = self.global_rank.evaluate(segments)
            if self.latest is not None:
                _require_finite(self.latest, segments)
        if self.latest is not None:
            self.sinks.evaluation(env_steps, self.sinks.elapsed(), self.latest)

    def _refit(self, segment: Segment) -> Refit:
        """The refit before a segment, and the joint policy that plays for it."""
        older = self.config.overlapped and segment.index > 0
        policy = segments(self.config)[segment.index - older]
        return Refit(segment.index, self._start(segment), self._start(policy))

    def _start(self, segment: Segment) -> int:
        """Steps per agent done before a segment."""
        return segment.first_update * self.config.ppo.memory_size

    def _gather_networks(self) -> None:
        """Send the networks as they are now to the global ranks; predictors if they were fitted since."""
        for kind in self.tables:
            if kind == "policy" or self.refitted:
                self._gather(kind, self.learners.vectors(kind))
        self.refitted = False

    def _gather(self, kind: str, vectors: Mapping[int, np.ndarray]) -> None:
        """Send the parameters of one kind of network to the global ranks that compute with them.

        vectors: of this rank's owners.
        """
        parameters = self._rows(kind, vectors, self.global_rank.wanted(kind))
        if parameters is not None:
            self.global_rank.set_parameters(kind, parameters)

    def _rows(
        self, kind: str, vectors: Mapping[int, np.ndarray], wanted: Sequence[range] | None = None
    ) -> np.ndarray | None:
        """Parameters on the first ranks, see ``Communicator.gather``; vectors: of this rank's owners."""
        with self._exchange():
            return self.comm.gather(
                vectors, self.layout.owned[OWNERS[kind]], self.widths[kind], np.float32, wanted
            )

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Count the time inside as communication, and the time until all ranks are here as waiting."""
        with self.watch("wait"):
            self.comm.barrier()
        with self.watch("communicate"):
            yield

    def _record_costs(self, env_steps: int) -> None:
        with self.watch("wait"):
            self.comm.barrier()  # ranks that have not played wait for those that play
        own = [*self.watch.take().ravel(), *memory(), self.failures.take()]
        rows = self.comm.gather_by_rank(np.array(own))
        if rows is not None:
            seconds, others = np.hsplit(rows, [2 * len(PHASES)])
            by_phase = seconds.reshape(self.comm.size, len(PHASES), 2)
            self.sinks.costs(env_steps, self.sinks.elapsed(), PHASES, by_phase, others[:, :2], others[:, 2])

    @contextmanager
    def _dumping(self) -> Iterator[None]:
        """If a number is not finite, write what led to it to a file, and end the run."""
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
        self.sinks.phase(self.sinks.elapsed(), text)


def _require_finite(evaluation: Evaluation, segment: int) -> None:
    """NonFinite: a return or a cross-entropy is not finite. segment: number of segments done."""
    found = {"return": evaluation.returns}
    if evaluation.cross_entropy is not None:
        found["cross-entropy"] = evaluation.cross_entropy[None]
    for name, values in found.items():
        for number in np.flatnonzero(~np.isfinite(values).all(axis=0)):
            last = max(segment - 1, 0)  # the evaluation follows this segment
            owner = f"{'agent' if name == 'return' else 'region'} {number}"
            raise NonFinite(owner, last, f"{name} in the evaluation", found)


def _of_all(values: Iterable[T | None]) -> list[T]:
    """The values, if each agent has one, or else none."""
    found = list(values)
    known = [value for value in found if value]
    return known if len(known) == len(found) else []
