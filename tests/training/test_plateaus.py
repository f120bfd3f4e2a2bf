"""Trainings with a plateau: a longer one goes on from that of a shorter one, and ends as it would alone."""

import os

import numpy as np
import pytest
import torch

from ablate import run_trial
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.training import plateaus
from ablate.training.optim import rate, shared_steps
from ablate.training.plateaus import Plateaus
from ablate.training.run_trial import trial_steps
from ablate.training.trial import load_data, resolved, trial_id

WSD = {"schedule": "wsd", "warmup_views": 160, "batch_size": 16, "bf16": False, "image_views": 480}


def test_the_rate_grows_stays_and_falls():
    recipe = Recipe(**WSD)
    rates = [rate(step, 100, recipe) for step in range(100)]
    assert rates[:9] == pytest.approx([0.1 * k for k in range(1, 10)]) and rates[9:81] == [1.0] * 72
    assert (
        rates[80:] == pytest.approx([1 - np.sqrt(k / 20) for k in range(20)]) and rate(100, 100, recipe) == 0
    )
    assert [rate(step, 5, Recipe(**WSD | {"warmup_views": 0, "decay": 1.0})) for step in range(2)] == [
        1.0,
        pytest.approx(1 - np.sqrt(0.2)),
    ]


@pytest.mark.parametrize(
    ("more", "shared"),
    [
        ({}, 80),
        ({"decay": 0.05, "mix": 0.8}, 90),
        ({"decay": 0.05}, 95),
        ({"weight_decay_until": 0.5}, 50),
        ({"second_stage": 0.5}, 40),
        ({"progressive": "linear"}, 0),
        ({"schedule": "cosine"}, 0),
    ],
)
def test_what_longer_trainings_share(more, shared):
    recipe = Recipe(**WSD | more)
    assert shared_steps(100, recipe) == shared
    for longer in (101, 125, 400):
        rates = (
            [rate(step, steps, recipe) for step in range(shared + (shared > 0))] for steps in (100, longer)
        )
        assert len({*map(tuple, rates)}) == 1
        assert shared_steps(longer, recipe) >= shared


def ended(spec, dataset, logged=None):
    """The record of a trial as a worker runs it."""
    spec = resolved(spec, dataset)
    steps = trial_steps(spec, trial_id(spec, dataset), dataset, share_plateaus=True)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.record


SAME = (
    "accuracy",
    "loss",
    "test_accuracy",
    "test_loss",
    "curve",
    "steps",
    "epochs",
    "trial_id",
    "size_bytes",
)


@pytest.mark.long
def test_a_longer_trial_goes_on_from_the_plateau(tiny_vit, tmp_path, monkeypatch, logged):
    """200 images: the plateaus of 480 and 1,000 views end within an epoch, that of 2,000 with one."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    dataset = load_data("cifar10-mini", str(tiny_vit))
    more = {"mix": 0.8, "distort": True, "ema": 0.9, "validate_every": 2}
    layers = {"block0.fc1": LayerSpec(weights="binary", activation_scale="static")}
    base = TrialSpec(model=str(tiny_vit), layers=layers, fraction=200 / len(dataset.train), test="A")

    def of_length(views, **changes):
        recipe = Recipe(**WSD | more | changes | {"image_views": views})
        return base.model_copy(update={"recipe": recipe})

    begins = []
    for views in (480, 1000, 2000, 1000):
        with torch.random.fork_rng([]):
            record = ended(of_length(views), dataset)
        begins += [line.split()[-1] for line in logged().splitlines() if "goes on from a plateau" in line]
        alone = run_trial(of_length(views), dataset)
        assert record["status"] == "complete" and {key: record[key] for key in SAME} == {
            key: alone[key] for key in SAME
        }
    assert begins == ["24", "50"]  # 0.8 x 30 and 63 steps; the last trial is shorter than what is kept
    assert len([*(tmp_path / "plateaus").glob("*.pt")]) == 1
    other = (of_length(3000, learning_rate=2e-3), of_length(3000, distill=0.5), of_length(3000, mix=0.5))
    for spec in other:  # another recipe, and a teacher as long as the trial
        ended(spec, dataset)
        assert "goes on from a plateau" not in logged()
    assert len([*(tmp_path / "plateaus").glob("*.pt")]) == 3


def test_states_that_were_not_used_for_long_are_deleted(tiny_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    dataset = load_data("cifar10-mini", str(tiny_vit))
    kept = [
        Plateaus(TrialSpec(model=str(tiny_vit), recipe=Recipe(**WSD), seed=seed), dataset)
        for seed in range(4)
    ]
    state = {"schedule": {"last_epoch": 8}, "weights": torch.zeros(1000)}
    folder = tmp_path / "plateaus"
    for age, plateau in enumerate(kept[:3]):
        before = {*folder.glob("*")}
        plateau.keep(state)
        (file,) = {*folder.glob("*")} - before
        os.utime(file, (1000 + age, 1000 + age))
    assert kept[0].load(8) and kept[1].load(7) is None  # the first is used, the second not
    monkeypatch.setattr(plateaus, "MOST_BYTES", int(2.5 * file.stat().st_size))
    kept[3].keep(state)
    assert [plateau.load(8) is not None for plateau in kept] == [True, False, False, True]
    monkeypatch.setattr(plateaus, "MOST_BYTES", 0)
    kept[2].keep(state)
    assert [plateau.load(8) is not None for plateau in kept] == [False, False, True, False]
