"""Projected wall-clock time of a run with one core per rank, for any number of regions.

It is the time of the slowest worker, of the global ranks' work while workers wait, and of the exchanges
(Algorithm 1). Each worker holds one region, so only the other two grow with the number of regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.bench.costs import Costs, Recorded
from dials_mpi.bench.flop import fit_flop
from dials_mpi.bench.link import Link
from dials_mpi.bench.playing import Playing
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, segments
from dials_mpi.core.timing import PHASES
from dials_mpi.domains import create
from dials_mpi.parallel.communicator import POLL_SECONDS

if TYPE_CHECKING:
    from dials_mpi.algorithm.division import Division

REGIONS = (4, 25, 49, 100, 400, 1024, 10_000)

GLOBAL_RANKS = (1, 4, 8, 16, 32, 64, 128)
"""Numbers of global ranks for which the exposed time is projected."""

BYTES_PER_ACTION = 2

ALONE = Playing()

TERMS = ("train", "fit", "collect", "evaluate", "communicate", "checkpoint")
"""The parts of a run's wall-clock time: train and fit of the slowest worker; collecting and evaluating of the
slowest global rank, without the time during training; exchanges; gathering and writing checkpoints on
root."""


class Line(NamedTuple):
    """A cost that grows with the number of regions: a fixed part, and a part of each."""

    fixed: float
    each: float

    def __call__(self, regions: int) -> float:
        """The cost for this number of regions."""
        return self.fixed + self.each * regions

    @classmethod
    def through(cls, points: Mapping[int, float]) -> Line:
        """The least-squares line through costs by number of regions.

        With one point, or if the fixed part is negative: proportional to the largest number of regions.
        """
        regions, costs = list(points), list(points.values())
        if len(points) > 1:
            each, fixed = np.polyfit(regions, costs, 1)
            if fixed >= 0:
                return cls(float(fixed), float(each))
        return cls(0.0, points[max(regions)] / max(regions))


@dataclass(frozen=True)
class Model:
    """Costs of a run in seconds.

    train, per step, and fit, per refit: of one region on the slowest worker. collect, per refit, and
    evaluate, each time: all regions, on the slowest global rank. checkpoint: of one region in a file.
    """

    train: float
    fit: float
    collect: Line
    evaluate: Line
    checkpoint: float
    link: Link

    @classmethod
    def of(
        cls, config: Config, costs: Sequence[Costs], checkpoint: float, link: Link, playing: Playing = ALONE
    ) -> Model:
        """From the costs of one or more systems: the slowest worker of all, and lines for the global ranks.

        Their costs are those of one rank that plays all episodes.
        """
        from dials_mpi.algorithm.division import Division

        division = Division(config, create(config.domain, config.domain_section), config.global_ranks)

        def line(name: str, episodes: int) -> Line:
            sizes = {one.regions for one in costs}
            means = {size: np.mean([getattr(c, name) for c in costs if c.regions == size]) for size in sizes}
            one = Line.through({size: float(mean) for size, mean in means.items()})
            return _on_slowest(division, one, episodes, playing, link)

        return cls(
            train=max(one.train for one in costs),
            fit=max(one.fit for one in costs) * fit_flop(config),
            collect=line("collect", config.dataset_episodes),
            evaluate=line("evaluate", config.evaluation_episodes),
            checkpoint=checkpoint,
            link=link,
        )


def _on_slowest(division: Division, one: Line, episodes: int, playing: Playing, link: Link) -> Line:
    """The cost of so many episodes on the slowest global rank; one: of each of them on one rank alone.

    The ranks of a group all simulate, and share the rest; they exchange the actions of every decision.
    """
    from dials_mpi.algorithm.collect import parts
    from dials_mpi.domains.decisions import decisions_per_episode

    domain = division.domain
    played = [share.stop - share.start for share in division.of_groups(episodes)]
    share, members = max(
        (count / len(group), len(group)) for count, group in zip(played, division.groups, strict=True)
    )
    count = round(share * members)

    def passes(number: int) -> float:
        return number + playing.once * len(parts(domain, number))

    networks = max(0.0, one.each - playing.simulation) * episodes / passes(episodes)
    line = Line(count * one.fixed, count * playing.simulation + networks * passes(count) / members)
    if members == 1:
        return line
    decisions = decisions_per_episode(domain)
    exchanges = decisions * len(parts(domain, count)) * ceil(log2(members)) * link.seconds_per_message
    actions = count * decisions * BYTES_PER_ACTION * len(domain.agents) / len(domain.regions)
    return Line(line.fixed + exchanges, line.each + actions / link.bytes_per_second)


def most_episodes(config: Config, episodes: int) -> int:
    """The most episodes that one of the global ranks plays: they are dealt out in blocks."""
    from dials_mpi.algorithm.division import Division

    division = Division(config, create(config.domain, config.domain_section), config.global_ranks)
    return max(share.stop - share.start for share in division.of_groups(episodes))


def exposed(
    config: Config, costs: Sequence[Costs], link: Link, playing: Playing, regions: int
) -> dict[int, float]:
    """The time that is neither training nor checkpoints, as a share of training, by GLOBAL_RANKS, in the
    schedule overlapped."""
    found = {}
    for number in GLOBAL_RANKS:
        other = replace(config, schedule="overlapped", global_ranks=number)
        terms = project(other, Model.of(other, costs, 0.0, link, playing), regions)
        beside = sum(terms[name] for name in TERMS if name not in ("train", "checkpoint"))
        found[number] = beside / terms["train"]
    return found


def project(config: Config, model: Model, regions: int, workers: int | None = None) -> dict[str, float]:
    """Seconds of the whole run by TERMS.

    workers: one for each region by default; 0: a single rank, which also does the work of root.
    """
    held = -(-regions // (regions if workers is None else workers or 1))  # by a worker
    hidden = config.overlapped and workers != 0
    terms = _terms(config, model, regions, segments(config), held, hidden)
    # At the end the policies that need no training are played, and root gathers all networks.
    references = 1 + len(create(config.domain, config.domain_section).hand_coded)
    exchanges, sizes = Exchanges(model.link, regions, -(-regions // held)), Sizes.of(config)
    gathered = exchanges.direct(sizes.policies) + exchanges.direct(sizes.predictor)
    return terms | {
        "evaluate": terms["evaluate"] + references * model.evaluate(regions),
        "communicate": terms["communicate"] + gathered,
    }


def compare(
    run: Recorded, costs: Sequence[Costs], checkpoint: float, link: Link, playing: Playing = ALONE
) -> dict[str, tuple[float, float]]:
    """Projected and measured seconds by term of a recorded run, up to its last evaluation.

    The other arguments: as of ``Model.of``. Terms are the full work, also that during training; checkpoints
    are not recorded separately. ``wall``: the projected and measured wall-clock time, comparable if each rank
    had its own core.
    """
    config, regions = run.config, run.costs.regions
    model = Model.of(config, costs, checkpoint, link, playing)
    schedule = [segment for segment in segments(config) if segment.env_steps <= run.steps]
    plain, real = (
        _terms(config, model, regions, schedule, run.held, hidden)
        for hidden in (False, config.overlapped and run.held < regions)
    )
    terms = {term: (plain[term], measured) for term, measured in run.seconds.items()}
    return {**terms, "wall": (sum(real.values()), run.wall)}


def growing(rows: Mapping[int, Mapping[str, float]]) -> str:
    """The term that grows most from the fewest regions to the most; rows: TERMS by number of regions."""
    few, many = rows[min(rows)], rows[max(rows)]
    return max(TERMS, key=lambda term: many[term] - few[term])


def _terms(
    config: Config, model: Model, regions: int, schedule: Sequence[Segment], held: int, hidden: bool
) -> dict[str, float]:
    """Seconds by TERMS of these segments, with ``held`` regions on each worker.

    hidden: root collects and evaluates while the workers train.
    """
    training = [held * model.train * segment.updates * config.ppo.memory_size for segment in schedule]
    refits = sum(segment.refit for segment in schedule)
    collecting, evaluating = model.collect(regions), model.evaluate(regions)
    if hidden:
        collecting, evaluating = _exposed(schedule, training, collecting, evaluating)
    else:
        collecting *= refits
        evaluating *= 1 + sum(segment.evaluate for segment in schedule)
    exchanges, sizes = Exchanges(model.link, regions, -(-regions // held)), Sizes.of(config)
    return {
        "train": sum(training),
        "fit": held * refits * model.fit,
        "collect": collecting,
        "evaluate": evaluating,
        "communicate": _exchanges(config, schedule, exchanges),
        "checkpoint": checkpoints(config, schedule)
        * (model.checkpoint * regions + exchanges.direct(sizes.checkpoint)),
    }


def _exposed(
    schedule: Sequence[Segment], training: Sequence[float], collect: float, evaluate: float
) -> tuple[float, float]:
    """Seconds of collecting and of evaluating that are not during training.

    During the training of a segment, root evaluates the policies of its beginning, and collects for a refit
    at its end. The first collection and the last evaluation are never during training.
    """
    collecting = collect if schedule[0].refit else 0.0
    evaluating = evaluate if schedule[-1].evaluate else 0.0
    due = True  # the evaluation before any training
    for k, (segment, hiding) in enumerate(zip(schedule, training, strict=True)):
        following = schedule[k + 1] if k + 1 < len(schedule) else None
        now = (collect if following and following.refit else 0.0, evaluate if due else 0.0)
        if sum(now):
            share = max(0.0, 1 - hiding / sum(now))
            collecting, evaluating = collecting + share * now[0], evaluating + share * now[1]
        due = segment.evaluate
    return collecting, evaluating


class Exchanges(NamedTuple):
    """Seconds of an exchange between root, or another rank, and all workers: bytes, messages, and a poll
    interval."""

    link: Link
    regions: int
    workers: int

    def direct(self, size: float, part: float = 1.0) -> float:
        """One message for each worker; size: bytes for each region. part: of the regions and the workers."""
        messages = part * self.workers * self.link.seconds_per_message
        return POLL_SECONDS + messages + part * self.regions * size / self.link.bytes_per_second

    def tree(self, size: float) -> float:
        """Messages that are joined on their way to root."""
        rounds = ceil(log2(self.workers + 1))
        sent = self.regions * size / self.link.bytes_per_second
        return POLL_SECONDS + rounds * self.link.seconds_per_message + sent


class Sizes(NamedTuple):
    """Bytes for each region, the largest one; costs: for each worker."""

    metrics: float
    costs: float
    policies: float
    predictor: float
    dataset: float
    losses: float
    checkpoint: float

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """Those of a configuration."""
        from dials_mpi.algorithm.learners import training_figures
        from dials_mpi.domains.members import Members
        from dials_mpi.learning import tables
        from dials_mpi.learning.influence import Fit
        from dials_mpi.run.state import entries

        domain = create(config.domain, config.domain_section)
        widths = tables.widths(tables.tables(config, domain))
        region, agents = domain.regions[0], Members(domain.regions).largest
        owners = {"agent": agents, "region": 1}
        sample = region.input_size * np.dtype(region.input_type).itemsize + len(region.source_classes)
        kept = [entry for entry in entries(config, domain) if entry.kept(0)]
        return cls(
            metrics=agents * 8 * len(training_figures(config)),
            costs=8 * (2 * len(PHASES) + 3),
            policies=4 * agents * widths["policy"],
            predictor=4 * widths.get("predictor", 0),
            dataset=config.dataset_size * sample,
            losses=8 * len(Fit._fields),
            checkpoint=sum(4 * entry.width * owners.get(entry.owner, 0) for entry in kept),
        )


def _exchanges(config: Config, schedule: Sequence[Segment], exchanges: Exchanges) -> float:
    """Seconds of all exchanges of a run but those of checkpoints and of its end."""
    from dials_mpi.algorithm.division import Division

    sizes, refits = Sizes.of(config), sum(segment.refit for segment in schedule)
    groups = Division(config, create(config.domain, config.domain_section), config.global_ranks).groups
    part = 1 / min(map(len, groups))  # of the networks, on the global ranks that have most of them
    collected = exchanges.direct(sizes.dataset / len(groups)) + exchanges.tree(sizes.losses)
    costs = exchanges.tree(sizes.costs * exchanges.workers / exchanges.regions)
    return (
        len(schedule) * exchanges.tree(sizes.metrics)
        + (1 + sum(segment.evaluate for segment in schedule))
        * (exchanges.direct(sizes.policies, part) + costs)
        + (1 + refits) * exchanges.direct(sizes.predictor, part)
        + refits * collected
    )


def checkpoints(config: Config, schedule: Sequence[Segment]) -> int:
    """The number of checkpoints of a run; one if only ``checkpoint_minutes`` is set."""
    return -(-len(schedule) // config.checkpoint_every) if config.checkpoint_every else 1
