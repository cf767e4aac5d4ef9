"""How many simulator steps a decision of the agents lasts: ``decision_every`` of a domain, 1 if it has none.

Simulators, influence sources, datasets and ``horizon`` count simulator steps. Agents observe, act and are
rewarded once per decision; algorithm/decisions.py repeats their actions in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.domains.base import Domain


def decision_steps(domain: Any) -> int:
    """Simulator steps per decision of a domain, or of its section of the configuration."""
    steps: int = getattr(domain, "decision_every", 1)
    return steps


def decisions_per_episode(domain: Domain) -> int:
    """Number of decisions of each agent in an episode."""
    return domain.horizon // decision_steps(domain)


def staggered(domain: Domain, environments: int) -> np.ndarray:
    """The steps that parallel environments have behind them at the start, int64 [E].

    They are spread over the horizon, so that a few steps in all environments see all parts of an episode.
    """
    every = decision_steps(domain)
    return np.arange(environments) * decisions_per_episode(domain) // environments * every


def require_whole_decisions(key: str, domain: Any) -> None:
    """BadInput: the horizon is not a whole number of decisions.

    key: of the domain's section; domain: as of ``decision_steps``.
    """
    every = decision_steps(domain)
    if not _is_number(every) or every < 1:
        raise BadInput(f"{key}.decision_every is {shown(every)}: use a whole number of steps, 1 or more")
    if every == 1 or not _is_number(domain.horizon):
        return
    if rest := domain.horizon % every:
        below = domain.horizon - rest
        better = " or ".join(str(steps) for steps in (below, below + every) if steps)
        raise BadInput(
            f"{key}.horizon is {domain.horizon}, which is not a multiple of {key}.decision_every={every}: "
            f"use {better}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
