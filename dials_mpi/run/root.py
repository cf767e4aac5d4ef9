"""What root has besides the other ranks: the run file, the output, the results of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.core.logging import LOG
from dials_mpi.core.provenance import roundings
from dials_mpi.run.sinks.console import Reporter
from dials_mpi.run.sinks.run_file import Record

if TYPE_CHECKING:
    from dials_mpi.domains.base import Domain
    from dials_mpi.parallel.communicator import Communicator
    from dials_mpi.parallel.layout import Layout
    from dials_mpi.run.session import SessionStart


class Root:
    """Root's own part of a run: it writes all files and all output.

    latest: the last evaluation of this session.
    """

    def __init__(self, start: SessionStart, domain: Domain) -> None:
        self.record = Record(start.directory, domain.statistics)
        self.reporter = Reporter(start.config, len(domain.agents), start.progress.wall_time)
        self.latest: Evaluation | None = None

    def begin(
        self,
        start: SessionStart,
        comm: Communicator,
        layout: Layout,
        hosts: Sequence[str],
        processors: Sequence[str],
    ) -> None:
        """Report and record the session; hosts, processors: of each rank."""
        for note in (*start.notes, *roundings(processors, self.record.run.processors())):
            self.reporter.say(note)
        LOG.info("%d ranks on %s", comm.size, ", ".join(dict.fromkeys(hosts)))
        self.record.session(hosts, processors, layout.region_ranks, comm.library)
        self.record.run.commit()
