"""A run in Weights & Biases: a group of a run for each trial, and one for the study's figures and tables."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.errors import BadInput
from ablate.tracking.trial_entry import RunEntry, TrialEntry

PROJECT = "ablate"  # unless WANDB_PROJECT says another
STUDY = "study"
DRAFT = ".draft-"
# The client records neither the command line, which may hold another tracker's password, nor code or output.
QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}


class WandbTracker:
    """Writes to the server that the client is logged in to or, in its offline mode, to a folder.

    The folder is WANDB_DIR, or the run's own. There a trial is whole or not at all; on the server one that
    was cut short goes on at its last epoch.

    Args:
        project: [ENTITY/]PROJECT, or "".
        run: The run.

    Raises:
        BadInput: The client is disabled, or not logged in.
    """

    def __init__(self, project: str, run: RunEntry) -> None:
        import wandb

        self.run, self.wandb = run, wandb
        self.entity, _, self.project = project.rpartition("/")
        self.project = self.project or os.environ.get("WANDB_PROJECT", PROJECT)
        mode = wandb.setup().settings.mode
        if mode == "disabled":
            raise BadInput("wandb must be online or offline, but it is disabled here; run `wandb online`")
        self.offline = mode in ("offline", "dryrun")
        if not self.offline and not wandb.login(prompt=False):
            rule = "wandb must be logged in or offline, but has no key here"
            raise BadInput(f"{rule}; run `wandb login` or `wandb offline`")
        self.folder = Path(os.environ.get("WANDB_DIR") or run.path) / "wandb"

    @property
    def hint(self) -> str:
        return f"wandb sync {self.folder}/offline-run-*" if self.offline else f"project {self.project}"

    def known(self) -> set[str]:
        prefix = f"{self.run.identity}-"
        if self.offline:
            for draft in self.folder.glob(f"{DRAFT}*"):  # of a process that was killed
                shutil.rmtree(draft, ignore_errors=True)
            ids = [
                folder.name.partition(prefix)[2] for folder in self.folder.glob(f"offline-run-*-{prefix}*")
            ]
            return {*ids}
        api = self.wandb.Api()
        runs = api.runs(f"{self.entity or api.default_entity}/{self.project}", {"group": self._group})
        with suppress(ValueError, self.wandb.errors.CommError):  # a project that is not there yet
            return {run.id.removeprefix(prefix) for run in runs if run.state in ("finished", "failed")}
        return set()

    def add(self, trial: TrialEntry) -> None:
        def write(run: Any) -> None:
            for epoch, row in trial.curve.items():
                run.log(row, step=epoch)
            run.summary.update({**trial.outcome, **trial.text})

        self._write(trial.name, trial.parameters, [trial.status], trial.status == "failed", write)

    def finish(self, status: str, figures: Sequence[Path], tables: Sequence[Path]) -> None:
        from ablate.reporting.csv_tables import read_csv

        def write(run: Any) -> None:
            images = {f"figures/{file.stem}": self.wandb.Image(str(file)) for file in figures}
            rows = {f"tables/{file.stem}": self.wandb.Table(dataframe=read_csv(file)) for file in tables}
            run.log(images | rows)

        for stale in self.folder.glob(f"offline-run-*-{self.run.identity}-{STUDY}"):
            shutil.rmtree(stale)
        self._write(
            STUDY, {"question": self.run.question}, [status] if status else [], status == "failed", write
        )

    @property
    def _group(self) -> str:
        return f"{self.run.path.name}-{self.run.identity}"

    def _write(self, name: str, config: dict[str, Any], tags: list[str], failed: bool, write: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=DRAFT) as draft:
            run = self.wandb.init(
                entity=self.entity or None,
                project=self.project,
                group=self._group,
                id=f"{self.run.identity}-{name}",
                name=name,
                config=config,
                tags=tags,
                dir=draft,
                resume="allow",
                reinit="create_new",
                settings=self.wandb.Settings(**QUIET),
            )
            try:
                write(run)
            finally:
                run.finish(exit_code=int(failed))
            for folder in Path(draft).glob("wandb/offline-run-*"):
                folder.rename(self.folder / folder.name)
