"""Two maps beside each other: how an episode went in each region under one policy and under another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dials_mpi.domains.base import Scored
from dials_mpi.results.frame import caption, framed_beside
from dials_mpi.results.run import Run
from dials_mpi.watch.episodes import GlobalEpisode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(
    run: Run, domain: Scored, policies: Sequence[str], seed: int, steps: int, advance: Callable[[int], None]
) -> tuple[Figure, list[str]]:
    """The figure, and a line of text for each policy; domain: the run's. BadInput: as of GlobalEpisode."""
    lines: list[str] = []

    def one(policy: str, axes: Axes) -> None:
        episode = GlobalEpisode(run, policy, seed)
        for _ in episode.play(steps):
            advance(1)
        found = episode.simulator.statistics()
        first = run.domain.statistics[:1]
        said = (f", {each.name} {float(found[each.name][0]):.1f} {each.unit}" for each in first)
        lines.append("".join([policy, *said]))
        domain.draw_scores(axes, episode.simulator)

    figure, _ = framed_beside(len(run.domain.regions), [partial(one, policy) for policy in policies])
    for k, line in enumerate(lines):
        caption(figure, f"{run.config.domain_key}, {line}", left=k / len(lines))
    return figure, lines
