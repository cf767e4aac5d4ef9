"""The segments of a run: the training between two points where it can stop (Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dials_mpi.config import Config


class Segment(NamedTuple):
    """A piece of training: updates first_update, ..., first_update + updates - 1.

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
    """Whether the predictors are trained when so many segments are done and another one follows."""
    return config.mode == "dials" and done * _segment_steps(config) % config.retrain_every == 0


def evaluates(config: Config, done: int) -> bool:
    """Whether the joint policy is evaluated when so many segments are done."""
    return done * _segment_steps(config) % config.evaluate_every == 0


def collects_ahead(config: Config, done: int) -> bool:
    """Whether the refit after so many segments is fitted to data of the joint policy one segment before."""
    return config.overlapped and done > 0 and refits(config, done)


def _segment_steps(config: Config) -> int:
    """Steps per agent in a segment, before they are rounded to whole updates."""
    return config.segment_every or config.evaluate_every
