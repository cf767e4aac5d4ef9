"""The run file as a sink: rows and arrays that describe the run (docs/run-file.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.core.provenance import PROCESSORS, distinct
from dials_mpi.domains.base import Statistic
from dials_mpi.run.sinks.base import Session, Sink
from dials_mpi.storage.runfile import RunFile


class RunFileSink(Sink):
    """Adds each record to the run file, which exists; ``flush`` writes them. Its errors end the run."""

    name = "run file"

    def __init__(self, directory: str, statistics: Sequence[Statistic]) -> None:
        self.run = RunFile(directory, {statistic.name: statistic.unit for statistic in statistics})

    def session(self, session: Session) -> None:
        """The machine, kind of processor and libraries of each rank; the rank that trains each region; names
        and positions of the agents, if the domain gives them."""
        self.run.write({"placement/rank": session.owners}, hosts=session.hosts, ranks=len(session.hosts))
        self.run.write(_map(session))
        platform = dict(session.platform)
        processors = platform.pop(PROCESSORS)
        versions = {name: distinct(kinds) for name, kinds in platform.items()}
        self.run.write_session(**versions, processors=processors, hosts=session.hosts)

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """A row in ``influence``."""
        named = zip(columns, losses.T, strict=True)
        series = {f"influence/cross_entropy_{name}": column for name, column in named}
        self.run.append({"influence/env_steps": env_steps, **series})

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """A row in ``training``."""
        series = {f"training/{name}": column for name, column in zip(columns, metrics.T, strict=True)}
        self.run.append({"training/env_steps": env_steps, **series})

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """A row in ``evaluation`` and in ``evaluation_statistics``."""
        row = {"env_steps": env_steps, "wall_time": wall_time, "returns": evaluation.returns}
        if evaluation.cross_entropy is not None:
            row["cross_entropy"] = evaluation.cross_entropy
        self.run.append(
            {f"evaluation/{name}": value for name, value in row.items()}
            | {f"evaluation_statistics/{name}": values for name, values in evaluation.statistics.items()}
        )

    def last_evaluation(self) -> Evaluation:
        """The last one in the file."""
        row = self.run.last_row("evaluation")
        return Evaluation(
            row["returns"], self.run.last_row("evaluation_statistics"), row.get("cross_entropy")
        )

    def costs(
        self,
        env_steps: int,
        wall_time: float,
        phases: Sequence[str],
        seconds: np.ndarray,
        memory: np.ndarray,
        failures: np.ndarray,
    ) -> None:
        """A row in ``timing`` and in ``events``; the newest values in ``memory``."""
        series = {f"timing/{phase}": seconds[:, k] for k, phase in enumerate(phases)}
        events = {"events/env_steps": env_steps, "events/simulator_failures": failures.astype(np.int64)}
        self.run.append({"timing/env_steps": env_steps, **series, **events})
        self.run.write({"memory/peak_rss": memory[:, 0], "memory/pss": memory[:, 1]})

    def references(self, trained: Evaluation, references: Mapping[str, Evaluation]) -> None:
        """The arrays of the reference policies, and that the run is finished."""
        arrays = {f"reference/{name}": result.returns for name, result in references.items()}
        for name, result in references.items():
            for figure, values in result.statistics.items():
                arrays[f"reference_statistics/{name}/{figure}"] = values
        self.run.write(arrays)
        self.run.write({}, references_paired=True, finished=True)
        self.flush()

    def flush(self) -> None:
        """Replace the file by one with the new records. Unwritable: the disk is full."""
        self.run.commit()


def _map(session: Session) -> dict[str, Any]:
    """The arrays of ``map``: what the domain tells of the agents' names and positions."""
    found: dict[str, Any] = {}
    if session.agent_names:
        found["map/name"] = list(session.agent_names)
    if session.positions:
        x, y = np.array(session.positions, np.float64).T
        found |= {"map/x": x, "map/y": y}
    return found
