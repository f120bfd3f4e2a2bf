"""A run's folder: the study as resolved, the ledger, the state, and each trial's files."""

import json
import shutil
import socket
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tomli_w

from ablate.config.study_spec import StudySpec, load_study
from ablate.errors import BadInput, WriteFailed, write_error
from ablate.files import write_atomic
from ablate.runs import ledger
from ablate.runs.locks import owner
from ablate.runs.record import FIELDS

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

RUNS = Path("runs")
ENDED = ("finished", "exhausted", "interrupted", "failed")  # what a driver's last words may be


@dataclass(frozen=True)
class Run:
    """One execution of a study. `records` is read from the ledger once; load the run again to see newer ones."""

    path: Path

    @cached_property
    def study(self) -> StudySpec:
        """What was asked, as it was resolved. Raises BadInput where study.toml cannot be read."""
        return load_study(str(self.path / "study.toml"))

    @cached_property
    def records(self) -> pd.DataFrame:
        """The ledger as a table: one row a trial, in the order in which they ended."""
        records = ledger.read(self.path / "ledger.jsonl")
        columns = dict.fromkeys([*FIELDS, "rungs", *(name for record in records for name in record)])
        return pd.DataFrame([{"rungs": []} | record for record in records], columns=list(columns))

    @property
    def searched(self) -> pd.DataFrame:
        """The records that the search, or the design, made: all but those that confirm its front."""
        tested = self.records["spec"].map(lambda spec: spec["test"]).astype(bool)
        return self.records if self.study.design else self.records[~tested]

    @property
    def state(self) -> dict[str, Any]:
        """The driver's last sign of life; {} where there is none that can be read."""
        try:
            state = json.loads((self.path / "state.json").read_text(encoding="utf-8-sig"))
            return state if "counts" in state else {}
        except (OSError, ValueError, TypeError):
            return {}

    @property
    def alive(self) -> bool:
        """Whether a driver, or its writer, has the run now: by its lock or, on another host, a heartbeat of the last minute."""
        return self.driven_elsewhere or owner(self.path) is not None

    @property
    def driven_elsewhere(self) -> bool:
        """Whether a driver on another host, whose lock may not be seen here, gave a sign of life within the last minute."""
        state = self.state
        elsewhere = state and state["host"] != socket.gethostname() and state["status"] not in ENDED
        return bool(elsewhere) and time.time() - state["heartbeat"] < 60

    def export(self, to: Path, trial: str | None = None, max_size_bytes: int | None = None) -> str:
        """Copy the packed model of a trial, or of the most accurate one up to a size, to a new folder; the trial's id.

        Raises BadInput where the run keeps no weights of such a trial: it keeps those of its front; WriteFailed on a full disk.
        """
        kept = [folder.name for folder in sorted((self.path / "weights").glob("*"))]
        rows = self.searched[self.searched["trial_id"].isin(kept)].sort_values("accuracy")
        if (trial is None) == (max_size_bytes is None):
            raise BadInput("say which trial: give either --trial or --max-size-bytes")
        if trial is not None:
            rows = rows[rows["trial_id"].str.startswith(trial)]
            rule = f"a trial whose id starts with {trial!r}"
        else:
            rows = rows[rows["size_bytes"] <= max_size_bytes]
            rule = f"a trial of at most {max_size_bytes} bytes"
        if trial is not None and len(rows) > 1:
            raise BadInput(f"--trial must name one trial, but {trial!r} begins {', '.join(rows['trial_id'])}")
        if rows.empty:
            raise BadInput(
                f"{str(self.path)!r} has the weights of its front only, and no {rule[2:]}: {', '.join(kept)}"
            )
        name = str(rows.iloc[-1]["trial_id"])
        try:
            contents = {
                file.name: file.read_bytes() for file in sorted((self.path / "weights" / name).iterdir())
            }
        except FileNotFoundError:
            raise BadInput(f"trial {name} has just left the front of {str(self.path)!r}; try again") from None
        try:
            to.mkdir(parents=True)
        except FileExistsError:
            raise BadInput(f"--to must be a new folder, but {str(to)!r} exists; give another") from None
        except OSError as error:
            raise write_error(
                error, f"--to must be a new folder, but {str(to)!r}: {error.strerror}; give another"
            ) from None
        try:
            for file, content in contents.items():
                (to / file).write_bytes(content)
        except BaseException as error:
            shutil.rmtree(to, ignore_errors=True)  # nothing half done
            if isinstance(error, OSError):
                raise WriteFailed(
                    f"trial {name} could not be copied to {str(to)!r}: {error.strerror}"
                ) from None
            raise
        return name

    def to_optuna(self, storage: str) -> "optuna.Study":
        """The run as an Optuna study of its folder's name, for optuna-dashboard; a storage is a URL, as sqlite:///studies.db.

        Raises BadInput where the storage has a study of that name, or can't be used.
        """
        import optuna  # this and scipy take a second, which `status` must not wait
        from optuna.trial import TrialState

        from ablate.analysis.importance import parameters

        records, directions = self.searched, self.study.directions
        points = parameters(records)
        axes = {name: _axis([v for v in points[name] if v is not None]) for name in points}
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=self.path.name,
                directions=["maximize" if best == "max" else "minimize" for best in directions.values()],
            )
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise BadInput(
                f"storage must be a URL that Optuna can open, without a study {self.path.name!r}: {reason}"
            ) from None
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(list(directions))
        for point, record in zip(points.to_dict("records"), records.to_dict("records"), strict=True):
            params = {name: value for name, value in point.items() if value is not None}
            values = [record[name] for name in directions]
            complete = record["status"] == "complete" and not any(pd.isna(value) for value in values)
            trial = optuna.create_trial(
                state=TrialState.COMPLETE
                if complete
                else TrialState.PRUNED
                if record["status"] == "pruned"
                else TrialState.FAIL,
                params=params,
                distributions={name: axes[name] for name in params},
                values=values if complete else None,
                user_attrs={"trial_id": record["trial_id"], "error": record["error"]},
            )
            study.add_trial(trial)
        return study

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace state.json in one step, so that a reader never sees half of it."""
        fresh = self.path / ".state.json"
        fresh.write_text(json.dumps(state), encoding="utf-8")
        fresh.replace(self.path / "state.json")


def _axis(values: list[Any]) -> "BaseDistribution":
    """Numbers on a range, all else as choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(values)))


def create_run(path: Path, study: StudySpec, provenance: dict[str, Any]) -> Run:
    """A new run's folder; with study.toml, which is written last, it is one. Raises BadInput when it can't be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "ledger.jsonl").touch()
        write_atomic(path / "provenance.json", json.dumps(provenance, indent=1).encode())
        write_study(path, study)
    except OSError as error:
        raise write_error(
            error, f"--out must be a folder that can be written, but {str(path)!r}: {error.strerror}"
        ) from None
    return Run(path)


def write_study(path: Path, study: StudySpec) -> None:
    """Replace study.toml in one step."""
    write_atomic(path / "study.toml", tomli_w.dumps(_toml(study.model_dump())).encode())


def load_run(path: str | Path) -> Run:
    """The run in a folder. Raises BadInput when there is none."""
    path = Path(path).absolute()
    if not (path / "study.toml").is_file():
        raise BadInput(
            f"RUN must be the folder of a run, but {str(path)!r} holds no study.toml; runs are made by `ablate study`"
        )
    return Run(path)


def latest_run() -> Run:
    """The newest run below runs/ in the working directory."""
    found = sorted(RUNS.glob("*/study.toml"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise BadInput(f"no run below {str(RUNS.absolute())!r}; start one with `ablate study` or give RUN")
    return load_run(found[-1].parent)


def check_idle(run: Run) -> None:
    """Raises BadInput, naming the owner, when a driver has the run, here or on another host."""
    if run.alive:
        raise driven(run)


def driven(run: Run) -> BadInput:
    """The refusal of a run that another process drives, named by its lock or, on another host, by its last sign of life."""
    held, state = owner(run.path), run.state
    who = "another process, until just now" if held is None else f"process {held.pid}"
    if run.driven_elsewhere or (held and held.pid == state.get("pid")):
        who = f"process {state['pid']} on {state['host']}"
    return BadInput(
        f"RUN must have no live driver, but {str(run.path)!r} is driven by {who}; wait a minute, or stop it"
    )


def _toml(value: Any) -> Any:
    """None becomes the word "none", which specs read back."""
    if isinstance(value, dict):
        return {key: _toml(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_toml(item) for item in value]
    return "none" if value is None else value
