"""Record a run in MLflow's local store, DIR/mlflow.db.

PYTHONPATH=examples/sinks python -m dials_mpi.train sinks=[mlflow_local:MlflowSink]
Look at it with: mlflow ui --backend-store-uri sqlite:///DIR/mlflow.db
Each session is an MLflow run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlflow
import numpy as np

from dials_mpi import settings
from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.run.sinks import Session, Sink


class MlflowSink(Sink):
    """Logs mean returns and the means of the training metrics over the agents."""

    def session(self, session: Session) -> None:
        """Start an MLflow run with the configuration."""
        mlflow.set_tracking_uri(f"sqlite:///{session.directory.resolve()}/mlflow.db")
        mlflow.set_experiment("dials_mpi")
        mlflow.start_run(run_name=f"{session.directory.name} from {session.env_steps} steps")
        mlflow.log_params(settings.flat(session.config))

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """Log each metric's mean."""
        means = dict(zip(columns, metrics.mean(axis=0).tolist(), strict=True))
        mlflow.log_metrics({f"training/{name}": mean for name, mean in means.items()}, step=env_steps)

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Log the mean return."""
        mlflow.log_metrics({"evaluation/return": evaluation.mean}, step=env_steps)

    def close(self) -> None:
        """End the MLflow run."""
        mlflow.end_run()
