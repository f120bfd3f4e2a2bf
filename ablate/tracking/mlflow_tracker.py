"""A run in MLflow: a parent run for the study, and a nested run for each trial."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ablate.tracking.trial_entry import RunEntry, TrialEntry

EXPERIMENT = "ablate"  # unless MLFLOW_EXPERIMENT_NAME says another
RUN, TRIAL = "ablate.run", "ablate.trial"  # tags
NOT_IN_NAMES = re.compile(r"[^\w\-./ :]")
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
STATUS_OF_RUN = {"finished": "FINISHED", "exhausted": "FINISHED", "failed": "FAILED"}
SETTINGS = {
    # A server that does not answer must not hold a study for MLflow's own 7 tries of 2 minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
METRICS, PARAMETERS = 1000, 100  # that a request may have


class MlflowTracker:
    """Writes to an MLflow server or database.

    Args:
        uri: Of it; "" is MLflow's own default, as MLFLOW_TRACKING_URI.
        run: The run.
    """

    def __init__(self, uri: str, run: RunEntry) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.run, self.client = run, MlflowClient(tracking_uri=uri or None)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self.client.get_experiment_by_name(name)
        self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.parent = ""

    @property
    def hint(self) -> str:
        return (
            f"experiment {os.environ.get('MLFLOW_EXPERIMENT_NAME', EXPERIMENT)!r}, run {self.run.path.name!r}"
        )

    def known(self) -> set[str]:
        names: set[str] = set()
        for found in [*self._runs()]:
            name = found.data.tags.get(TRIAL)
            if name is None:
                self.parent = found.info.run_id
            elif found.info.status == "RUNNING":  # what a process left that was killed
                self.client.delete_run(found.info.run_id)
            else:
                names.add(name)
        if self.parent:
            self.client.update_run(self.parent, status="RUNNING")
        else:
            tags = {RUN: self.run.identity, "mlflow.note.content": self.run.question}
            made = self.client.create_run(self.experiment, tags=tags, run_name=self.run.path.name)
            self.parent = made.info.run_id
        return names

    def add(self, trial: TrialEntry) -> None:
        from mlflow.entities import Metric, Param, RunTag

        started = round(1000 * (time.time() if trial.started is None else trial.started))  # ms
        tags = {RUN: self.run.identity, TRIAL: trial.name, "mlflow.parentRunId": self.parent}
        made = self.client.create_run(self.experiment, started, tags=tags, run_name=trial.name)
        run_id, params = made.info.run_id, [Param(_name(k), str(v)) for k, v in trial.parameters.items()]
        measured = [(name, value, epoch) for epoch, row in trial.curve.items() for name, value in row.items()]
        measured += [(name, value, 0) for name, value in trial.outcome.items()]
        metrics = [Metric(_name(name), value, started, step) for name, value, step in measured]
        for start in range(0, len(metrics), METRICS):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS])
        for start in range(0, len(params), PARAMETERS):
            self.client.log_batch(run_id, params=params[start : start + PARAMETERS])
        self.client.log_batch(run_id, tags=[RunTag(f"ablate.{k}", v) for k, v in trial.text.items()])
        # Last: a nested run that has ended is whole.
        self.client.set_terminated(run_id, STATUS[trial.status], started + round(1000 * trial.seconds))

    def finish(self, status: str, figures: Sequence[Path], tables: Sequence[Path]) -> None:
        for folder, files in {"figures": figures, "tables": tables}.items():
            for file in files:
                self.client.log_artifact(self.parent, str(file), folder)
        self.client.log_artifact(self.parent, str(self.run.path / "study.toml"))
        self.client.set_terminated(self.parent, STATUS_OF_RUN.get(status, "KILLED"))

    def _runs(self) -> Iterator[Any]:
        """All runs of this run in the experiment, its parent among them."""
        token = None
        while token != "":
            query = f"tags.`{RUN}` = '{self.run.identity}'"
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            yield from page
            token = page.token or ""


def _name(text: str) -> str:
    """A name that MLflow takes."""
    return NOT_IN_NAMES.sub("_", text)
