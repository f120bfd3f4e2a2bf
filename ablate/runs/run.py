"""A run's folder: the study as resolved, the ledger, the state, and each trial's files."""

import json
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tomli_w

from ablate.config.study_spec import StudySpec, load_study
from ablate.errors import BadInput, write_error
from ablate.files import write_atomic
from ablate.formatting import images_of
from ablate.paths import local_path
from ablate.runs import ledger
from ablate.runs.locks import owner
from ablate.runs.provenance_file import versions_then_and_now
from ablate.runs.record import FIELDS, is_candidate
from ablate.runs.state import ENDED, State, state_of

if TYPE_CHECKING:
    import optuna

RUNS = Path("runs")
GLIMPSE_SECONDS = 2.5  # within which a driver on another host has a heartbeat


@dataclass(frozen=True)
class Run:
    """One execution of a study, by its folder.

    `study` and `records` are read once. Load the run again to see newer records.
    """

    path: Path

    @cached_property
    def study(self) -> StudySpec:
        """The study as it was resolved. Raises BadInput where study.toml cannot be read."""
        try:
            return load_study(str(self.path / "study.toml"))
        except BadInput as error:
            if not (versions := versions_then_and_now(self.path, "ablate-vit")):
                raise
            made = "the run is of ablate {}, and this is {}: use that one".format(*versions)
            raise BadInput(f"{error} ({made})") from None

    @cached_property
    def records(self) -> pd.DataFrame:
        """The ledger as a table: one row a trial, in the order in which they ended."""
        records = ledger.read(self.path / "ledger.jsonl")
        others = [name for record in records for name in record]
        columns = dict.fromkeys([*FIELDS, "rungs", *self.study.own_objectives, *others])
        return pd.DataFrame([{"rungs": [], **record} for record in records], columns=list(columns))

    @property
    def searched(self) -> pd.DataFrame:
        """The records of the search, or of the design, without those that confirm its front."""
        tested = self.records["spec"].map(lambda spec: spec["test"]).astype(bool)
        return self.records if self.study.design else self.records[~tested]

    @property
    def candidates(self) -> pd.DataFrame:
        """The records that may be on the front: `searched`, without the anchors' further seeds."""
        kept = self.records["spec"].map(lambda spec: is_candidate(spec, self.study))
        return self.records[kept.astype(bool)]

    @property
    def tested(self) -> str:
        """Which half the test accuracies of the records are of, as a sentence; "" where they are of none."""
        specs = self.records.loc[self.records["test_accuracy"].notna(), "spec"]
        parts = dict.fromkeys(spec["test"] for spec in specs)
        if all(part is True for part in parts):
            return ""
        opened = ", which this run opened" if "B" in parts else ""
        return f"Test accuracies are of {' and of '.join(map(images_of, parts))}{opened}."

    @property
    def state(self) -> State:
        """The driver's last sign of life; empty where there is none that can be read."""
        try:
            return state_of(json.loads((self.path / "state.json").read_text(encoding="utf-8-sig")))
        except (OSError, ValueError):
            return State()

    @property
    def alive(self) -> bool:
        """Whether a driver or its writer has the run now, here or, by its heartbeat, on another host."""
        return self.driven_elsewhere or owner(self.path) is not None

    @property
    def driven_elsewhere(self) -> bool:
        """Whether a driver on another host has a heartbeat. Its lock may be unseen here."""
        state = self.state
        if not state or state["host"] == socket.gethostname() or state["status"] in ENDED:
            return False
        if 0 <= time.time() - state["heartbeat"] < 60:
            return True
        time.sleep(GLIMPSE_SECONDS)  # the other host's clock may be another
        return self.state.get("heartbeat") != state["heartbeat"]

    def export(self, to: str | Path, trial: str | None = None, max_size_bytes: int | None = None) -> str:
        """Copy the packed model of a trial to a new folder. A run keeps the weights of its front only.

        Args:
            to: The new folder.
            trial: The trial's id, or its first characters.
            max_size_bytes: In place of `trial`: the most accurate one up to this size is copied.

        Returns:
            The trial's id.

        Raises:
            BadInput: The run keeps no weights of such a trial, or the folder exists or cannot be made.
            WriteFailed: The disk is full.
        """
        from ablate.runs.export import export_model

        return export_model(self, to, trial, max_size_bytes)

    def to_optuna(self, storage: str) -> "optuna.Study":
        """Write the run as a study of Optuna, named as the run's folder, for optuna-dashboard.

        Args:
            storage: A URL, as sqlite:///studies.db.

        Returns:
            The study.

        Raises:
            BadInput: The storage cannot be opened, or has a study of that name.
        """
        from ablate.runs.export import to_optuna

        return to_optuna(self, storage)

    def write_state(self, state: State) -> None:
        """Replace state.json in one step, so that a reader never sees half of it."""
        fresh = self.path / ".state.json"
        fresh.write_text(json.dumps(state), encoding="utf-8")
        fresh.replace(self.path / "state.json")


def create_run(path: Path, study: StudySpec, provenance: dict[str, Any]) -> Run:
    """Make a run in a folder. study.toml is written last: a folder with it is a run.

    Args:
        path: The folder, made where there is none.
        study: The resolved study.
        provenance: Where its numbers come from; see `runs.provenance`.

    Returns:
        The run, without records.

    Raises:
        BadInput: The folder cannot be written.
        WriteFailed: The disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "ledger.jsonl").touch()
        write_atomic(path / "provenance.json", json.dumps(provenance, indent=1).encode())
        write_study(path, study)
    except OSError as error:
        rule = "--out must be a folder that can be written"
        raise write_error(error, f"{rule}, but {str(path)!r}: {error.strerror}") from None
    return Run(path)


def write_study(path: Path, study: StudySpec) -> None:
    """Replace study.toml in one step."""
    off: dict[str, Any] = {"described": {}, "final": None}  # older versions do not know these fields
    fields = study.model_dump(exclude={name for name, value in off.items() if getattr(study, name) == value})
    write_atomic(path / "study.toml", tomli_w.dumps(_toml(fields)).encode())


def load_run(path: str | Path) -> Run:
    """Return the run in a folder. Raises BadInput where there is none."""
    path = local_path(path).absolute()
    if not (path / "study.toml").is_file():
        fault = "holds no study.toml" if path.exists() else "does not exist"
        rule = f"RUN must be the folder of a run, but {str(path)!r} {fault}"
        raise BadInput(f"{rule}; runs are made by `ablate study`")
    return Run(path)


def latest_run() -> Run:
    """Return the newest run below runs/ in the working directory. Raises BadInput where there is none."""
    files = sorted(RUNS.glob("*/study.toml"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise BadInput(f"no run below {str(RUNS.absolute())!r}; start one with `ablate study` or give RUN")
    return load_run(files[-1].parent)


def check_idle(run: Run) -> None:
    """Raise BadInput, naming the owner, when a driver has the run, here or on another host."""
    if run.alive:
        raise driven(run)


def driven(run: Run) -> BadInput:
    """Return the error for a run that another process drives. The run's lock, or its state, names it."""
    holder, state = owner(run.path), run.state
    who = "another process, until just now" if holder is None else f"process {holder.pid}"
    if run.driven_elsewhere or (holder and holder.pid == state.get("pid")):
        who = f"process {state['pid']} on {state['host']}"
    return BadInput(
        f"RUN must have no live driver, but {str(run.path)!r} is driven by {who}; wait a minute, or stop it"
    )


def _toml(value: Any) -> Any:
    """Return a value for TOML: None becomes the word "none", which specs read back."""
    if isinstance(value, dict):
        return {key: _toml(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_toml(item) for item in value]
    return "none" if value is None else value
