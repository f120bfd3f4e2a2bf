"""Corrupted validation images: the same in every batch and process, worse by severity, of any size."""

import colorsys

import numpy as np
import pytest
import torch

from ablate import LayerSpec, load_packed
from ablate.analysis.calibration import calibration_error
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.models.loading import preprocess
from ablate.training.corruptions import CORRUPTIONS, _Corrupted, robust_accuracy
from ablate.training.rerun import compare
from ablate.training.run_trial import trial_steps
from ablate.training.trial import resolved, trial_id


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch_and_more_by_severity(kind):
    ramp = np.linspace(20, 200, 32 * 24 * 3).reshape(32, 24, 3)
    noise = np.random.default_rng(0).integers(-20, 20, (6, 32, 24, 3))
    images = (ramp + noise).clip(0, 255).astype(np.uint8)
    before, random = images.copy(), torch.get_rng_state()
    corruption, severities = CORRUPTIONS[kind]
    changes = []
    for severity in severities:
        corrupted = _Corrupted(images, corruption, severity)
        whole = corrupted[0:6]
        assert whole.dtype == np.uint8 and whole.shape == images.shape
        assert (whole == np.concatenate([corrupted[0:4], corrupted[4:8]])).all()
        changes.append(np.abs(whole.astype(int) - images).mean())
    assert 0 < changes[0] < changes[1] < changes[2]
    assert (images == before).all() and (torch.get_rng_state() == random).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_of_one_pixel_can_be_corrupted(kind):
    corruption, severities = CORRUPTIONS[kind]
    image = np.full((1, 1, 1, 3), 100, np.uint8)
    assert _Corrupted(image, corruption, severities[-1])[0:1].shape == image.shape


def test_contrast_and_brightness_are_those_of_cifar_10_c():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    images[0, 0, 0] = 0  # black has no hue
    share, added = CORRUPTIONS["contrast"][1][1], CORRUPTIONS["brightness"][1][1]
    contrast = _Corrupted(images, CORRUPTIONS["contrast"][0], share)[0:2]
    means = images.mean((1, 2), keepdims=True)
    assert np.abs(contrast - (means + share * (images - means))).max() <= 0.5 + 1e-4
    brighter = np.empty(images.shape)
    for place in np.ndindex(images.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[place] / 255)
        brighter[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
    brightness = _Corrupted(images, CORRUPTIONS["brightness"][0], added)[0:2]
    assert np.abs(brightness - 255 * brighter).max() <= 0.5 + 1e-4


def outcome_of(spec, dataset, objectives):
    steps = trial_steps(spec, trial_id(spec, dataset), dataset, objectives=objectives)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.long
def test_a_trial_records_both_objectives_and_robust_accuracy_only_on_request(tiny_vit, tmp_path):
    dataset = datasets.load("cifar10-mini")
    layers = {"block0.fc1": LayerSpec(weights="binary")}
    recipe = Recipe(epochs=1, bf16=False)
    spec = resolved(TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.02, recipe=recipe), dataset)
    wanted = outcome_of(spec, dataset, ("accuracy", "robust_accuracy"))
    other = outcome_of(spec, dataset, ("accuracy",))
    assert other.record["robust_accuracy"] is None
    for outcome in (wanted, other):
        logits, labels = (outcome.predictions[f"validation_{kind}"] for kind in ("logits", "labels"))
        assert outcome.record["calibration_error"] == calibration_error(logits, labels)
    for name, content in wanted.weights.items():
        (tmp_path / name).write_bytes(content)
    packed = robust_accuracy(load_packed(tmp_path), dataset.validation, preprocess(str(tiny_vit)))
    assert 0 < wanted.record["robust_accuracy"] == packed < 1
    same = ("accuracy", "loss", "size_bytes", "calibration_error")  # asking for it changes nothing else
    assert [wanted.record[key] for key in same] == [other.record[key] for key in same]
    rows = {row["field"]: row for row in compare(wanted.record)}
    assert {"calibration_error", "robust_accuracy"} < {*rows} and all(row["same"] for row in rows.values())
    rows = compare({**other.record, "calibration_error": None})  # as older versions left it
    assert "calibration_error" not in {row["field"] for row in rows} and all(row["same"] for row in rows)
