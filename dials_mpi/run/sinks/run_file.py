"""What a run writes down about itself: root's rows and arrays of the run file (docs/run-file.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.algorithm.learners import TRAINING
from dials_mpi.core.provenance import PROCESSORS, several
from dials_mpi.core.timing import PHASES
from dials_mpi.domains.base import Statistic
from dials_mpi.learning.influence import Fit
from dials_mpi.storage.runfile import RunFile


class Record:
    """The run file of a run that goes on; what is noted comes into it with ``run.commit``.

    N agents, R regions, W ranks; env_steps are those done, per agent.
    """

    def __init__(self, directory: str, statistics: Sequence[Statistic]) -> None:
        self.run = RunFile(directory, {statistic.name: statistic.unit for statistic in statistics})

    def session(
        self, hosts: Sequence[str], told: Mapping[str, Sequence[str]], holders: Sequence[int]
    ) -> None:
        """Which machine each rank [W] is on, and what it tells of its processor and libraries; which rank
        holds each region [R]."""
        self.run.write({"placement/rank": holders}, hosts=hosts, ranks=len(hosts))
        versions = {name: several(kinds) for name, kinds in told.items() if name != PROCESSORS}
        self.run.write_session(**versions, processors=told[PROCESSORS], hosts=hosts)

    def refit(self, env_steps: int, losses: np.ndarray) -> None:
        """The cross-entropies of a fit, [R, len(Fit)]."""
        columns = zip(Fit._fields, losses.T, strict=True)
        series = {f"influence/cross_entropy_{name}": column for name, column in columns}
        self.run.append({"influence/env_steps": env_steps, **series})

    def training(self, env_steps: int, metrics: np.ndarray) -> None:
        """The metrics of a segment, [N, len(TRAINING)]."""
        columns = zip(TRAINING, metrics.T, strict=True)
        series = {f"training/{name}": column for name, column in columns}
        self.run.append({"training/env_steps": env_steps, **series})

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """An evaluation; wall_time: seconds that the run has taken."""
        row = {"env_steps": env_steps, "wall_time": wall_time, "returns": evaluation.returns}
        if evaluation.cross_entropy is not None:
            row["cross_entropy"] = evaluation.cross_entropy
        self.run.append(
            {f"evaluation/{name}": value for name, value in row.items()}
            | {f"evaluation_statistics/{name}": values for name, values in evaluation.statistics.items()}
        )

    def last_evaluation(self) -> Evaluation:
        """The one that was written last."""
        row = self.run.last_row("evaluation")
        return Evaluation(
            row["returns"], self.run.last_row("evaluation_statistics"), row.get("cross_entropy")
        )

    def costs(self, env_steps: int, seconds: np.ndarray, memory: np.ndarray, failures: np.ndarray) -> None:
        """What time and memory went into since the last call.

        seconds [W, len(PHASES), 2]: wall-clock and CPU; memory [W, 2]: peak and proportional set, in bytes;
        failures [W]: breakdowns of simulators.
        """
        series = {f"timing/{phase}": seconds[:, k] for k, phase in enumerate(PHASES)}
        events = {"events/env_steps": env_steps, "events/simulator_failures": failures.astype(np.int64)}
        self.run.append({"timing/env_steps": env_steps, **series, **events})
        self.run.write({"memory/peak_rss": memory[:, 0], "memory/pss": memory[:, 1]})

    def references(self, results: Mapping[str, Evaluation]) -> None:
        """What the policies that need no training reach."""
        arrays = {f"reference/{name}": result.returns for name, result in results.items()}
        for name, result in results.items():
            for figure, values in result.statistics.items():
                arrays[f"reference_statistics/{name}/{figure}"] = values
        self.run.write(arrays)
