"""A study before anything is trained: its model and data loaded, checked and counted."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ablate.config.builtin import absolute_data
from ablate.config.recipe_values import attention_widths, recipe_values, steps_of
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets, flips
from ablate.engine.teachers import check_teachers, with_absolute_teachers
from ablate.errors import BadInput
from ablate.models import checkpoints, digests, layer_groups, locating, unquantizable
from ablate.models.preprocessing import Preprocess
from ablate.profiling import macs
from ablate.profiling.cost_model import Count, Counter
from ablate.runs import openings
from ablate.runs.record import Record, arm
from ablate.search.confirmation import is_searched
from ablate.search.design_cells import Cell
from ablate.search.experiment_design import Design
from ablate.search.searcher import Search
from ablate.training import trial
from ablate.training.optim import check_single
from ablate.training.trainer import resolve

N_ANCHORS = 4  # first proposals among which the anchors are
N_SIZES = 10  # points whose costs are tried where the bounds on them leave none
COUNTED_BOUNDS = {"max_size_bytes": "size_bytes", "max_bitops": "bitops"}  # known before latencies are


@dataclass(frozen=True)
class Plan:
    """A study before anything is trained.

    Attributes:
        study: The study, with what was open decided: bf16, flips, absolute paths, a design's number of
            trials before a grid is extended.
        groups: Each layer group of the model and its layers.
        dataset: The images.
        search: Proposes the trials.
        count: Counts what is bounded of a trial's cost, before it is trained.
        left_out: Why some layers of the model cannot be quantized.
        notices: What the user should know before anything is trained.
        teachers: What became of each external teacher's head, by name.
    """

    study: StudySpec
    groups: dict[str, list[str]]
    dataset: datasets.Dataset
    search: Search | Design
    count: Counter
    left_out: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    teachers: Mapping[str, str] = field(default_factory=dict)

    @property
    def contents(self) -> dict[str, str]:
        """Digests of what the dataset, the model and external teachers hold, whatever their names are."""
        classes = self.dataset.classes
        contents = {
            "dataset_sha256": self.dataset.digest,
            "model_sha256": digests.start(self.study.model, classes),
        }
        if self.teachers:
            contents["teacher_sha256"] = " ".join(digests.start(name, classes) for name in self.teachers)
        return contents

    @property
    def anchors(self) -> list[TrialSpec]:
        """The first trial of each kind among a new search's first proposals."""
        once = self.study.model_copy(update={"anchor_seeds": 1})
        fresh = proposer_of(once, self.search.groups, [], self.count)
        first = list(itertools.islice(iter(fresh.ask, None), min(self.study.trials, N_ANCHORS)))
        return list({(arm(spec), *spec.layers): spec for spec in reversed(first)}.values())[::-1]


def plan(study: StudySpec, records: Sequence[Record] = ()) -> Plan:
    """Load what a study names, and check that it fits together.

    Args:
        study: The study.
        records: Trials that its search already knows.

    Returns:
        The plan.

    Raises:
        BadInput: Model, data, space or limits do not fit together, or a user's own object cannot be imported.
    """
    absolute = {"model": locating.absolute(study.model), "data": absolute_data(study.data, Path())}
    study = study.with_descriptions().model_copy(update={"recipe": resolve(study.recipe), **absolute})
    study = with_absolute_teachers(study)
    dataset = trial.load_data(study.data, study.model)
    study, notices = _flips(study, dataset, records)
    model, preprocess = (
        checkpoints.load(study.model, dataset.classes),
        trial.preprocess_of(study.model, dataset),
    )
    _check_forward(study, model, preprocess)
    groups = layer_groups.groups_named(model, study.space.groups)
    searched = _searched_groups(study, groups)
    _check_rungs(study, dataset)
    _check_sizes(study, dataset)
    _check_blocks(study, model)
    heads_of_teachers = check_teachers(study, model, preprocess, dataset.classes)
    if 1 in (len(dataset.train), *recipe_values(study, "batch_size")):
        image = torch.from_numpy(dataset.train.images[:1].transpose(0, 3, 1, 2).copy())  # (1, 3, H, W)
        check_single(model, preprocess(image))
    count = Counter(model, preprocess, groups)
    _check_attention(study, count)
    search = proposer_of(study, searched, records, count)
    if isinstance(search, Design):
        _check_tuned(search.cells)
        if "trials" in study.model_fields_set and study.trials != search.least:
            raise BadInput(
                f"trials must be the design's {search.least}, but got {study.trials}; leave it out"
            )
        study = study.model_copy(update={"trials": search.least})
    if study.final and (opened := openings.notice(study, dataset)):
        notices += (opened,)
    left_out = tuple(dict.fromkeys(unquantizable.unquantizable(model).values()))
    planned = Plan(study, groups, dataset, search, count, left_out, notices, heads_of_teachers)
    if not planned.anchors:
        raise _no_point(planned)
    return planned


def _check_forward(study: StudySpec, model: torch.nn.Module, preprocess: Preprocess) -> None:
    """Raises BadInput where the model does not take the images that its processor makes."""
    try:
        macs.count(model, preprocess.size)
    except Exception as error:
        size = "x".join(str(side) for side in preprocess.size)
        rule = f"model {study.model!r} must take the {size} images that its processor makes"
        raise BadInput(f"{rule}, but: {error}") from None


def _searched_groups(study: StudySpec, groups: dict[str, list[str]]) -> list[str]:
    """The layer groups that the space applies to, in the model's order. Raises BadInput for unknown ones."""
    searched = dict.fromkeys(
        name for pattern in study.space.groups for name in layer_groups.match(pattern, groups, "layer group")
    )
    for step in steps_of(study):
        for pattern in step.groups:
            layer_groups.match(pattern, searched, "layer group")
    return [name for name in groups if name in searched]


def _no_point(planned: Plan) -> BadInput:
    """The error for a study whose space has no point: without any, or within its counted bounds."""
    study, count = planned.study, planned.count
    unbounded = proposer_of(
        study.model_copy(update=dict.fromkeys(COUNTED_BOUNDS)), planned.search.groups, [], count
    )
    costs = [count(spec) for _ in range(N_SIZES) if (spec := unbounded.ask())]
    if not costs:
        rule = f"space {study.space.name!r} must have a point"
        return BadInput(f"{rule}, but the values of its axes exclude each other")
    bounds = {field: value for field in COUNTED_BOUNDS if (value := getattr(study, field)) is not None}
    least = {field: min(cost[COUNTED_BOUNDS[field]] for cost in costs) for field in bounds}
    got, found = (" and ".join(f"{value:.15g}" for value in each.values()) for each in (bounds, least))
    rule = f"{' and '.join(bounds)} must leave a point, but got {got}"
    return BadInput(f"{rule}; the smallest model found has {found}, so try that")


def _flips(
    study: StudySpec, dataset: datasets.Dataset, records: Sequence[Record]
) -> tuple[StudySpec, tuple[str, ...]]:
    """The study with its flips decided, and notices about them. Raises BadInput for records with others."""
    notice = flips.notice(recipe_values(study, "augment"), dataset.mirrored)
    if dataset.mirrored and any(record["spec"]["recipe"].get("augment") is True for record in records):
        raise BadInput(f"a version that flipped images began this run. {notice} Begin a new run")
    return flips.decided(study, dataset.mirrored), (notice,) if notice else ()


def _check_rungs(study: StudySpec, dataset: datasets.Dataset) -> None:
    """Raise BadInput where the smallest rung has no image of some class: it would repeat the next rung's."""
    divisors = study.early_stopping.divisors if study.early_stopping else ()
    if not divisors:
        return
    rarest = min(np.bincount(dataset.train.labels))
    smallest_fraction = min(map(float, values(study.space.fraction)))
    if (left := rarest * smallest_fraction / divisors[0]) < 1:
        rule = "early_stopping's smallest rung must keep an image of each class"
        value = f"1/{divisors[0]} of the trial's would be {left:.2g} of one"
        raise BadInput(f"{rule}, but {value}; take fewer rungs, a smaller reduction or a larger fraction")


def _check_sizes(study: StudySpec, dataset: datasets.Dataset) -> None:
    """Raises BadInput where two fractions of a grid are as many images."""
    fractions: dict[int, float] = {}
    for fraction in map(float, values(study.space.fraction) if "grid" in study.design else ()):
        images = len(datasets.subset(dataset.train.labels, fraction, study.seed))
        if images in fractions:
            rule = "the fractions of a grid must differ in their images"
            both = f"{fractions[images]:g} and {fraction:g} are both {images:,} images"
            raise BadInput(f"{rule}, but {both}; leave one out")
        fractions[images] = fraction


def _check_blocks(study: StudySpec, model: torch.nn.Module) -> None:
    """Raises BadInput where a recipe needs the blocks of a model that has none."""
    for needs, off in {"compile": "false", "distill_blocks": "0"}.items():
        if not layer_groups.blocks(model) and any(recipe_values(study, needs)):
            rule = f"{needs} needs a model with blocks, and {study.model!r} has none"
            raise BadInput(f"{rule}; set {needs} = {off}")


def _check_attention(study: StudySpec, count: Counter) -> None:
    """Raises BadInput where a recipe quantizes attention products that the model does not have."""
    if attention_widths(study) and not count.macs.attention:
        rule = "attention_bits needs attention that multiplies by matmul or scaled_dot_product_attention"
        raise BadInput(f"{rule}, and {study.model!r} has none; leave attention_bits out")


def _check_tuned(cells: Mapping[str, Cell]) -> None:
    """Raises BadInput where a cell tunes what its steps or its choices have set: it would not be so."""
    for name, cell in cells.items():
        if field := next((field for field in cell.tune if field in cell.fixed), None):
            rule = f"a cell must not tune what its own steps and choices set, but {name!r} does with {field}"
            raise BadInput(f"{rule}; leave it out of `tune` there, or out of its `recipe`")


def proposer_of(
    study: StudySpec, groups: list[str], records: Sequence[Record], count: Count
) -> Search | Design:
    """Make what proposes a study's trials.

    Args:
        study: The study.
        groups: The layer groups that its space applies to.
        records: Trials that it already knows.
        count: Counts what is bounded of a trial's cost.

    Returns:
        The study's design or, where it has none, its search.
    """
    if study.design:
        return Design(study, groups, records)
    return Search(study, groups, filter(is_searched, records), count)
