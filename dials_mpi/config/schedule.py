"""The segments of a run (Algorithm 1): it can stop at the end of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dials_mpi.config import Config


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of training: updates first_update, ..., first_update + updates - 1.

    env_steps: steps per agent at its end. refit: the predictors are trained at its start; evaluate: the
    joint policy is evaluated at its end.
    """

    index: int
    first_update: int
    updates: int
    env_steps: int
    refit: bool
    evaluate: bool


def segments(config: Config) -> list[Segment]:
    """The run's segments: each ends at the first update at or past a multiple of segment_every."""
    every, size = _segment_steps(config), config.ppo.memory_size
    ends = [config.updates((k + 1) * every) for k in range(config.total_steps // every)]
    return [
        Segment(
            k,
            first,
            end - first,
            end * size,
            refit=refits(config, k),
            evaluate=evaluates(config, k + 1),
        )
        for k, (first, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]


def refits(config: Config, done: int) -> bool:
    """Whether the predictors are trained after ``done`` segments, if another one follows."""
    return config.mode == "dials" and done * _segment_steps(config) % config.retrain_every == 0


def evaluates(config: Config, done: int) -> bool:
    """Whether the joint policy is evaluated after ``done`` segments."""
    return done * _segment_steps(config) % config.evaluate_every == 0


def collects_ahead(config: Config, done: int) -> bool:
    """Whether the refit after ``done`` segments uses data of the joint policy of one segment earlier."""
    return config.overlapped and done > 0 and refits(config, done)


def _segment_steps(config: Config) -> int:
    """Steps per agent in a segment, before rounding to whole updates."""
    return config.segment_every or config.evaluate_every
