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
from ablate.execution.ray_cluster import HERE, Resources
from ablate.hardware import cpus
from ablate.models import checkpoints
from ablate.models.preprocessing import Preprocess
from ablate.profiling import macs
from ablate.quantization.packing import pack
from ablate.runs.record import arm
from ablate.search.experiment_design import Design
from ablate.search.fractional_factorial import fraction
from ablate.search.parameter_space import Points
from ablate.search.tuning import tuning_seeds
from ablate.training import trial
from ablate.training.optim import length, steps_of
from ablate.training.trainer import train

# Fields of a recipe that set the length of a trial.
LENGTHS = ("epochs", "full_epochs", "image_views", "batch_size", "validate_every")
EVALUATED_PER_TRAINED = 3  # so many evaluated images cost as much as one trained image
SECONDS = 2.0  # for which the training of an anchor is timed


def estimate(plan: Plan, resources: Resources = HERE) -> dict[str, Any]:
    """Estimate a study before it begins: its layer groups, the cost of its anchors, and its time here.

    The time is the number of image views divided by the rate of the anchors' first training steps, which are
    timed now on one thread. An evaluated image counts as a third of a trained one. Where a search varies the
    length of its trials, or a design tunes it, the mean over the ends or choices counts. Four things are left
    out: the training of teachers (one more training for each recipe that is distilled, whatever the number of
    trials); early stopping (every trial counts with all of its rungs); `compile` (the timed steps are not
    compiled); and the trials by which a design grows where a tuned choice lies on the edge of its grid.

    Args:
        plan: The study's plan.
        resources: What a trial may use, and how many run at a time.

    Returns:
        What `ablate study --dry-run --json` prints, without the checks.
    """
    *trials, checkpoints = _views(plan)
    views = sum(trials) + checkpoints
    specs = itertools.chain.from_iterable(_kinds(plan))
    longest = max(_views_of_trial(plan, spec) + _views_of_checkpoint(plan, spec) for spec in specs)
    anchors = [_anchor(plan, spec) for spec in plan.anchors]
    rate = statistics.fmean(anchor["images_per_second"] for anchor in anchors)
    return {
        "groups": [
            {"layer group": group, "layers": len(names), "searched": group in plan.search.groups}
            for group, names in plan.groups.items()
        ],
        "left_out": plan.left_out,
        "images": _images(plan),
        "anchors": anchors,
        "points": None if plan.search.size == math.inf else plan.search.size,
        "trials": _n_trials(plan),
        "may_grow": isinstance(plan.search, Design) and plan.search.may_grow,
        "image_views": round(views),
        "images_per_second_of_a_cpu": _short(rate),
        **_fraction(plan),
        "cpus": (used := _cpus(resources, _n_trials(plan))),
        "minutes": views / rate / 60 / used,
        "minutes_of_longest_trial": longest / rate / 60,  # with its checkpoint
    }


def _cpus(resources: Resources, trials: int) -> int:
    """How many CPUs of this machine the study uses at a time."""
    each = min(resources.cpus_per_trial, cpus())
    return each * min(cpus() // each, trials, resources.concurrency or trials)


def _n_trials(plan: Plan) -> int:
    """How many trials the study has: not more than its space has points."""
    trials, search = plan.study.trials, plan.search
    return trials if isinstance(search, Design) else int(min(trials, search.max_trials))


def _fraction(plan: Plan) -> dict[str, int]:
    """Of a fractional factorial: the points of the whole design, and the fraction's resolution."""
    if not plan.study.points:
        return {}
    factors = len(Points(plan.study, plan.search.groups).axes)
    return {"points_of_all": 2**factors, "resolution": fraction(factors, plan.study.points)[1]}


def _views(plan: Plan) -> Iterator[float]:
    """Image views of each trial, and at last those of the checkpoints of all seeds together."""
    kinds = _kinds(plan)
    views = [statistics.fmean(_views_of_trial(plan, spec) for spec in kind) for kind in kinds]
    yield from views if isinstance(plan.search, Design) else [statistics.mean(views)] * _n_trials(plan)
    tuning = tuning_seeds(plan.study)  # the other trials stand for all seeds
    seeds = plan.study.seeds if plan.study.design else plan.study.anchor_seeds
    checkpoints = {
        (
            first.fraction,
            first.seed,
            *(spec.recipe.full_epochs for spec in (first, *others)),
        ): statistics.fmean(_views_of_checkpoint(plan, spec) for spec in (first, *others))
        * (1 if first.seed in tuning else seeds)
        for first, *others in kinds
    }
    yield sum(checkpoints.values())


def _anchor(plan: Plan, spec: TrialSpec, seconds: float = SECONDS) -> dict[str, Any]:
    """Counted cost of an anchor, and its training rate over a few seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(plan, spec, seconds)
    finally:
        torch.set_num_threads(threads)


def _images(plan: Plan) -> dict[str, Any]:
    """(height, width) of images in memory and of the model's input; whether its processor made the former."""
    preprocess = trial.preprocess_of(plan.study.model, plan.dataset)
    return {
        "in_memory": preprocess.source or preprocess.size,
        "model_takes": preprocess.size,
        "by_the_models_processor": preprocess.at_decoding,
    }


def _kinds(plan: Plan) -> list[tuple[TrialSpec, ...]]:
    """A design's trials, each as what it may be; of a search one of each length.

    These are the ends or choices of fraction and recipe, crossed.
    """
    study, space = plan.study, plan.study.space
    if isinstance(plan.search, Design):
        return plan.search.planned
    axes = {key: values(axis) for key, axis in space.recipe.items() if key in LENGTHS}
    recipes = [
        {**study.recipe.model_dump(), **dict(zip(axes, point, strict=True))}
        for point in itertools.product(*axes.values())
    ]
    return [
        (TrialSpec.model_validate({"recipe": recipe, "fraction": share}),)
        for recipe in recipes
        for share in values(space.fraction)
    ]


def _views_of_checkpoint(plan: Plan, spec: TrialSpec) -> float:
    """Image views of the checkpoint that a trial begins from."""
    return spec.recipe.full_epochs * spec.fraction * len(plan.dataset.train)


def _views_of_trial(plan: Plan, spec: TrialSpec) -> float:
    """Image views of a trial, its evaluated images as a third."""
    study, dataset, recipe = plan.study, plan.dataset, spec.recipe
    divisors = study.early_stopping.divisors if study.early_stopping else ()
    n = math.ceil(spec.fraction * len(dataset.train))
    steps, epochs = length(recipe, n)
    validations = (1 + len(divisors)) * max(1, math.ceil(epochs / recipe.validate_every))
    tested = {False: 0, True: len(dataset.test)} | {half: len(rows) for half, rows in dataset.halves.items()}
    evaluated = validations * len(dataset.validation) + tested[spec.test]
    trained = steps * n / steps_of(n, recipe.batch_size) * (1 + sum(1 / divisor for divisor in divisors))
    return trained + evaluated / EVALUATED_PER_TRAINED


def _measured(plan: Plan, spec: TrialSpec, seconds: float) -> dict[str, Any]:
    model, preprocess = trial.build(spec, plan.dataset.classes), trial.preprocess_of(spec.model, plan.dataset)
    counted = macs.count(model, preprocess.size)
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = pack(model, folder, preprocess=preprocess)
    return {
        "anchor": _name(plan, spec),
        "size_bytes": size_bytes,
        "bitops": counted.bitops,
        "macs": counted.macs,
        "images_per_second": _short(_rate(plan, spec, model, preprocess, seconds)),
    }


def _name(plan: Plan, spec: TrialSpec) -> str:
    """An anchor's name: "binary", or "binary, but head ... stem" where some groups stay full."""
    full = [group for group in plan.search.groups if group not in spec.layers]
    return f"{arm(spec)}, but {full[0]} ... {full[-1]}" if spec.layers and full else arm(spec)


def _rate(
    plan: Plan, spec: TrialSpec, model: torch.nn.Module, preprocess: Preprocess, seconds: float
) -> float:
    """Images trained a second, in batches as large as `seconds` allow: a large model's may take minutes."""
    teacher = trial.external_teacher(spec, plan.dataset)
    if teacher is None:
        teacher = checkpoints.load(spec.model, plan.dataset.classes).eval()  # untrained, it costs the same
    endless = {"epochs": 10**6, "image_views": None, "validate_every": 1, "compile": False}
    recipe = spec.recipe.model_copy(update=endless)
    images, labels = plan.dataset.train.images, plan.dataset.train.labels

    def rate(k: int, seconds: float) -> float:
        """Images a second, in steps of k images or, where there are fewer, of all."""
        some, one = (datasets.Split(images[:n], labels[:n]) for n in (k, 1))
        steps = train(model, some, one, recipe, preprocess, 0, teacher)
        next(steps)  # warm-up
        started, n = time.perf_counter(), 0
        while not n or time.perf_counter() - started < seconds:
            next(steps)
            n += len(some)
        return n / (time.perf_counter() - started)

    fit = int(seconds * rate(2, 0))
    return rate(max(2, min(fit, spec.recipe.batch_size)), seconds)


def _short(rate: float) -> float:
    """A rate as it is shown. Never 0, as that of a large model on a CPU would be without decimals."""
    return round(rate) if rate >= 10 else round(rate, 2) or rate
