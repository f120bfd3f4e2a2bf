"""Ray's workers: how trials are given to them, and what is called on one alone."""

import os
import time
from functools import partial
from types import SimpleNamespace

import pytest
import ray
from conftest import workers

from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.execution.tune_runner import distribute
from ablate.runs.record import blank_record
from ablate.training.run_trial import worker_steps


@pytest.mark.long
def test_the_fifth_trial_of_an_actor_equals_the_first(tiny_vit, tmp_path):
    layers = {"block0.fc1": LayerSpec(weights="ternary")}
    recipe = Recipe(epochs=1, bf16=False)
    spec = TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.05, recipe=recipe)
    other = TrialSpec(model=str(tiny_vit), fraction=0.02, recipe=recipe, seed=3)
    records, seen = [], set()

    def watch(running, waiting, deaths):
        seen.update(process.pid for process in workers())

    queue = iter([("first", spec), ("a", other), ("b", other), ("c", other), ("fifth", spec)])
    (tmp_path / "ledger.jsonl").touch()
    with ray_cluster.connected(Resources(concurrency=1)) as (_, resources):
        distribute(
            lambda: next(queue, None),
            lambda record: records.append(record) or [],
            watch,
            stop=lambda: False,
            steps=partial(worker_steps, dataset=datasets.load("cifar10-mini"), table=None, files={}),
            path=tmp_path,
            writer=ray_cluster.writer_of(tmp_path),
            resources=resources,
        )
    assert len(records) == 5 and len(seen) == 1
    about = ("train_seconds", "started_at", "trial_id")
    first, fifth = (
        {key: value for key, value in record.items() if key not in about}
        for record in (records[0], records[4])
    )
    assert first == fifth and first["status"] == "complete"


@pytest.mark.alone
def test_no_worker_is_started_in_vain(tmp_path):
    """Tune gives a worker that falls idle to a trial whose own is starting, and ends that one."""

    def sleepy(spec, name, state, *, threads):
        """A trial that only sleeps; its record's device is its process."""
        time.sleep(0.5)
        yield SimpleNamespace(epoch=1, accuracy=0.5, state={})
        record = blank_record(spec, name) | {
            "status": "complete",
            "accuracy": 0.5,
            "loss": 1.0,
            "device": str(os.getpid()),
        }
        return SimpleNamespace(record=record, predictions={}, weights={})

    queue = iter([(f"trial{i}", TrialSpec(seed=i)) for i in range(40)])
    records, seen = [], set()

    def watch(running, waiting, deaths):
        seen.update(process.pid for process in workers())

    (tmp_path / "ledger.jsonl").touch()
    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        distribute(
            lambda: next(queue, None),
            lambda record: records.append(record) or [],
            watch,
            stop=lambda: False,
            steps=sleepy,
            path=tmp_path,
            writer=ray_cluster.writer_of(tmp_path),
            resources=Resources(concurrency=6, gpus_per_trial=0.0),
        )
    finally:
        ray.shutdown()
    assert len(records) == 40 and len({record["device"] for record in records}) == len(seen) == 6


@pytest.mark.long
def test_what_a_worker_alone_is_given_may_be_large():
    """As the packed weights of a large model are, which a study times at its end."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert (
            ray_cluster.run_on_worker(Resources(gpus_per_trial=0.0), len, bytes(101_000_000)) == 101_000_000
        )
    finally:
        ray.shutdown()
