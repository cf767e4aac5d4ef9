"""What the command needs of a domain."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.decisions import held
from dials_mpi.config import Config
from dials_mpi.domains.base import Domain
from dials_mpi.domains.decisions import decision_steps

Play = Callable[[Any], joint.JointPolicy]
"""A joint policy for a global simulator, before its first reset."""


class Comparison(Protocol):
    """The comparison of one domain. policy, episodes: the command's defaults. own: options it alone has."""

    @property
    def policy(self) -> str:
        """The default of --policy."""
        ...

    @property
    def episodes(self) -> int:
        """The default of --episodes."""
        ...

    @property
    def own(self) -> tuple[str, ...]:
        """The options that only this comparison has."""
        ...

    def check(self, config: Config, options: argparse.Namespace) -> None:
        """BadInput: it cannot be measured."""
        ...

    def tables(self, config: Config, options: argparse.Namespace) -> Iterable[Any]:
        """Measure; what is printed, in order."""
        ...


def player(policy: str, domain: Domain, chances: Any) -> Play:
    """Play a policy by name; chances: a stream for each episode."""

    def play(simulator: Any) -> joint.JointPolicy:
        return held(joint.scripted(policy, domain, simulator, chances), decision_steps(domain))

    return play
