"""Trials that are trained on parts of their images first: the rungs of early stopping over the fraction."""

import itertools

import numpy as np
import pytest

from ablate import run_trial
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets
from ablate.training.checkpoint_store import Storage
from ablate.training.run_trial import trial_steps, worker_steps

WALL = ("train_seconds", "started_at")


def outcome_of(steps, until=None):
    """What a trial ends with; or its state after a number of epochs, those of all its trainings counted."""
    for count in itertools.count(1):
        try:
            epoch = next(steps)
        except StopIteration as end:
            return end.value
        if count == until:
            return epoch.state


@pytest.mark.long
@pytest.mark.parametrize(
    "more", [{}, {"full_epochs": 1, "distill": 0.5, "ema": 0.5}], ids=["plain", "taught"]
)
def test_smaller_trainings_before_it_change_nothing_of_a_trial(tiny_vit, tmp_path, monkeypatch, more):
    """To the bit; also where it goes on from what was kept of it, whichever training was under way."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    dataset, storage = datasets.load("cifar10-mini"), Storage.tried(str(tmp_path / "kept"))
    recipe = Recipe(epochs=2, bf16=False, **more)
    layers = {"block0.fc1": LayerSpec(weights="ternary")}
    spec = TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.09, recipe=recipe)

    def begun(rungs=(), state=None):
        return trial_steps(spec, "name", dataset, state=state, rungs=rungs)

    def bare(outcome):
        return {key: value for key, value in outcome.record.items() if key not in (*WALL, "rungs")}

    alone, after = outcome_of(begun()), outcome_of(begun((9, 3)))
    assert bare(after) == bare(alone) and after.weights == alone.weights and "rungs" not in alone.record
    for name, array in alone.predictions.items():
        np.testing.assert_array_equal(after.predictions[name], array)
    rungs = after.record["rungs"]
    assert [(row["one_in"], row["images"], row["epoch"]) for row in rungs] == [
        (9, 40, 1),
        (9, 40, 2),
        (3, 120, 1),
        (3, 120, 2),
    ]
    assert after.record["images"] == 360
    spent = [epoch.record["train_seconds"] for epoch in begun((9, 3))]
    assert spent[0] > 0 and spent == sorted(spent) and len(spent) == 6  # counted through all its trainings
    third = outcome_of(trial_steps(spec.model_copy(update={"fraction": 0.03}), "third", dataset)).record
    assert [row["loss"] for row in rungs[2:]] == [
        row["loss"] for row in third["curve"]
    ]  # afresh, by the whole recipe

    for epoch in range(1, 7):
        storage.save("name", outcome_of(begun((9, 3)), until=epoch))
        again = outcome_of(begun((9, 3), storage.load("name")))
        assert (
            bare(again) == bare(alone) and again.record["rungs"] == rungs and again.weights == alone.weights
        )
    storage.save("name", outcome_of(begun((9, 3)), until=2))
    elsewhere = outcome_of(begun(state=storage.load("name")))  # without early stopping: it begins again
    assert elsewhere.record.keys() == alone.record.keys() and bare(elsewhere) == bare(alone)


def test_a_fault_on_a_part_of_the_images_is_the_trial_s(tiny_vit):
    recipe = Recipe(epochs=1, learning_rate=1e30, clip_norm=None, warmup=0, batch_size=8, bf16=False)
    record = run_trial(TrialSpec(model=str(tiny_vit), fraction=0.02, recipe=recipe), rungs=(2,))
    assert (
        record["status"] == "failed" and record["error"].startswith("NonFinite: ") and record["images"] == 80
    )


def test_what_confirms_the_front_has_no_rungs(tiny_vit):
    for test, ends in ((True, 0), (False, 2)):
        spec = TrialSpec(model=str(tiny_vit), fraction=0.02, recipe=Recipe(epochs=1, bf16=False), test=test)
        given = {"dataset": datasets.load("cifar10-mini"), "table": None, "rungs": (9, 3)}
        record = outcome_of(worker_steps(spec, "name", None, threads=1, files={}, **given)).record
        assert record["status"] == "complete" and len(record.get("rungs", ())) == ends
