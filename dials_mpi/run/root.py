"""What root has besides the other ranks: the run file, the output, the results of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.core.logging import LOG
from dials_mpi.core.provenance import differences
from dials_mpi.run.sinks.console import Reporter
from dials_mpi.run.sinks.run_file import Record

if TYPE_CHECKING:
    from dials_mpi.domains.base import Domain
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
        layout: Layout,
        hosts: Sequence[str],
        told: Mapping[str, Sequence[str]],
    ) -> None:
        """Report and record the session; hosts: of each rank; told: its processor and libraries."""
        here, earlier = self.record.run.told()
        for note in (*start.notes, *differences({**here, **told}, earlier)):
            self.reporter.say(note)
        LOG.info("%d ranks on %s", len(hosts), ", ".join(dict.fromkeys(hosts)))
        self.record.session(hosts, told, layout.region_ranks)
        self.record.run.commit()
