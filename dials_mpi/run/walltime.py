"""How much time a run has left, and how long its next piece of work will take."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from statistics import median_low

from dials_mpi.config import Config
from dials_mpi.config.schedule import Segment, evaluates
from dials_mpi.core.errors import BadInput
from dials_mpi.core.shell import option
from dials_mpi.core.text import shown

RECENT = 3
MARGIN = 1.2
"""Work may begin if this multiple of its last time is left."""
FAR = 1e9
"""Seconds from now; a later end counts as no end."""
RESERVE = 5.0
"""Seconds for what is not measured, such as the end of the program."""


def seconds(text: str) -> float:
    """A walltime such as ``3:50:00`` or ``2-00:00:00`` in seconds. BadInput: it is not one."""
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", text.strip(), re.ASCII)
    if not match:
        raise BadInput(f"{option('walltime')} is {shown(text)}: write hours:minutes:seconds, such as 3:50:00")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not total:
        raise BadInput(f"{option('walltime')} is {shown(text)}: give more than no time, such as 3:50:00")
    return float(total)


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds, as ``seconds`` reads it; dashes if they are not finite."""
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def scheduler_end(environment: Mapping[str, str] = os.environ) -> float | None:
    """When the scheduler will end this job, in seconds since 1970; None without a scheduler or a limit.

    LookupError: there is a scheduler, but its answer is missing; the message says why.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:  # without the task the number would mean the whole array
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    end = environment.get("SLURM_JOB_END_TIME")
    if end and end.isdecimal():
        return float(end)
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%e"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        answer = done.stdout.strip()
        return None if answer in ("N/A", "NONE", "UNLIMITED") else datetime.fromisoformat(answer).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise LookupError(f"{' '.join(command)}: {' '.join(str(error).split())}") from error


Work = Sequence["str | tuple[Work, ...]"]
"""Kinds of work in sequence; a tuple holds pieces of work that run at the same time."""


class Pace:
    """How long each kind of work took on the present number of ranks, wall-clock seconds."""

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self._took = {what: deque([spent], RECENT) for what, spent in (known or {}).items()}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Measure the time inside."""
        start = time.monotonic()
        yield
        self.note(what, time.monotonic() - start)

    def note(self, what: str, seconds: float) -> None:
        """Add a measured time."""
        self._took.setdefault(what, deque(maxlen=RECENT)).append(seconds)

    def takes(self, work: Work) -> float:
        """Expected seconds of the work: for each kind the longest recent time, 0 if unknown."""
        known = self.known()
        return sum(
            known.get(what, 0.0) if isinstance(what, str) else max(map(self.takes, what)) for what in work
        )

    def known(self) -> dict[str, float]:
        """The longest recent time of each kind of work."""
        return {what: max(took) for what, took in self._took.items()}

    def usual(self) -> dict[str, float]:
        """The median recent time of each kind of work (of two the shorter), for the next session.

        A single long time (the machine was busy) must not prevent all later sessions.
        """
        return {what: median_low(took) for what, took in self._took.items()}


def work(config: Config, segment: Segment, following: Segment | None, ranks: int, first: bool) -> Work:
    """The work of a segment and of the checkpoint after it, on so many ranks.

    following: the next segment, if there is one; first: a session begins with this one.
    """
    if not config.overlapped:
        refit = ["collect", "fit"] if segment.refit else []
        return [*refit, "train", *["evaluate"] * segment.evaluate, "checkpoint"]
    refit = [*["collect"] * first, "fit"] if segment.refit else []
    play = ["evaluate"] * evaluates(config, segment.index)
    play += ["collect"] * bool(following and following.refit)
    apart = ranks > 1 and config.mode != "global"  # else root trains as well
    return [*refit, *([(["train"], play)] if apart else ["train", *play]), "checkpoint"]


class Deadline:
    """The moment by which this process must have ended, on its own clock."""

    def __init__(self, end: float = math.inf) -> None:
        """end: as ``time.monotonic`` counts."""
        self._end = end

    def allows(self, needed: float) -> bool:
        """Whether work that took so many seconds before may begin."""
        return self.left() >= MARGIN * needed + RESERVE

    def left(self) -> float:
        """Seconds from now."""
        return self._end - time.monotonic()


def deadline_of(walltime: str | None, begun: float) -> tuple[Deadline, tuple[str, ...]]:
    """When a program that began at that moment (``time.monotonic``) must end, and notes for the user.

    walltime: of the command line, a duration as ``seconds`` reads it, or @ and seconds since 1970; with None
    the scheduler is asked. BadInput: it is neither.
    """
    if walltime is not None and re.fullmatch(r"@\d{1,12}", walltime, re.ASCII):
        return Deadline(time.monotonic() + float(walltime[1:]) - time.time()), ()
    if walltime is not None:
        return Deadline(begun + seconds(walltime)), ()
    try:
        end = scheduler_end()
    except LookupError as error:
        unknown = f"the end of this job is not known ({error}): it may be cut off, give {option('walltime')}"
        return Deadline(), (unknown,)
    if end is None:
        return Deadline(), ()
    left = end - time.time()
    if left > FAR:
        return Deadline(), ()
    return Deadline(time.monotonic() + left), (f"this job ends in {timedelta(seconds=max(0, round(left)))}",)
