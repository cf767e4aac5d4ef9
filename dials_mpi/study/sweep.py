"""One trial of a sweep after another, each in a run directory of its own, until all are over."""

from __future__ import annotations

import time
from collections.abc import Callable

from dials_mpi.core.errors import print_error
from dials_mpi.run.walltime import Deadline
from dials_mpi.study.launch import Launch
from dials_mpi.study.plan import StudyRun
from dials_mpi.study.series import POLL_SECONDS, Outcome, Series
from dials_mpi.study.state import State, version_of
from dials_mpi.study.trials import Trial, Trials

Plan = Callable[[StudyRun], Launch]


class TrialSeries(Series):
    """Runs the trials of a sweep; each is asked for when those before it are over."""

    def __init__(
        self, trials: Trials, plan: Plan, deadline: Deadline, limited: bool, keep: Callable[[], object]
    ) -> None:
        """plan: how to start a run, which depends on its number of regions. keep: writes the results, and is
        called at the end of each trial."""
        states = {trial.run: trial.state for trial in trials}
        super().__init__(states, plan(trials.all[0].run), deadline, limited)
        self.trials, self._plan, self._keep = trials, plan, keep
        self._stopping: Trial | None = None
        self._seen: tuple[int, ...] = ()

    def _rounds(self) -> dict[str, Outcome]:
        outcomes = {}
        for number in range(len(self.runs)):
            trial = self.trials.begin(number)
            self.runs[number] = trial.run
            outcome = outcomes[trial.run.name] = self._finish(trial)
            if outcome is Outcome.STOPPED:
                break
            self.trials.end(trial)
            self._keep()
        return outcomes

    def _finish(self, trial: Trial) -> Outcome:
        """Run a trial until it is over; wait for it if another process runs it."""
        if trial.refused:
            self.board.show_end(trial.run, "has failed: its values cannot be combined")
            print_error(f"{trial.run.name}: {trial.refused}")
            return Outcome.FAILED
        self.launch = self._plan(trial.run)
        while (outcome := self._take(trial.run)) is Outcome.ELSEWHERE:
            time.sleep(POLL_SECONDS)
        return outcome

    def _look_at(self, run: StudyRun) -> State:
        state = self.states[run.name] = self.trials.look(self._trial(run))
        return state

    def _tick(self, run: StudyRun) -> None:
        """Stop a run that is pruned, at the end of its segment."""
        version = version_of(run)
        if version == self._seen:
            return
        self._seen = version
        self.board.show_progress(self._look_at(run))
        trial = self._trial(run)
        if trial.pruned and self._stopping is not trial:
            self._stopping = trial
            self.processes.stop_soon()

    def _trial(self, run: StudyRun) -> Trial:
        return self.trials.all[run.number - 1]
