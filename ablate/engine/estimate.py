"""What a study will cost, estimated before it begins."""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch

from ablate.config.search_space import values
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.engine.plan import Plan
from ablate.hardware import cpus
from ablate.models import checkpoints
from ablate.profiling import macs
from ablate.quantization import packed_model
from ablate.runs.record import arm
from ablate.search.experiment_design import Design
from ablate.search.fractional_factorial import fraction
from ablate.search.parameter_space import Points
from ablate.training import trial
from ablate.training.optim import length, steps_of
from ablate.training.trainer import train

LENGTHS = ("epochs", "full_epochs", "image_views", "batch_size", "validate_every")  # parts of a recipe


def estimate(plan: Plan) -> dict[str, Any]:
    """What the study comes to: its layer groups, the cost of its anchors, and how long it takes here.

    The time is that of the anchors' first training steps, measured now on one thread, times all image views; an
    evaluated image counts as a third of a trained one, and what a search varies of a trial's length as the mean of its
    ends or choices. The training of teachers is left out: one more training for each recipe that is distilled, by
    however many trials. Early stopping is left out: every trial counts with all of its rungs. So is `compile`: the steps
    measured are not compiled.
    """
    *each, checkpoints = _views(plan)
    views, n = sum(each) + checkpoints, plan.study.trials
    longest = max(_seen(plan, spec) + _of_checkpoint(plan, spec) for spec in _kinds(plan))
    anchors = [_anchor(plan, spec) for spec in plan.anchors]
    rate = sum(anchor["images_per_second"] for anchor in anchors) / len(anchors)
    groups = [
        {"layer group": g, "layers": len(names), "searched": g in plan.search.groups}
        for g, names in plan.groups.items()
    ]
    points = None if plan.search.size == math.inf else plan.search.size
    total = {
        "points": points,
        "trials": n,
        "image_views": round(views),
        "images_per_second_of_a_cpu": _short(rate),
    }
    return {
        "groups": groups,
        "left_out": plan.left_out,
        "images": _images(plan),
        "anchors": anchors,
        **total,
        **_fraction(plan),
        "cpus": cpus(),
        "minutes": views / rate / 60 / cpus(),
        "minutes_of_longest_trial": longest / rate / 60,  # with its checkpoint
    }


def _fraction(plan: Plan) -> dict[str, int]:
    """Of a fractional factorial: how many points the whole one has, and the fraction's resolution."""
    if not plan.study.points:
        return {}
    factors = len(Points(plan.study, plan.search.groups).axes)
    return {"points_of_all": 2**factors, "resolution": fraction(factors, plan.study.points)[1]}


def _views(plan: Plan) -> Iterator[float]:
    """Training images seen by each trial, its evaluated ones as a third, and at last by the checkpoints of all seeds."""
    kinds = _kinds(plan)
    seen = [_seen(plan, spec) for spec in kinds]
    yield from seen if isinstance(plan.search, Design) else [statistics.mean(seen)] * plan.study.trials
    once = {(spec.fraction, spec.recipe.full_epochs): _of_checkpoint(plan, spec) for spec in kinds}
    yield plan.study.seeds * sum(once.values())


def _anchor(plan: Plan, spec: TrialSpec, seconds: float = 2.0) -> dict[str, Any]:
    """Counted cost of an anchor, and its training rate over a few seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(plan, spec, seconds)
    finally:
        torch.set_num_threads(threads)


def _images(plan: Plan) -> dict[str, Any]:
    """The (height, width) of the images in memory and of what the model takes; whether its processor made the former."""
    preprocess = trial.preprocess_of(plan.study.model, plan.dataset)
    size = {"in_memory": preprocess.source or preprocess.size, "model_takes": preprocess.size}
    return size | {"by_the_models_processor": preprocess.at_decoding}


def _kinds(plan: Plan) -> list[TrialSpec]:
    """The trials of a design; of a search one of each length: the ends or choices of its fraction and recipe, crossed."""
    study, space = plan.study, plan.study.space
    if isinstance(plan.search, Design):
        return plan.search.planned
    axes = {key: values(axis) for key, axis in space.recipe.items() if key in LENGTHS}
    recipes = [
        study.recipe.model_dump() | dict(zip(axes, point, strict=True))
        for point in itertools.product(*axes.values())
    ]
    fractions = values(space.fraction)
    return [
        TrialSpec.model_validate({"recipe": recipe, "fraction": part})
        for recipe in recipes
        for part in fractions
    ]


def _of_checkpoint(plan: Plan, spec: TrialSpec) -> float:
    """Training images that the checkpoint sees which a trial begins from."""
    return spec.recipe.full_epochs * spec.fraction * len(plan.dataset.train)


def _seen(plan: Plan, spec: TrialSpec) -> float:
    """Training images that a trial sees, and its evaluated ones as a third."""
    study, dataset, recipe = plan.study, plan.dataset, spec.recipe
    rungs = study.early_stopping.one_in if study.early_stopping else ()
    images = spec.fraction * len(dataset.train)
    n = math.ceil(images)
    steps, epochs = length(recipe, n)
    validated = (1 + len(rungs)) * max(1, math.ceil(epochs / recipe.validate_every)) * len(dataset.validation)
    trained = steps * n / steps_of(n, recipe.batch_size) * (1 + sum(1 / part for part in rungs))
    return trained + (validated + spec.test * len(dataset.test)) / 3


def _measured(plan: Plan, spec: TrialSpec, seconds: float) -> dict[str, Any]:
    model, preprocess = trial.build(spec, plan.dataset.classes), trial.preprocess_of(spec.model, plan.dataset)
    counted = macs.count(model, preprocess.size)
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = packed_model.pack(model, folder, preprocess=preprocess)
    untrained = checkpoints.load(spec.model, plan.dataset.classes).eval()  # a teacher of the same cost
    recipe = spec.recipe.model_copy(
        update={"epochs": 10**6, "image_views": None, "validate_every": 1, "compile": False}
    )

    def rate(k: int, seconds: float) -> float:
        """Images a second, in steps of k or, where there are fewer, of all."""
        some, one = (
            datasets.Split(plan.dataset.train.images[:n], plan.dataset.train.labels[:n]) for n in (k, 1)
        )
        steps = train(model, some, one, recipe, preprocess, 0, untrained)
        next(steps)  # warm-up
        started, n = time.perf_counter(), 0
        while not n or time.perf_counter() - started < seconds:
            next(steps)
            n += len(some)
        return n / (time.perf_counter() - started)

    fit = int(seconds * rate(2, 0))  # a whole batch of a large model would take minutes
    found = rate(max(2, min(fit, spec.recipe.batch_size)), seconds)
    kept = [group for group in plan.search.groups if group not in spec.layers]
    name = f"{arm(spec)}, but {kept[0]} ... {kept[-1]}" if spec.layers and kept else arm(spec)
    row = {"anchor": name, "size_bytes": size_bytes, "bitops": counted.bitops, "macs": counted.macs}
    return row | {"images_per_second": _short(found)}


def _short(rate: float) -> float:
    """A rate as it is shown; never 0, as that of a large model on a CPU would be without decimals."""
    return round(rate) if rate >= 10 else round(rate, 2) or rate
