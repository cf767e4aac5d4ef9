"""The comparison of cities: a table by signal, and how many signals are as accurate as wanted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.core.text import printable
from dials_mpi.domains.city import City
from dials_mpi.domains.city.fidelity import Measured, Variant, joined, record, replay
from dials_mpi.fidelity.comparison import player

WANTED = 0.05, 0.95
"""A signal is accurate if its mean queue differs by this share at most, and correlates this much."""


class CityComparison:
    """As Comparison."""

    policy, episodes = "random", 1
    own = "no_exits", "no_turns", "drawn"

    def check(self, config: Config, options: argparse.Namespace) -> None:
        """As Comparison."""
        domain = City(config.domain_section)
        # Under these SUMO switches the signals: there are no actions to replay.
        known = [name for name in domain.hand_coded if name not in ("native", "actuated")]
        known = ["random", *(name for name in known if name != "random")]
        if options.policy not in known:
            raise BadInput(f"--policy is {printable(options.policy)}: choose {', '.join(known)}")
        if options.drawn and options.no_turns:
            raise BadInput("--drawn and --no-turns exclude each other: leave one out")
        domain.versions()  # BadInput if SUMO is missing

    def tables(self, config: Config, options: argparse.Namespace) -> Iterator[Table | str]:
        """As Comparison."""
        variant = Variant(not options.no_exits, not options.no_turns, options.drawn)
        domain = City(config.domain_section)
        truth, local = measure(config, domain, options.policy, options.episodes, variant)
        names = [signal.name for signal in domain.signals]
        if not options.summary:
            yield _by_signal(names, truth, local)
        yield _summary(names, truth, local)


def measure(
    config: Config, domain: City, policy: str, episodes: int, variant: Variant
) -> tuple[Measured, Measured]:
    """The figures of the global simulator, and of the local ones."""
    truths, locals_ = [], []
    chances = streams(config.seed, Purpose.EVALUATION_ACTIONS, episodes)
    for stream, chance in zip(streams(config.seed, Purpose.EVALUATION, episodes), chances, strict=True):
        recording = record(domain, stream, player(policy, domain, [chance]))
        truths.append(recording.measured)
        locals_.append(replay(domain, recording, variant, config.seed))
    return joined(truths), joined(locals_)


def _by_signal(names: list[str], truth: Measured, local: Measured) -> Table:
    table = Table(title="By signal: global, then local")
    table.add_column("signal", max_width=40)
    heads = ("queue", "local", "difference", "correlation", "vehicles/h", "local", "m/s", "local")
    for head in (*heads, "reward", "local"):
        table.add_column(head, justify="right")
    differences, correlations = differing(truth, local)
    for k, name in enumerate(names):
        pairs = [
            f"{getattr(measured, figure)[k]:.{digits}f}"
            for figure, digits in (("flow", 0), ("speed", 2), ("reward", 2))
            for measured in (truth, local)
        ]
        queues = (f"{measured.queue[:, k].mean():.2f}" for measured in (truth, local))
        table.add_row(name, *queues, f"{differences[k]:+.1%}", f"{correlations[k]:.3f}", *pairs)
    return table


def _summary(names: list[str], truth: Measured, local: Measured) -> str:
    differences, correlations = differing(truth, local)
    share, least = WANTED
    # A queue that is always 0 on both sides has neither: it is accurate.
    good = (np.abs(differences) <= share) & ~(correlations < least)
    others = ", ".join(name for name, accurate in zip(names, good, strict=True) if not accurate)
    text = f"Mean queue within {share:.0%} and correlation of at least {least}: {good.sum()} of {len(names)}"
    return f"{text} signals; not {others}" if others else f"{text} signals"


def differing(truth: Measured, local: Measured) -> tuple[np.ndarray, np.ndarray]:
    """The difference of the mean queues as a share, and the correlation of the queues, [N] each.

    NaN: correlation of a queue that never changes.
    """
    means = truth.queue.mean(0), local.queue.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = np.where(means[0] == means[1], 0, means[1] / means[0] - 1)
        deviations = truth.queue - means[0], local.queue - means[1]
        spread = np.sqrt((deviations[0] ** 2).sum(0) * (deviations[1] ** 2).sum(0))
        return differences, (deviations[0] * deviations[1]).sum(0) / spread
