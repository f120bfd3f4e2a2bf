"""Distributes trials with Ray Tune."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from ablate.execution.ask_tell_searcher import AskTellSearcher, Proposal, ShouldPrune
from ablate.execution.ray_cluster import Resources
from ablate.execution.trial_worker import Steps, TrialWorker
from ablate.execution.tune_callbacks import EpochStopper, ProgressCallback, Watch
from ablate.execution.tune_patches import patched_tune
from ablate.runs.record import Record


def distribute(
    ask: Callable[[], Proposal | None],
    tell: Callable[[Record], list[str]],
    watch: Watch,
    *,
    stop: Callable[[], bool],
    steps: Steps,
    path: Path,
    writer: Any,
    storage: Any = None,
    should_prune: ShouldPrune | None = None,
    resources: Resources,
) -> None:
    """Run trials until `ask` has none left or `stop` says so. Ray must be connected.

    Args:
        ask: Returns the next trial, None when there is none.
        tell: Takes a record that was written; returns the ids of the trials whose weights are kept.
        watch: Is called again and again with the running trials, how many trials wait for a node, and how
            many workers died.
        stop: Whether the study must stop. Then the running trials end with their current epoch, unrecorded.
        steps: Makes a trial's generator of epochs, on its worker.
        path: The run's folder.
        writer: The run's one writer, of `ray_cluster.writer_of`.
        storage: A Storage that keeps a trial's state after each validated epoch until the trial is recorded.
        should_prune: Gives the reason to end a trial after an epoch, by its record so far, or "". The trial
            is recorded as pruned.
        resources: What the study and its trials may use, as `ray_cluster.connected` has resolved it.

    Raises:
        WriteFailed: The run's folder cannot be written.
        Exception: Whatever a function that was given has raised, once the running trials have ended their
            epoch.
    """
    searcher = AskTellSearcher(
        ask,
        tell,
        stop=stop,
        writer=writer,
        storage=storage,
        should_prune=should_prune,
        resources=resources,
    )
    trainable = tune.with_parameters(
        TrialWorker,
        steps=steps,
        writer=writer,
        storage=storage,
        threads=resources.cpus_per_trial,
        minutes_per_trial=resources.minutes_per_trial,
        early_stopping=should_prune is not None,
    )
    tuner = _tuner(trainable, searcher, ProgressCallback(searcher, watch), path, resources)
    try:
        with patched_tune(len(searcher.slots), searcher.expects_trials, searcher.may_take_idle_actor):
            tuner.fit()
    finally:
        if searcher.fault is not None:  # what Tune raises meanwhile, on a full disk say, follows from it
            raise searcher.fault


def _tuner(
    trainable: Any, searcher: AskTellSearcher, progress: ProgressCallback, path: Path, resources: Resources
) -> tune.Tuner:
    needs = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    return tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the searcher ends the experiment
            max_concurrent_trials=resources.concurrency,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(path / ".tune"),
            verbose=0,
            stop=EpochStopper(searcher),
            callbacks=[progress],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
