"""What a study will cost, estimated before it begins."""

import math
import statistics
from collections.abc import Iterator
from typing import Any

import torch

from ablate.config.trial_spec import TrialSpec
from ablate.engine.plan import Plan, _images, _kinds, _measured, _of_checkpoint, _seen, _short
from ablate.hardware import cpus
from ablate.search.experiment_design import Design
from ablate.search.fractional_factorial import fraction
from ablate.search.parameter_space import Points


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
    groups = [{"layer group": g, "layers": len(names), "searched": g in plan.search.groups} for g, names in plan.groups.items()]
    points = None if plan.search.size == math.inf else plan.search.size
    total = {"points": points, "trials": n, "image_views": round(views), "images_per_second_of_a_cpu": _short(rate)}
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
