"""The one process that writes a run's ledger, predictions and weights."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ablate.errors import BadInput
from ablate.files import write_atomic
from ablate.runs import ledger
from ablate.runs.locks import hold
from ablate.runs.progress import EpochProgress
from ablate.runs.record import Record


class Writer:
    """Writes a run's ledger, predictions and weights. It holds the run's writer lock for as long as it lives.

    Args:
        path: The run's folder.

    Raises:
        BadInput: The run has another writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if (lock := hold(path, "writer")) is None:
            raise BadInput(f"a run must have one writer, but {str(path)!r} has another")
        self._lock = lock
        self._untaken: dict[str, Record] = {}  # by trial id
        self._noted: dict[str, Record] = {}
        self._progress: dict[str, EpochProgress] = {}
        self._trouble = ""
        self._written = {record["trial_id"] for record in ledger.read(path / "ledger.jsonl")}

    def write(self, record: Record, predictions: dict[str, Any], weights: dict[str, bytes]) -> None:
        """Store a trial: its files first, then its record.

        A trial that has a record keeps it: a worker that was given up for dead may still write. After `close`
        nothing is stored.

        Args:
            record: The record.
            predictions: Arrays by name: logits (N, classes), labels (N,). Empty without an outcome.
            weights: The files of the packed model, by name.

        Raises:
            OSError: The folder cannot be written.
        """
        name = record["trial_id"]
        if name in self._written or self._lock.closed:
            return
        try:
            self._write(name, record, predictions, weights)
        except OSError as error:
            self._trouble = f"{self.path} cannot be written: {error.strerror}"
            raise

    def _write(
        self, name: str, record: Record, predictions: dict[str, Any], weights: dict[str, bytes]
    ) -> None:
        if predictions:
            np.savez_compressed(packed := io.BytesIO(), **predictions)
            write_atomic(self.path / "predictions" / f"{name}.npz", packed.getvalue())
        shutil.rmtree(self.path / "weights" / name, ignore_errors=True)  # left by a writer that was killed
        for file, content in weights.items():
            write_atomic(self.path / "weights" / name / file, content)
        ledger.append(self.path / "ledger.jsonl", record)
        self._noted.pop(name, None)
        self._progress.pop(name, None)
        self._written.add(name)
        self._untaken[name] = record

    def close(self) -> None:
        """Give up the run, so that another driver can have it at once."""
        self._lock.close()

    def note(self, record: Record) -> None:
        """Remember the record so far of a running trial, in case it is pruned."""
        self._noted[record["trial_id"]] = record

    def noted(self, name: str) -> Record:
        """Return the record that was noted last of a running trial."""
        return self._noted[name]

    def report(self, name: str, progress: EpochProgress | None) -> None:
        """Remember how far the epoch of a running trial is; None: it has ended, or not begun."""
        if progress is None:
            self._progress.pop(name, None)
        else:
            self._progress[name] = progress

    def progress(self) -> dict[str, EpochProgress]:
        """Return how far the epochs of the running trials are, by trial id."""
        return self._progress

    def prune(self, name: str, reason: str) -> None:
        """Store a running trial as pruned: the record noted last, with its curve and without an outcome."""
        self.write({**self._noted[name], "status": "pruned", "error": reason}, {}, {})

    def trouble(self) -> str:
        """Return why the folder could not be written, "" where it could."""
        return self._trouble

    def has(self, name: str) -> bool:
        """Return whether a record was written and not taken yet."""
        return name in self._untaken

    def take(self, name: str) -> Record:
        """Return a record that was written, once."""
        return self._untaken.pop(name)

    def keep(self, names: list[str]) -> None:
        """Delete the weights of every trial but these, on the front, and those that were not taken yet."""
        for folder in (self.path / "weights").glob("*"):
            if folder.name not in names and folder.name not in self._untaken:
                # Hidden first: `export` copies all of a folder or none.
                shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))
