"""The protocol of sinks, and the object that sends each record of a run to all of them.

Root alone has sinks; on other ranks ``Sinks`` is empty. docs/sinks.md explains how to write one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.core.logging import warn
from dials_mpi.core.signals import stop_request_in
from dials_mpi.core.text import printable

if TYPE_CHECKING:
    from dials_mpi.algorithm.evaluation import Evaluation
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Statistic
    from dials_mpi.run.sinks.run_file import RunFileSink


@dataclass(frozen=True)
class Session:
    """What is known when a session of a run starts. N agents, R regions, W ranks.

    env_steps: steps per agent in the checkpoint that the session starts from, 0 without one. wall_time:
    seconds that the sessions before took. continued: there was a session before. region_of: the region of
    each agent [N]. hosts: the machine of each rank [W]. owners: the rank that trains each region [R].
    platform: the kind of processor and the versions of libraries, by name, of each rank [W]. agent_names,
    positions: of each agent [N], (x, y) on a map; () where the domain gives none.
    """

    directory: Path
    config: Config
    region_of: Sequence[int]
    statistics: Sequence[Statistic] = ()
    env_steps: int = 0
    wall_time: float = 0.0
    continued: bool = False
    hosts: Sequence[str] = ()
    owners: Sequence[int] = ()
    platform: Mapping[str, Sequence[str]] = field(default_factory=dict)
    agent_names: Sequence[str] = ()
    positions: Sequence[tuple[float, float]] = ()

    @property
    def agents(self) -> int:
        """N."""
        return len(self.region_of)

    @property
    def last_kept(self) -> int:
        """Records with at most so many steps remain valid, -1 if none do; later ones come again."""
        return self.env_steps or -1  # a checkpoint has at least one segment


@dataclass
class SegmentEnd:
    """The run at the end of a segment, for ``Sink.on_segment_end``. The arrays are read-only.

    index: of the segment, from 0. env_steps: steps per agent. wall_time: seconds of all sessions.
    evaluation: the last one of this session. policies: parameters float32 [N, P] of the joint policy as root
    gathered it last; with the schedule ``synchronous`` it is the one that was evaluated. Both may be None.
    """

    index: int
    env_steps: int
    wall_time: float
    evaluation: Evaluation | None
    policies: np.ndarray | None
    stop_requested: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Stop the run at this segment's end, with a checkpoint and exit code 75, as SIGUSR1 does."""
        self.stop_requested = True


class Sink:
    """Base class of all sinks: every method may be overridden, and does nothing here.

    N agents, R regions, W ranks, E episodes. env_steps: steps per agent to which a record belongs.
    wall_time: seconds that the run has taken, all sessions together. Arrays are read-only, float64.
    The run creates a sink without arguments, on root only, and calls ``session`` before anything else.
    name: for messages; without one the class is named.
    """

    name = ""

    def session(self, session: Session) -> None:
        """A session starts."""

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """The influence predictors were fitted. losses [R, C]: cross-entropies in nats per source."""

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """The policies were trained for a segment. metrics [N, C]: means over the segment."""

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """The joint policy was evaluated: returns [E, N], cross-entropy [R] or None, statistics [E] each."""

    def costs(
        self,
        env_steps: int,
        wall_time: float,
        phases: Sequence[str],
        seconds: np.ndarray,
        memory: np.ndarray,
        failures: np.ndarray,
    ) -> None:
        """Time and memory since the last call.

        seconds [W, len(phases), 2]: wall-clock and CPU; memory [W, 2]: peak resident set and proportional
        set now, in bytes; failures [W]: simulators that failed.
        """

    def references(self, trained: Evaluation, references: Mapping[str, Evaluation]) -> None:
        """Training is complete. trained: the last evaluation; references: the policies without training."""

    def message(self, text: str) -> None:
        """A line of text for the user."""

    def phase(self, wall_time: float, text: str) -> None:
        """What the run does from now on."""

    def flush(self) -> None:
        """Write what is buffered: at the end of each segment, before the checkpoint, and of the run."""

    def on_segment_end(self, run: SegmentEnd) -> None:
        """A segment has ended, and ``flush`` was called. ``run.stop()`` requests a stop here."""

    def stopped(self, env_steps: int, wall_time: float) -> None:
        """The session stops here with a checkpoint; training is not complete."""

    def close(self) -> None:
        """The session ends, also after an error."""


class Sinks(Sink):
    """Sends each call to the run file, then to the other sinks, and measures the time of the run.

    A sink that raises an Exception is switched off, with one warning. An error of the run file ends the run.
    """

    def __init__(
        self, run_file: RunFileSink | None = None, others: Sequence[Sink] = (), wall_time: float = 0.0
    ) -> None:
        """wall_time: seconds that the sessions before took."""
        self._run_file, self._others = run_file, list(others)
        self._start = time.perf_counter() - wall_time

    @property
    def run_file(self) -> RunFileSink:
        """The run file. LookupError: this rank is not root."""
        if self._run_file is None:
            raise LookupError("only root has the run file")
        return self._run_file

    @property
    def needs_policies(self) -> bool:
        """Whether a sink has ``on_segment_end``, for which root gathers all policies at each evaluation."""
        unused = Sink.on_segment_end
        return any(getattr(type(sink), "on_segment_end", unused) is not unused for sink in self._others)

    def elapsed(self) -> float:
        """Seconds that the run has taken, all sessions together."""
        return time.perf_counter() - self._start

    def session(self, session: Session) -> None:
        """See ``Sink``, as for all methods below."""
        self._send("session", session)

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """Send it."""
        self._send("fit", env_steps, wall_time, columns, losses)

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """Send it."""
        self._send("training", env_steps, wall_time, columns, metrics)

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Send it."""
        self._send("evaluation", env_steps, wall_time, evaluation)

    def costs(
        self,
        env_steps: int,
        wall_time: float,
        phases: Sequence[str],
        seconds: np.ndarray,
        memory: np.ndarray,
        failures: np.ndarray,
    ) -> None:
        """Send it."""
        self._send("costs", env_steps, wall_time, phases, seconds, memory, failures)

    def references(self, trained: Evaluation, references: Mapping[str, Evaluation]) -> None:
        """Send it."""
        self._send("references", trained, references)

    def message(self, text: str) -> None:
        """Send it."""
        self._send("message", text)

    def phase(self, wall_time: float, text: str) -> None:
        """Send it."""
        self._send("phase", wall_time, text)

    def flush(self) -> None:
        """Send it."""
        self._send("flush")

    def on_segment_end(self, run: SegmentEnd) -> None:
        """Send it."""
        run.evaluation, run.policies = _read_only(run.evaluation), _read_only(run.policies)
        self._send("on_segment_end", run)

    def stopped(self, env_steps: int, wall_time: float) -> None:
        """Send it."""
        self._send("stopped", env_steps, wall_time)

    def close(self) -> None:
        """Send it."""
        self._send("close")

    def _send(self, method: str, *arguments: Any) -> None:
        arguments = tuple(map(_read_only, arguments))
        if self._run_file is not None:
            getattr(self._run_file, method)(*arguments)
        for sink in tuple(self._others):
            try:
                getattr(sink, method)(*arguments)
            except Exception as error:
                self._switch_off(sink, method, error)

    def _switch_off(self, sink: Sink, method: str, error: Exception) -> None:
        stop = stop_request_in(error)
        if stop is not None:  # a signal that the sink turned into an error of its own
            raise stop
        self._others.remove(sink)
        name = sink.name or f"{type(sink).__module__}:{type(sink).__qualname__}"
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        warn(f"the sink {name} failed in {method} ({reason}): the run continues without it", rank=0)


def _read_only(value: Any) -> Any:
    """The value with arrays that cannot be written to, so that no sink changes what the run uses."""
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_read_only, value))
    if isinstance(value, Mapping):
        return {key: _read_only(part) for key, part in value.items()}
    return value
