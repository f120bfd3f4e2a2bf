"""A run as its findings read it, and what a finding is."""

import json
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis import bounds
from ablate.runs.run import Run
from ablate.search.experiment_design import Design


@dataclass(frozen=True)
class Finding:
    """title: the question. sentence: the answer, "" where there is none. notes: what cannot be said, and why.

    tables: by the name of their CSV file; the first is the one to show. applies: whether the study asks this at all.
    """

    title: str
    sentence: str = ""
    notes: tuple[str, ...] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    applies: bool = True

    def __bool__(self) -> bool:
        return any(len(table) for table in self.tables.values())


@dataclass(frozen=True)
class Seen:
    """A run as its findings read it: everything from the ledger once, predictions when they are asked for."""

    run: Run

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The search's or the design's complete trials with every objective, within the study's bounds."""
        found = bounds.feasible(self.run.searched, self.run.study.within)
        return found.dropna(subset=list(self.run.study.objectives)).reset_index(drop=True)

    @cached_property
    def directions(self) -> list[Any]:
        return list(self.run.study.directions.values())

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(n, objectives) of the complete trials."""
        return self.complete[list(self.run.study.objectives)].to_numpy(dtype=float)

    @cached_property
    def design(self) -> pd.DataFrame | None:
        """A row a trial of the design; None for a search."""
        if not self.run.study.design:
            return None
        records = self.run.records.to_dict("records")
        groups = self._provenance.get("layer_groups")
        if groups is None:  # a run of an older version
            groups = list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
        return Design(self.run.study, groups, records).table() if records else None

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.run.path / "provenance.json").read_text(encoding="utf-8-sig")))
        except (OSError, ValueError):
            return {}

    @property
    def digest(self) -> str | None:
        """Of the images and labels that the run's trials saw."""
        return self._provenance.get("dataset_sha256")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes; numbers for a run that did not keep them; [] where nothing tells."""
        if known := self._provenance.get("classes"):
            return [
                name.encode("utf-8", "backslashreplace").decode() for name in known
            ]  # a folder's name need not be Unicode
        for trial in self.complete["trial_id"]:
            if (found := self.predicted(trial)) is not None:
                return [str(i) for i in range(found[0].shape[1])]
        return []

    def predicted(self, trial_id: str, split: str = "validation") -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Logits (N, classes) and labels (N,) of a trial; None where they were not kept."""
        try:
            with (self.run.path / "predictions" / f"{trial_id}.npz").open("rb") as raw, np.load(raw) as file:
                return file[f"{split}_logits"], file[f"{split}_labels"]
        except (OSError, EOFError, KeyError, ValueError, BadZipFile, zlib.error):  # a half-copied folder
            return None
