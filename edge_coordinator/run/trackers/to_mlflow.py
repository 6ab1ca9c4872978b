"""MLflow: where MLFLOW_TRACKING_URI says, or in a database beside the runs."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

_EXPERIMENT = "cpsl"


class MlflowTracker:
    """One run of the experiment `cpsl`, by the name of the run's directory."""

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        for chatty in ("mlflow", "alembic"):  # They tell of every table of a new database.
            logging.getLogger(chatty).setLevel(logging.WARNING)
        beside = f"sqlite:///{path.resolve().parent / 'mlflow.db'}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or beside)
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(_EXPERIMENT)
        self._run = self._client.create_run(experiment, run_name=path.name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._run, key, value)

    def log(self, round_: int, figures: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        for name, figure in figures.items():
            self._client.log_metric(self._run, name, figure, step=round_)

    def close(self, *, is_whole: bool) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self._run, status="FINISHED" if is_whole else "KILLED")


def open_tracker(path: Path, settings: Mapping[str, object]) -> MlflowTracker:
    """Begin a run."""
    return MlflowTracker(path, settings)
