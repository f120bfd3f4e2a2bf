"""What the findings read of a run, and what a finding is."""

import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis import bounds
from ablate.config.objectives import TABLE
from ablate.runs.provenance_file import read_provenance
from ablate.runs.run import Run
from ablate.search.experiment_design import Design


@dataclass(frozen=True)
class Finding:
    """One question about a run, with its answer.

    Args:
        title: The question.
        sentence: The answer; "" where there is none.
        notes: What the run cannot answer, and why.
        tables: By the name of their CSV file; the first is the one to show.
        applies: Whether the study asks this question at all.
    """

    title: str
    sentence: str = ""
    notes: tuple[str, ...] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    applies: bool = True

    def __bool__(self) -> bool:
        return any(len(table) for table in self.tables.values())


@dataclass(frozen=True)
class RunResults:
    """A run's results: its ledger, read once, and the predictions of its trials, read on request."""

    run: Run

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The search's or the design's complete trials with every objective, within the study's bounds.

        Without the further seeds of a search's anchors.
        """
        trials = bounds.feasible(self.run.candidates, self.run.study.within)
        return trials.dropna(subset=list(self.run.study.objectives)).reset_index(drop=True)

    @cached_property
    def directions(self) -> list[Any]:
        """Of each objective, "min" or "max"."""
        return list(self.run.study.directions.values())

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(n, objectives) of the complete trials."""
        return self.complete[list(self.run.study.objectives)].to_numpy(dtype=float)

    @property
    def in_ratios(self) -> NDArray[np.bool_]:
        """(objectives,): whether one counts in ratios and all of its values have a logarithm."""
        asked = [TABLE[name].in_ratios for name in self.run.study.objectives]
        return np.array(asked) & (self.points > 0).all(axis=0)

    @property
    def scaled(self) -> NDArray[np.float64]:
        """The points (n, objectives), with the logarithm of what counts in ratios."""
        return np.where(self.in_ratios, np.log(np.where(self.in_ratios, self.points, 1.0)), self.points)

    @cached_property
    def design(self) -> pd.DataFrame | None:
        """A row a trial of the design; None for a search."""
        if not self.run.study.design:
            return None
        records = self.run.records.to_dict("records")
        groups = self.provenance.get("layer_groups")
        if groups is None:  # a run of an older version
            groups = list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
        return Design(self.run.study, groups, records).table() if records else None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What provenance.json holds; empty where it is missing or was copied in part."""
        return read_provenance(self.run.path)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the images and labels of the run's trials; None where it is not known."""
        return self.provenance.get("dataset_sha256")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes; numbers for a run that did not keep the names; [] where neither is known."""
        if names := self.provenance.get("classes"):
            # A folder's name need not be Unicode.
            return [name.encode("utf-8", "backslashreplace").decode() for name in names]
        for trial in self.complete["trial_id"]:
            if (predictions := self.predicted(trial)) is not None:
                return [str(i) for i in range(predictions[0].shape[1])]
        return []

    def predicted(self, trial_id: str, split: str = "validation") -> tuple[NDArray[Any], NDArray[Any]] | None:
        """The predictions of a trial.

        Args:
            trial_id: Of the trial.
            split: "validation" or "test".

        Returns:
            Logits (N, classes) and labels (N,); None where they were not kept.
        """
        try:
            with (self.run.path / "predictions" / f"{trial_id}.npz").open("rb") as raw, np.load(raw) as file:
                return file[f"{split}_logits"], file[f"{split}_labels"]
        # All of these come from a folder that was copied in part.
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, BadZipFile, zlib.error):
            return None
