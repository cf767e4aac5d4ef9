"""Record a run for Weights & Biases without a network; ``wandb sync`` uploads it later.

PYTHONPATH=examples/sinks python -m dials_mpi.train sinks=[wandb_offline:WandbSink]
Each session is a W&B run of its own, in a group of the run directory's name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import wandb

from dials_mpi import settings
from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.run.sinks import Session, Sink


class WandbSink(Sink):
    """Logs mean returns and the means of the training metrics over the agents."""

    def session(self, session: Session) -> None:
        """Start a W&B run with the configuration."""
        where = {"dir": str(session.directory), "group": session.directory.name, "mode": "offline"}
        self.run = wandb.init(project="dials_mpi", config=settings.flat(session.config), **where)
        self.run.define_metric("*", step_metric="env_steps")

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """Log each metric's mean."""
        means = dict(zip(columns, metrics.mean(axis=0).tolist(), strict=True))
        self.run.log({"env_steps": env_steps, **{f"training/{name}": mean for name, mean in means.items()}})

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Log the mean return."""
        self.run.log({"env_steps": env_steps, "evaluation/return": evaluation.mean})

    def close(self) -> None:
        """Finish the W&B run."""
        self.run.finish()
