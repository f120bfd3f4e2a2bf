"""What a study comes to before anything is trained: loaded, checked and counted."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ablate.config.builtin import absolute_data
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec, Value
from ablate.data import datasets, flips
from ablate.errors import BadInput
from ablate.models import checkpoints, layer_groups, loading, locating, unquantizable
from ablate.profiling import macs
from ablate.profiling.cost_model import Count, Counter
from ablate.runs.record import Record, arm
from ablate.search.confirmation import is_searched
from ablate.search.experiment_design import Design
from ablate.search.searcher import Search
from ablate.training import trial
from ablate.training.optim import check_single
from ablate.training.trainer import resolve


@dataclass(frozen=True)
class Plan:
    """What a study comes to before anything is trained: its search and its dataset, loaded and checked."""

    study: StudySpec
    groups: dict[str, list[str]]
    dataset: datasets.Dataset
    search: Search | Design
    count: Counter  # what is bounded of a trial's cost, before it is trained
    left_out: tuple[str, ...] = ()  # why some layers of the model can't be quantized
    notices: tuple[str, ...] = ()  # what the user should know before anything is trained

    @property
    def contents(self) -> dict[str, str]:
        """What the dataset and the model hold, whatever they are called."""
        return {
            "dataset_sha256": self.dataset.digest,
            "model_sha256": loading.start(self.study.model, self.dataset.classes),
        }

    @property
    def anchors(self) -> list[TrialSpec]:
        """The first point of each kind: a fresh search's first proposals."""
        fresh = proposer_of(self.study, self.search.groups, [], self.count)
        first = list(itertools.islice(iter(fresh.ask, None), min(self.study.trials, 4)))
        return list({(arm(spec), *spec.layers): spec for spec in reversed(first)}.values())[::-1]


def plan(study: StudySpec, records: Sequence[Record] = ()) -> Plan:
    """Load what the study names and check that it fits together; its search knows `records`. Raises BadInput."""
    absolute = {"model": locating.absolute(study.model), "data": absolute_data(study.data, Path())}
    study = study.model_copy(update={"recipe": resolve(study.recipe), **absolute})
    dataset = trial.load_data(study.data, study.model)
    study, notices = _flips(study, dataset, records)
    model, preprocess = (
        checkpoints.load(study.model, dataset.classes),
        trial.preprocess_of(study.model, dataset),
    )
    try:
        macs.count(model, preprocess.size)
    except Exception as error:
        size = "x".join(str(side) for side in preprocess.size)
        raise BadInput(
            f"model {study.model!r} must take the {size} images that its processor makes, but: {error}"
        ) from None
    found = layer_groups.groups(model)
    chosen = dict.fromkeys(
        name for pattern in study.space.groups for name in layer_groups.match(pattern, found, "layer group")
    )
    for step in (*study.steps, *([study.reference] if study.reference else [])):
        for pattern in step.groups:
            layer_groups.match(pattern, chosen, "layer group")
    _check_rungs(study, dataset)
    _check_blocks(study, model)
    if 1 in (len(dataset.train), *_asked(study, "batch_size")):
        check_single(
            model, preprocess(torch.from_numpy(dataset.train.images[:1].transpose(0, 3, 1, 2).copy()))
        )
    count = Counter(model, preprocess, found)
    search = proposer_of(study, [name for name in found if name in chosen], records, count)
    if isinstance(search, Design):
        if study.trials not in (search.size, StudySpec.model_fields["trials"].default):
            raise BadInput(f"trials must be the design's {search.size}, but got {study.trials}; leave it out")
        study = study.model_copy(update={"trials": search.size})
    planned = Plan(
        study,
        found,
        dataset,
        search,
        count,
        tuple(dict.fromkeys(unquantizable.unquantizable(model).values())),
        notices,
    )
    if not planned.anchors:
        unbounded = proposer_of(study.model_copy(update={"max_size_bytes": None}), search.groups, [], count)
        if not (sizes := [count(spec)["size_bytes"] for _ in range(10) if (spec := unbounded.ask())]):
            raise BadInput(
                f"space {study.space.name!r} must have a point, but the values of its axes exclude each other"
            )
        raise BadInput(
            f"max_size_bytes must leave a point, but got {study.max_size_bytes}; one has {min(sizes)}, so try that"
        )
    return planned


def _flips(
    study: StudySpec, dataset: datasets.Dataset, records: Sequence[Record]
) -> tuple[StudySpec, tuple[str, ...]]:
    """The study with its flips decided, and what to say of it. Raises BadInput for records that were decided otherwise."""
    note = flips.notice(_asked(study, "augment"), dataset.mirrored)
    if dataset.mirrored and any(record["spec"]["recipe"].get("augment") is True for record in records):
        raise BadInput(f"a version that flipped images began this run. {note} Begin a new run")
    return flips.decided(study, dataset.mirrored), (note,) if note else ()


def _check_rungs(study: StudySpec, dataset: datasets.Dataset) -> None:
    """Raises BadInput where the smallest rung over the data lacks a class: its images would be the next rung's again."""
    if not (parts := study.early_stopping.one_in if study.early_stopping else ()):
        return
    rarest, least = min(np.bincount(dataset.train.labels)), min(map(float, values(study.space.fraction)))
    if (left := rarest * least / parts[0]) < 1:
        raise BadInput(
            f"early_stopping's smallest rung must keep an image of each class, but 1/{parts[0]} of the trial's would be "
            f"{left:.2g} of one; take fewer rungs, a smaller reduction or a larger fraction"
        )


def _check_blocks(study: StudySpec, model: torch.nn.Module) -> None:
    """Raises BadInput where a recipe asks for the blocks of a model that has none."""
    for field, off in {"compile": "false", "distill_blocks": "0"}.items():
        if not layer_groups.blocks(model) and any(_asked(study, field)):
            raise BadInput(
                f"{field} needs a model with blocks, and {study.model!r} has none; set {field} = {off}"
            )


def _asked(study: StudySpec, field: str) -> list[Value]:
    """Every value that a study has for a part of the recipe, wherever it is said."""
    steps = (*study.steps, *([study.reference] if study.reference else []))
    recipes = [
        study.recipe.model_dump(),
        study.space.recipe,
        study.tune,
        *(part for s in steps for part in (s.recipe, s.tune)),
    ]
    return [value for recipe in recipes if field in recipe for value in values(recipe[field])]


def proposer_of(
    study: StudySpec, groups: list[str], records: Sequence[Record], count: Count
) -> Search | Design:
    """What proposes a study's trials."""
    if study.design:
        return Design(study, groups, records)
    return Search(study, groups, filter(is_searched, records), count)
