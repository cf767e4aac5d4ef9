"""One run of a study after another, each as a program of its own, so that its memory is its own as well."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from enum import Enum, auto

from dials_mpi.config import load
from dials_mpi.core.errors import CRASHED, DONE, REFUSED, STOPPED, BadInput, print_error
from dials_mpi.core.text import printable
from dials_mpi.results import membership
from dials_mpi.run.session import SessionStart, require_time
from dials_mpi.run.walltime import Deadline, clock
from dials_mpi.storage import checkpoint as checkpoints
from dials_mpi.storage.checkpoint import Checkpoint
from dials_mpi.storage.progress import Progress
from dials_mpi.storage.runfile import RunFile
from dials_mpi.study.board import Board, summary
from dials_mpi.study.launch import Launch
from dials_mpi.study.plan import StudyRun
from dials_mpi.study.process import Ended, Processes
from dials_mpi.study.state import Phase, State, ranks_of_sessions, state_of

POLL_SECONDS = 2.0
"""Seconds between two checks of runs that other processes run, when nothing else is left."""


class Outcome(Enum):
    """The outcome of a run. ELSEWHERE: another process runs it. PRUNED: a sweep has stopped it for good."""

    DONE = auto()
    PRUNED = auto()
    FAILED = auto()
    STOPPED = auto()
    ELSEWHERE = auto()


OVER = {Phase.FINISHED: Outcome.DONE, Phase.PRUNED: Outcome.PRUNED}
"""The phases of runs with nothing left to do."""


class Series:
    """Runs a study until each run is finished or has failed; waits for those that other processes run."""

    def __init__(
        self, states: Mapping[StudyRun, State], launch: Launch, deadline: Deadline, limited: bool
    ) -> None:
        """states: the current states of all runs. limited: runs get the remaining time as ``--walltime``;
        otherwise they find the end of their job themselves."""
        self.runs, self.launch, self.deadline, self.limited = list(states), launch, deadline, limited
        self.states = {run.name: state for run, state in states.items()}
        self.processes = Processes()
        self.board = Board(self.runs, self.states)
        self.launched = 0
        self.left: set[str] = set()

    def work(self) -> int:
        """Run all; the exit code: done, stopped with work left, or 1 if some have failed."""
        self.board.print(f"start: {summary(self.states.values())}")
        try:
            with self.processes:
                outcomes = self._rounds()
        finally:
            self.board.close()
        failed = [name for name, outcome in outcomes.items() if outcome is Outcome.FAILED]
        self.board.print(f"end: {summary(self.states.values())}")
        if failed:
            self.board.print(f"failed: {', '.join(failed)}")
        if Outcome.STOPPED in outcomes.values():
            return STOPPED
        return CRASHED if failed else DONE

    def _rounds(self) -> dict[str, Outcome]:
        """Repeat over the runs, since another process may stop before its run is finished."""
        outcomes: dict[str, Outcome] = {}
        waiting = list(self.runs)
        while waiting:
            for run in waiting:
                outcomes[run.name] = self._take(run)
                if outcomes[run.name] is Outcome.STOPPED:
                    return outcomes
            elsewhere = [run for run in waiting if outcomes[run.name] is Outcome.ELSEWHERE]
            if len(elsewhere) == len(waiting):
                time.sleep(POLL_SECONDS)
            waiting = elsewhere
        return outcomes

    def _take(self, run: StudyRun) -> Outcome:
        """Run a run, unless it is finished or another process runs it."""
        state = self._look_at(run)
        if state.phase in OVER:
            return OVER[state.phase]
        if self.processes.stopped:
            return Outcome.STOPPED
        if state.phase is Phase.RUNNING and self.deadline.allows(0):
            return self._leave(run)
        if not self._time_for(run):
            return Outcome.STOPPED
        if not _as_planned(run):
            self.board.show_end(run, "has failed: its configuration has changed")
            changed = f"its configuration {printable(run.file)} has changed since the study began"
            print_error(f"{run.name}: {changed}: start the study again")
            return Outcome.FAILED
        return self._run(run)

    def _leave(self, run: StudyRun) -> Outcome:
        if run.name not in self.left:
            self.left.add(run.name)
            self.board.show_end(run, f"is run by {self.states[run.name].holder}: waiting for it")
        return Outcome.ELSEWHERE

    def _run(self, run: StudyRun) -> Outcome:
        self.board.show_start(run, self.launch.ranks_of(run))
        self.launched += 1
        outcome, ended = self._attempt(run)
        # Another process may have held the run's directory for a moment, and stopped since.
        again = (Phase.NOT_STARTED, Phase.INTERRUPTED)
        if outcome is Outcome.FAILED and ended.code == REFUSED and self.states[run.name].phase in again:
            outcome, ended = self._attempt(run)
        if outcome is Outcome.ELSEWHERE:
            return self._leave(run)
        self.board.show_end(run, _words(outcome, ended, self.states[run.name]))
        if outcome is Outcome.FAILED:
            for line in ended.last_lines:
                print_error(f"{run.name}: {line.removeprefix('dials_mpi: ')}")
        return outcome

    def _attempt(self, run: StudyRun) -> tuple[Outcome, Ended]:
        # A point in time, not a duration: how long the launcher takes to start the program is not known.
        left = f"@{math.floor(time.time() + self.deadline.left())}" if self.limited else None
        command = self.launch.command(run, left)
        before = len(ranks_of_sessions(run))
        try:
            ended = self.processes.run(command, lambda: self._tick(run))
        except OSError as error:
            ended = Ended(CRASHED, [f"{command[0]}: {error.strerror}"])
        state = self._look_at(run)
        outcome = self._judge(ended, state)
        if ended.code in (DONE, STOPPED) and (reason := self._other_ranks(run, before)):
            return Outcome.FAILED, ended._replace(last_lines=[reason])
        return outcome, ended

    def _other_ranks(self, run: StudyRun, before: int) -> str:
        """Why a run counts as failed if the launcher started another number of ranks, else empty.

        before: the number of sessions before this one.
        """
        asked, got = self.launch.ranks_of(run), ranks_of_sessions(run)[before:]
        if not got or got[-1] in (0, asked):
            return ""
        return (
            f"ranks={got[-1]} in its run file, in place of {asked}: the launcher "
            f"({printable(' '.join(self.launch.launcher))}) does not belong to the MPI library, so give "
            "another one with --launcher; what the run wrote is whole"
        )

    def _judge(self, ended: Ended, state: State) -> Outcome:
        if state.phase is Phase.PRUNED:
            return Outcome.PRUNED
        # It may be refused because another process held it, which has finished it since.
        if ended.code in (DONE, REFUSED) and state.phase is Phase.FINISHED:
            return Outcome.DONE
        # After a signal, a launcher or a program that was just starting may exit with any code.
        if ended.code == STOPPED or self.processes.stopped:
            return Outcome.STOPPED
        return Outcome.ELSEWHERE if state.phase is Phase.RUNNING else Outcome.FAILED

    def _look_at(self, run: StudyRun) -> State:
        """Read the state of a run, and keep it; name its method in its directory."""
        state = self.states[run.name] = state_of(run)
        if state.phase is not Phase.OTHER:
            _name_method(run)
        return state

    def _tick(self, run: StudyRun) -> None:
        """What is done every second while a run is running here."""
        if self.board.bar:
            self.board.show_progress(self._look_at(run))
        else:
            _name_method(run)

    def _time_for(self, run: StudyRun) -> bool:
        """Whether the time suffices for another segment; the first run of a session checks this itself."""
        progress = _progress(run) if self.launched else Progress()
        start = SessionStart(run.config, str(run.directory), progress)
        try:
            require_time(start, self.deadline, self.launch.ranks_of(run))
            if not self.deadline.allows(0):
                raise BadInput("the time is over")
        except BadInput as reason:
            self.board.show_end(run, f"waits for the next session: {reason}")
            return False
        return True


def _as_planned(run: StudyRun) -> bool:
    """Whether the configuration file still gives the configuration that the study has checked."""
    try:
        return load(run.file, run.overrides) == run.config
    except BadInput:
        return False


def _progress(run: StudyRun) -> Progress:
    """Where the run would continue; the beginning if its checkpoint cannot be read, which the run reports."""
    try:
        newest = checkpoints.present(run.directory)
        return Checkpoint(newest[0]).progress if newest else Progress()
    except BadInput:
        return Progress()


def _words(outcome: Outcome, ended: Ended, state: State) -> str:
    """The outcome of a run that was started here, in words."""
    if outcome is Outcome.DONE:
        return f"is finished: return {state.mean_return:.2f} in {clock(state.seconds)}"
    if outcome is Outcome.PRUNED:
        return f"is pruned at {state.env_steps:,} steps"
    if outcome is Outcome.FAILED:
        return f"has failed with exit code {ended.code}"
    return f"is stopped at {state.env_steps:,} steps: the same command line continues it"


def _name_method(run: StudyRun) -> None:
    """Record the name that the study gives the run's method, for reports."""
    if run.membership and RunFile(run.directory).exists():
        membership.write(run.directory, run.membership)
