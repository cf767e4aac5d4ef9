"""What a run will need: time, memory and disk, on any number of ranks; and which schedule suits it.

Times are those of the projection; memory comes from the same measurements; sizes on disk are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.division import Division
from dials_mpi.bench.link import Link
from dials_mpi.bench.memory import ACT, Growth
from dials_mpi.bench.playing import Playing
from dials_mpi.bench.projection import ALONE, Model, checkpoints, most_episodes, project
from dials_mpi.bench.sample import Sample
from dials_mpi.config import Config
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.timing import PHASES
from dials_mpi.domains import create
from dials_mpi.parallel.layout import require_usable

CLOSE = 1.1
"""Schedules whose times differ by less than this factor are equally good; the simplest one is suggested."""

GLOBAL_RANKS = (1, 2, 4, 8, 16, 32)
"""Numbers of global ranks that are compared."""


SMALLEST_FILE = 2e5
"""Bytes of a run file's groups, names and first, unfilled chunks."""


class Memory(NamedTuple):
    """Peak resident sets, bytes: of root and each other global rank, with all networks; of the worker with
    the most regions; of the node with the most, where libraries count once."""

    root: float
    worker: float
    node: float


class Disk(NamedTuple):
    """Bytes: the run file, all checkpoints that are kept, and at most the datasets that are kept, which are
    compressed."""

    run_file: float
    checkpoints: float
    datasets: float


@dataclass(frozen=True)
class Plan:
    """One configuration on so many ranks and nodes, with one core per rank.

    factor: of the number of regions; the costs are those of the measured number. playing: what ranks share
    that share the agents of an episode.
    """

    config: Config
    sample: Sample
    checkpoint: float
    link: Link
    ranks: int
    nodes: int = 1
    factor: int = 1
    playing: Playing = ALONE

    @cached_property
    def regions(self) -> int:
        """The number of regions."""
        return self.factor * self.sample.costs.regions

    @property
    def alone(self) -> bool:
        """Whether one rank does all the work."""
        return self.ranks == 1 or self.config.mode == "global"

    @property
    def workers(self) -> int:
        """Ranks that train and play no global simulator; 0 if one rank does all."""
        return 0 if self.alone else min(self.regions, self.ranks - self.config.global_ranks)

    @property
    def held(self) -> int:
        """The most regions on a rank."""
        return -(-self.regions // max(1, self.workers))

    @cached_property
    def terms(self) -> dict[str, float]:
        """Seconds of the whole run by ``projection.TERMS``."""
        config = replace(self.config, global_ranks=1) if self.alone else self.config
        model = Model.of(config, [self.sample.costs], self.checkpoint, self.link, self.playing)
        return project(config, model, self.regions, self.workers)

    @property
    def hours(self) -> float:
        """Wall-clock hours of the whole run."""
        return sum(self.terms.values()) / 3600

    @property
    def core_hours(self) -> float:
        """Hours of all cores, which are as many as ranks."""
        return self.hours * self.ranks

    @property
    def segment(self) -> float:
        """Mean seconds of a segment."""
        return self.hours * 3600 / len(segments(self.config))

    @cached_property
    def memory(self) -> Memory:
        """See ``Memory``; the global ranks and the first workers share the first node."""
        sample, grows, every = self.sample, self.grows, range(self.sample.costs.regions)
        share = self.held / len(every)
        trained = max(sample.worker.each * self.held, share * grows.learners(every))
        data = share * grows.datasets(every)
        worker = sample.worker.fixed + trained + data + share * grows.sent(every)
        played = sample.root.each * self.regions + self.factor * grows.collected()
        root = sample.root.fixed + max(played, self.factor * grows.root())
        if self.alone:
            both = sample.root.fixed + max(played + trained + data, self.factor * grows.alone())
            return Memory(both, both, both)
        per_node = -(-self.ranks // self.nodes)
        playing = min(self.config.global_ranks, per_node)
        others = per_node - playing
        node = playing * (root - sample.shared) + others * (worker - sample.shared) + sample.shared
        return Memory(root, worker, node)

    @cached_property
    def grows(self) -> Growth:
        """The memory that is computed, for the measured number of regions."""
        config = replace(self.config, global_ranks=1) if self.alone else self.config
        return Growth(config, self._domain, has_workers=not self.alone)

    @cached_property
    def disk(self) -> Disk:
        """See ``Disk``."""
        return Disk(self._run_file(), self._checkpoint_bytes() * self._kept_checkpoints(), self._datasets())

    def _datasets(self) -> float:
        refits = sum(segment.refit for segment in segments(self.config))
        kept = {"none": 0, "last": min(1, refits), "all": refits}[self.config.datasets]
        acts = ACT * self.config.dataset_size * len(self._domain.agents)
        return kept * self.factor * (self.grows.recorded(self.config.dataset_episodes) + acts)

    def _checkpoint_bytes(self) -> float:
        from dials_mpi.run.state import datasets, entries

        kept = [entry for entry in entries(self.config, self._domain) if entry.kept(0)]
        rows = datasets(kept, self._domain, self.ranks)
        sizes = (np.dtype(row.dtype).itemsize * row.width * (row.count or 0) for row in rows)
        return float(self.factor * sum(sizes))

    def _kept_checkpoints(self) -> int:
        """The newest ones, and the best."""
        return min(checkpoints(self.config, segments(self.config)), self.config.checkpoint_keep + 1)

    def _run_file(self) -> float:
        """Returns, costs and figures of training, and the networks at the end."""
        from dials_mpi.algorithm.learners import training_figures
        from dials_mpi.learning.influence import Fit
        from dials_mpi.learning.tables import tables, widths

        domain, config, schedule = self._domain, self.config, segments(self.config)
        agents, regions = len(domain.agents), len(domain.regions)
        evaluations = 1 + sum(segment.evaluate for segment in schedule)
        refits = sum(segment.refit for segment in schedule)
        names = tables(config, domain)
        networks = sum(4 * len(names[kind]) * width for kind, width in widths(names).items())
        rows = len(schedule) * agents * len(training_figures(config)) + refits * regions * len(Fit._fields)
        playing = evaluations + 1 + len(domain.hand_coded)
        rows += playing * (config.evaluation_episodes * agents + regions)
        costs = evaluations * self.ranks * (2 * len(PHASES) + 1)
        return SMALLEST_FILE + 8.0 * (self.factor * rows + costs) + self.factor * networks

    @cached_property
    def _domain(self):
        return create(self.config.domain, self.config.domain_section)


def usual_ranks(config: Config, given: int | None) -> int:
    """The number of ranks that is given, or one for each region and each global rank.

    BadInput: so many cannot be used.
    """
    if given is not None and given < 1:
        raise BadInput(f"--ranks is {given}: give at least 1")
    if config.mode == "global":
        if given not in (None, 1):
            raise BadInput(f"--ranks is {given}, and mode=global trains on one rank: give 1, or leave it out")
        return 1
    regions = len(create(config.domain, config.domain_section).regions)
    ranks = given or regions + config.global_ranks
    require_usable(ranks, regions, config.global_ranks)
    return ranks


def choices(plan: Plan, fixed: bool) -> list[Plan]:
    """The same work in both schedules with several numbers of global ranks; fixed: on as many ranks."""
    if plan.alone:
        return [plan]
    found = []
    for schedule in ("synchronous", "overlapped"):
        for number in _numbers(plan):
            config = replace(plan.config, schedule=schedule, global_ranks=number)
            ranks = plan.ranks if fixed else plan.regions + number
            if number < ranks <= plan.regions + number:
                found.append(replace(plan, config=config, ranks=ranks))
    return found


def _numbers(plan: Plan) -> Iterator[int]:
    """Numbers of global ranks, as long as more of them have less work each; the configured one, too."""
    before = None
    for number in sorted({*GLOBAL_RANKS, plan.config.global_ranks}):
        each = _most_work(replace(plan.config, global_ranks=number))
        if each != before or number == plan.config.global_ranks:
            yield number
        before = each


def _most_work(config: Config) -> tuple[float, ...]:
    """Episodes that one of the global ranks collects and evaluates, and its part of the agents."""
    division = Division(config, create(config.domain, config.domain_section), config.global_ranks)
    numbers = config.dataset_episodes, config.evaluation_episodes
    members = min(len(group) for group in division.groups)
    return *(float(most_episodes(config, number)) for number in numbers), 1 / members


def suggested(found: Sequence[Plan]) -> Plan:
    """Of the plans whose time is close to the least the one with the fewest global ranks, or synchronous."""
    least = min(each.hours for each in found)
    close = [each for each in found if each.hours <= CLOSE * least]
    return min(close, key=lambda each: (each.config.global_ranks, each.config.overlapped))


def doubled(plan: Plan) -> Mapping[str, Plan]:
    """The plan, and with twice as much of one thing, by its name; twice the regions have twice as many
    workers."""
    config = plan.config
    more = 0 if plan.alone else plan.workers
    found = {"as planned": plan, "regions": replace(plan, factor=2 * plan.factor, ranks=plan.ranks + more)}
    for key in ("total_steps", "evaluation_episodes", "dataset_size"):
        found[key] = replace(plan, config=replace(config, **{key: 2 * getattr(config, key)}))
    return found
