"""The shares of the parts of training in its time; methods are replaced by timed ones for this.

Times are exclusive: time in a method of another part counts for that part.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.config import Config
from dials_mpi.domains.base import Domain

PARTS = (
    "simulator",
    "sumo",
    "predictor",
    "policy",
    "update",
    "adam",
    "waiting",
    "communication",
    "other",
)
"""simulator: the domain's code; sumo: simulationStep (traffic only). predictor: sampling influence sources.
policy: acting, and values of final observations. update: PPO's gradients; adam: its optimiser, which is part
of the update of large networks. waiting: for other ranks. communication: metrics and policies, sent to root.
other: all the rest."""


class Method(NamedTuple):
    """A method whose time counts for a part."""

    owner: type
    name: str
    part: str


def training_methods(config: Config, domain: Domain) -> list[Method]:
    """The methods of training: Algorithm 3 and PPO."""
    from dials_mpi.algorithm.ials import IALS
    from dials_mpi.learning.adam import Adam
    from dials_mpi.learning.influence import Predictor
    from dials_mpi.learning.ppo import PPO

    rng = np.random.default_rng(0)
    simulator: object
    if config.mode == "global":
        simulator = domain.global_simulator([rng])
    else:
        simulator = domain.local_simulator([0], 1, [rng])
    return [
        *_simulator_methods(config, domain, simulator),
        Method(IALS, "step", "predictor"),
        Method(IALS, "reset", "predictor"),
        Method(Predictor, "sample", "predictor"),
        Method(PPO, "act", "policy"),
        Method(PPO, "observe", "policy"),
        Method(PPO, "update", "update"),
        Method(Adam, "step", "adam"),
    ]


def global_methods(config: Config, domain: Domain) -> list[Method]:
    """The methods of collecting (Algorithm 2) and evaluating."""
    from dials_mpi.algorithm.joint import TrainedPolicies
    from dials_mpi.learning.influence import Predictor

    return [
        *_simulator_methods(config, domain, domain.global_simulator([np.random.default_rng(0)])),
        Method(Predictor, "cross_entropy", "predictor"),
        Method(TrainedPolicies, "__call__", "policy"),
    ]


def _simulator_methods(config: Config, domain: Domain, simulator: object) -> list[Method]:
    methods = [
        *(Method(type(domain), name, "simulator") for name in ("local_simulator", "global_simulator")),
        *(Method(type(simulator), name, "simulator") for name in ("step", "reset")),
    ]
    if config.domain == "traffic":
        from dials_mpi.domains.sumo.simulation import Simulation

        methods.append(Method(Simulation, "step", "sumo"))
    return methods


class Profile:
    """Wall-clock seconds per part since its creation; at each moment time counts for one part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "other", time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time within this context for ``part``."""
        outer = self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(outer)

    @contextmanager
    def watching(self, methods: Sequence[Method]) -> Iterator[None]:
        """Time these methods within this context, and restore the classes at its end."""
        originals = []
        for kind, name, part in methods:
            owner = next(one for one in kind.__mro__ if name in vars(one))
            originals.append((owner, name, vars(owner)[name]))
            setattr(owner, name, self._timed(vars(owner)[name], part))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def take(self) -> np.ndarray:
        """The seconds of each of PARTS, float64; then reset them to zero."""
        self._turn_to(self._part)
        taken = np.array([self.seconds[part] for part in PARTS])
        self.seconds = dict.fromkeys(PARTS, 0.0)
        return taken

    def _turn_to(self, part: str) -> str:
        """Count time for ``part`` from now on; the part before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        outer, self._part, self._since = self._part, part, now
        return outer

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        turn_to = self._turn_to

        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            outer = turn_to(part)
            try:
                return method(*arguments, **named)
            finally:
                turn_to(outer)

        return timed


def shares(seconds: np.ndarray, config: Config) -> dict[str, float]:
    """Seconds of PARTS as shares of their sum; sumo only in the traffic domain."""
    return {
        part: float(spent / seconds.sum())
        for part, spent in zip(PARTS, seconds, strict=True)
        if part != "sumo" or config.domain == "traffic"
    }
