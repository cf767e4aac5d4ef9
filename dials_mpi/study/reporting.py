"""The report of a study: starts ``python -m dials_mpi.report`` on its runs, once for each domain."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dials_mpi.core.errors import CRASHED, DONE, print_error
from dials_mpi.study.plan import StudyRun
from dials_mpi.study.process import ended_with_this_process
from dials_mpi.study.state import Phase, state_of

MOST_NAMED = 5
PAGE = "report.html"
"""The page with everything, in the folder of the pictures and tables."""


def report(runs: Sequence[StudyRun], folder: str) -> int:
    """Report all runs that have an evaluation; the exit code: that of the first report that failed.

    With several domains, the files of each go to a subfolder of ``folder``; PAGE is one of them. Runs that
    were started with other settings are left out.
    """
    states = {run: state_of(run) for run in runs}
    others = [run.name for run, state in states.items() if state.phase is Phase.OTHER]
    if others:
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        print(f"not reported because of other settings: {', '.join(others[:MOST_NAMED])}{more}", flush=True)
    domains = list(dict.fromkeys(run.config.domain for run in runs))
    there = [run for run, state in states.items() if state.evaluated and state.phase is not Phase.OTHER]
    codes = []
    for domain in domains:
        directories = [str(run.directory) for run in there if run.config.domain == domain]
        if not directories:
            print_error(
                f"no run of the {domain} domain has an evaluation yet: there is nothing to report of it"
            )
            codes.append(CRASHED)
            continue
        out = Path(folder) / domain if len(domains) > 1 else Path(folder)
        program = (sys.executable, "-m", "dials_mpi.report")
        files = ("--out", str(out), "--html", str(out / PAGE))
        codes.append(subprocess.run(ended_with_this_process([*program, *directories, *files])).returncode)
    return next((code for code in codes if code), DONE)
