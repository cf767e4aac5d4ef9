"""Projected wall-clock time of a run with one core per rank, for any number of regions.

It is the time of the slowest worker, of root's work while workers wait, and of the exchanges (Algorithm 1).
Each worker holds one region, so only root's work and the exchanges grow with the number of regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dials_mpi.bench.costs import Costs, Recorded
from dials_mpi.bench.flop import fit_flop
from dials_mpi.bench.link import Link
from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, segments
from dials_mpi.core.timing import PHASES
from dials_mpi.domains import create
from dials_mpi.parallel.communicator import POLL_SECONDS

REGIONS = (4, 25, 49, 100, 400, 1024, 10_000)

TERMS = ("train", "fit", "collect", "evaluate", "communicate", "checkpoint")
"""The parts of a run's wall-clock time: train and fit of the slowest worker; root's collecting and
evaluating, without the time during training; exchanges; root's writing of checkpoints."""


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
    evaluate, each time: all regions. checkpoint: of one region in a file.
    """

    train: float
    fit: float
    collect: Line
    evaluate: Line
    checkpoint: float
    link: Link

    @classmethod
    def of(cls, config: Config, costs: Sequence[Costs], checkpoint: float, link: Link) -> Model:
        """From the costs of one or more systems: the slowest worker of all, and lines for root's work."""

        def line(name: str, episodes: int) -> Line:
            sizes = {one.regions for one in costs}
            return Line.through(
                {
                    size: episodes * float(np.mean([getattr(c, name) for c in costs if c.regions == size]))
                    for size in sizes
                }
            )

        return cls(
            train=max(one.train for one in costs),
            fit=max(one.fit for one in costs) * fit_flop(config),
            collect=line("collect", most_episodes(config, config.dataset_episodes)),
            evaluate=line("evaluate", most_episodes(config, config.evaluation_episodes)),
            checkpoint=checkpoint,
            link=link,
        )


def most_episodes(config: Config, episodes: int) -> int:
    """The most episodes that one of the global ranks plays: they are dealt out in blocks."""
    from dials_mpi.algorithm.collect import shares

    dealt = shares(create(config.domain, config.domain_section), episodes, config.global_ranks)
    return max(share.stop - share.start for share in dealt)


def project(config: Config, model: Model, regions: int, workers: int | None = None) -> dict[str, float]:
    """Seconds of the whole run by TERMS.

    workers: one for each region by default; 0: a single rank, which also does the work of root.
    """
    held = -(-regions // (regions if workers is None else workers or 1))
    hidden = config.overlapped and workers != 0
    terms = _terms(config, model, regions, segments(config), held, hidden)
    # The policies that need no training are played at the end.
    references = 1 + len(create(config.domain, config.domain_section).hand_coded)
    return {**terms, "evaluate": terms["evaluate"] + references * model.evaluate(regions)}


def compare(
    run: Recorded, costs: Sequence[Costs], checkpoint: float, link: Link
) -> dict[str, tuple[float, float]]:
    """Projected and measured seconds by term of a recorded run, up to its last evaluation.

    The other arguments: as of ``Model.of``. Terms are the full work, also that during training; checkpoints
    are not recorded separately. ``wall``: the projected and measured wall-clock time, comparable if each rank
    had its own core.
    """
    config, regions = run.config, run.costs.regions
    model = Model.of(config, costs, checkpoint, link)
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
    return {
        "train": sum(training),
        "fit": held * refits * model.fit,
        "collect": collecting,
        "evaluate": evaluating,
        "communicate": _exchanges(config, schedule, model.link, regions, -(-regions // held)),
        "checkpoint": checkpoints(config, schedule) * model.checkpoint * regions,
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


def _exchanges(config: Config, schedule: Sequence[Segment], link: Link, regions: int, workers: int) -> float:
    """Seconds of all exchanges of a run: bytes, messages, and a poll interval in each."""
    from dials_mpi.algorithm.learners import training_figures
    from dials_mpi.domains.members import Members
    from dials_mpi.learning import tables
    from dials_mpi.learning.influence import Fit
    from dials_mpi.run.state import entries

    domain = create(config.domain, config.domain_section)
    widths = tables.widths(tables.tables(config, domain))
    region = domain.regions[0]
    sample = region.input_size * np.dtype(region.input_type).itemsize + len(region.source_classes)
    refits = sum(segment.refit for segment in schedule)
    evaluations = 1 + sum(segment.evaluate for segment in schedule)
    members = Members(domain.regions)
    owners = {"agent": members.largest, "region": 1}  # of the largest region
    row = sum(
        4 * entry.width * owners.get(entry.owner, 0) for entry in entries(config, domain) if entry.kept(0)
    )
    policies = 4 * members.largest * widths["policy"]
    # Each line: how often; exchanges, with one message per worker each; bytes of a region in them all.
    exchanges = (
        (len(schedule), 1, members.largest * 8 * len(training_figures(config))),  # metrics
        (evaluations, 3, policies + 8 * (2 * len(PHASES) + 3)),  # policies, costs of each rank
        (refits, 1, config.dataset_size * sample),  # datasets
        (refits, 2, 4 * widths.get("predictor", 0) + 8 * len(Fit._fields)),  # predictors and their losses
        (checkpoints(config, schedule), 1, row),
    )
    return sum(
        often
        * (
            number * (POLL_SECONDS + workers * link.seconds_per_message)
            + regions * size / link.bytes_per_second
        )
        for often, number, size in exchanges
    )


def checkpoints(config: Config, schedule: Sequence[Segment]) -> int:
    """The number of checkpoints of a run; one if only ``checkpoint_minutes`` is set."""
    return -(-len(schedule) // config.checkpoint_every) if config.checkpoint_every else 1
