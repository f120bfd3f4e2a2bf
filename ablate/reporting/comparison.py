"""Several runs side by side.

Runs that differ in nothing but their seeds are one group. Its samples are the points of each seed, of a run
each for a search, and of the paired seeds for a design.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.config.objectives import OBJECTIVES
from ablate.errors import BadInput
from ablate.reporting.run_results import RunResults
from ablate.runs.run import Run
from ablate.runs.same_study import study_fields

TEXTS = {"name", "question", "source", "cost", "expected", "command", "described"}  # they ask nothing
APART = TEXTS | {"seed", "model", "data"}  # in which runs of one group may differ
Points = NDArray[np.float64]


@dataclass
class Group:
    """Runs of one study with other seeds.

    Attributes:
        label: The name of the first run, and the number of seeds.
        key: What is equal in the runs of a group.
        runs: The runs.
        trials: The complete trials of each seed; (n, objectives) of them are the sample.
    """

    label: str
    key: str
    runs: list[RunResults] = field(default_factory=list)
    trials: dict[int, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Args:
        runs: The runs, by a label of their own.
        groups: The same, grouped.
        objectives: Those that all runs have, in the order of the first run.
    """

    runs: dict[str, RunResults]
    groups: list[Group]
    objectives: list[str]

    @property
    def directions(self) -> list[Any]:
        """Of each objective, "min" or "max"."""
        return [OBJECTIVES[name] for name in self.objectives]

    def samples(self, group: Group) -> dict[int, Points]:
        """(n, objectives) by seed."""
        return {seed: rows[self.objectives].to_numpy(dtype=float) for seed, rows in group.trials.items()}

    @property
    def pooled(self) -> Points:
        """(n, objectives) of all runs."""
        return np.vstack([points for group in self.groups for points in self.samples(group).values()])

    @property
    def same_data(self) -> bool:
        """Whether all runs have the same images, so that their accuracies compare."""
        digests = {results.digest for results in self.runs.values()}
        if None not in digests:
            return len(digests) == 1
        return len({results.run.study.data for results in self.runs.values()}) == 1


def comparison(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side.

    Args:
        runs: Two or more.

    Raises:
        BadInput: A run is given twice, no objective is shared, or no run has a complete trial.
    """
    paths = [run.path.resolve() for run in runs]
    if len({*paths}) < len(paths):
        raise BadInput(
            f"RUN must differ from the others, but {str(paths[0])!r} is given twice; leave one out"
        )
    labelled = dict(zip(_labels(paths), map(RunResults, runs), strict=True))
    theirs = [run.study.objectives for run in runs]
    shared = [name for name in theirs[0] if all(name in names for names in theirs)]
    if not shared:
        got = "; ".join(f"{label}: {', '.join(names)}" for label, names in zip(labelled, theirs, strict=True))
        raise BadInput(f"runs must share an objective to be compared, but got {got}; leave one out")
    groups: list[Group] = []
    for label, results in labelled.items():
        _add(groups, label, results)
    for group in groups:
        if len(group.trials) > 1:
            group.label += f" ({len(group.trials)} seeds)"
    if not any(group.trials for group in groups):
        raise BadInput(
            "runs must have complete trials to be compared, but none has; wait until one has ended"
        )
    return Comparison(labelled, groups, shared)


def _labels(paths: list[Path]) -> list[str]:
    """The names of the folders; those that are not unique with as much of their path as it takes."""
    names = [path.name for path in paths]
    if len({*names}) < len(names):
        shared = os.path.commonpath(paths)
        names = [os.path.relpath(path, shared) for path in paths]
    return names


def _add(groups: list[Group], label: str, results: RunResults) -> None:
    """Add a run to the group of its study, or begin one. A seed that is there already begins one too."""
    study, complete = results.run.study, results.complete
    paired = range(study.seed, study.seed + study.seeds)  # without those of tuning
    trials = {seed: rows for seed in paired if len(rows := complete[complete["seed"] == seed])}
    fields = {name: value for name, value in study_fields(study).items() if name not in APART}
    fields["space"] = {
        key: each for key, each in fields["space"].items() if key not in ("name", "description")
    }
    key = json.dumps([fields, contents(results)], sort_keys=True)
    fitting = (each for each in groups if each.key == key and not {*each.trials} & {*trials})
    group = next(fitting, None)
    if group is None:
        groups.append(group := Group(label, key))
    group.runs.append(results)
    group.trials |= trials


def contents(results: RunResults) -> dict[str, str]:
    """Model and data by their digests where these are known: folders may differ."""
    known, study = results.provenance, results.run.study
    return {
        "model": known.get("model_sha256") or study.model,
        "data": known.get("dataset_sha256") or study.data,
    }
