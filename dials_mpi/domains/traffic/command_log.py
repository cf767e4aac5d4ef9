"""The grid with a log of the commands that SUMO receives."""

from __future__ import annotations

from typing import Any

from dials_mpi.domains.sumo.command_log import LoggedSimulation
from dials_mpi.domains.traffic import Traffic, TrafficConfig


class LoggedTraffic(Traffic):
    """The same networked system; ``logs`` has one LoggedSimulation for each start of SUMO."""

    def __init__(self, config: TrafficConfig) -> None:
        super().__init__(config)
        self.logs: list[LoggedSimulation] = []
        self.simulate = self._log

    def _log(self, *arguments: Any) -> LoggedSimulation:
        self.logs.append(LoggedSimulation(*arguments))
        return self.logs[-1]
