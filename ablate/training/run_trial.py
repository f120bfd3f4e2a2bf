"""Runs one trial: in this process, in a worker, or epoch by epoch, which is what both of them do."""

import logging
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch

from ablate.config.own_objectives import load_objective
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets, flips
from ablate.errors import BadInput
from ablate.models import locating
from ablate.plugins import is_plugin
from ablate.profiling.latency_table import LatencyTable
from ablate.runs.record import Record
from ablate.training.evaluation import Epoch
from ablate.training.outcome import Outcome
from ablate.training.trial import load_data, resolved, trial_id
from ablate.training.trial_runner import TrialRunner

log = logging.getLogger(__name__)


def run_trial(
    spec: TrialSpec,
    dataset: datasets.Dataset | None = None,
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
) -> Record:
    """Train and measure one point of a search space in this process.

    Args:
        spec: The trial.
        dataset: Its data, where that is loaded already.
        rungs: As in `trial_steps`.
        objectives: As in `trial_steps`.

    Returns:
        The record. Where training fails its status is "failed".

    Raises:
        BadInput: The model, the dataset or a layer group is unknown.
    """
    dataset = dataset or load_data(spec.data, spec.model)
    if notice := flips.notice([spec.recipe.augment], dataset.mirrored):
        log.warning(notice)
    spec = resolved(spec, dataset)
    steps = trial_steps(spec, trial_id(spec, dataset), dataset, rungs=rungs, objectives=objectives)
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # the caller's random state is restored
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.record


def worker_steps(
    spec: TrialSpec,
    name: str,
    state: dict[str, Any] | None,
    *,
    threads: int,
    files: Mapping[str, dict[str, bytes]],
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
    **options: Any,
) -> Generator[Epoch, None, Outcome]:
    """`trial_steps` in a worker process, which runs many trials, maybe without the models' folders.

    Args:
        spec: The trial. One that is tested confirms another, and so has no rungs.
        name: Its id.
        state: As in `trial_steps`.
        threads: Of torch, for the whole process.
        files: Of the model and of external teachers, by name (`locating.files`).
        rungs: As in `trial_steps`.
        objectives: As in `trial_steps`.
        options: The other arguments of `trial_steps`.

    Returns:
        The generator of `trial_steps`.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for objective in filter(is_plugin, objectives):
        load_objective(objective)  # a node that lacks it says so before it trains
    for model, content in files.items():
        locating.provide(model, content)
    rungs = () if spec.test else rungs
    return trial_steps(
        spec, name, state=state, rungs=rungs, objectives=objectives, share_plateaus=True, **options
    )


def trial_steps(
    spec: TrialSpec,
    name: str,
    dataset: datasets.Dataset,
    table: LatencyTable | None = None,
    state: dict[str, Any] | None = None,
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
    share_plateaus: bool = False,
) -> Generator[Epoch, None, Outcome]:
    """Run a trial epoch by epoch, so that the caller can report, prune and store states in between.

    Args:
        spec: The trial, resolved.
        name: Its id.
        dataset: Its data.
        table: Latencies of layers; the record's latency_ms is their sum.
        state: Of an epoch that this generator yielded, in any process: the trial continues after that epoch.
        rungs: Divisors, from large to small. For each the model is first trained on 1/divisor of the images,
            from the same start and by the same recipe. The record's `rungs` holds these curves; of its other
            fields only train_seconds depends on them.
        objectives: Those of the study. Users' own, robust_accuracy, peak_memory_bytes and energy_mj are only
            computed where they are among them.
        share_plateaus: Whether a trial with schedule="wsd" goes on from the plateau of a shorter one that is
            otherwise equal, and keeps its own. Its outcome is the same.

    Yields:
        Each validated epoch, with its state and the record so far.

    Returns:
        The record and its files. train_seconds is the time until the last evaluation, the teacher's forward
        passes included; the training of a teacher or a checkpoint, which trials share, is not.

    Raises:
        BadInput: A layer group is unknown, or the recipe does not suit the model.
    """
    runner = TrialRunner(spec, name, dataset, rungs)
    try:
        runner.setup(table)
        runner.restore(state)
        if share_plateaus and not rungs:
            runner.share_plateaus()
        for divisor in runner.divisors:
            yield from runner.run_rung(divisor)
        runner.finish(objectives)
    except BadInput:
        raise
    except Exception as error:  # whatever fails, a failed trial has a record
        runner.fail(error)
    return runner.outcome
