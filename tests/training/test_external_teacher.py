"""A teacher that is trained already: its head, its images, its blocks, and the id of what it teaches."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from saved_models import SMALL, copy_files, edit, numbered, save
from transformers import ViTForImageClassification, ViTImageProcessor

from ablate import LayerSpec, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.errors import BadInput
from ablate.models import loading, locating
from ablate.models.preprocessing import Preprocess
from ablate.training.external_teacher import converted
from ablate.training.loss import Objective
from ablate.training.run_trial import worker_steps
from ablate.training.trial import build, external_teacher, load_data, prepare, preprocess_of, trial_id

GIVEN = Preprocess((32, 32), (32, 32), "bilinear", 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
WANTED = dataclasses.replace(GIVEN, scale=1.0, mean=(100.0, 120.0, 90.0), std=(1.0, 2.0, 3.0), swapped=True)
REVERSED = datasets.CIFAR10[::-1]


def saved(folder, labels=REVERSED, side=32, **more):
    """A teacher's folder; it takes images of its own size and normalisation."""
    settings = {"size": {"height": side, "width": side}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3}
    ViTImageProcessor(**settings).save_pretrained(folder)
    save(folder, "ViTForImageClassification", SMALL | {"image_size": side} | more, **numbered(labels))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("teacher") / "saved", side=48)


def taught(tiny_vit, teacher, **recipe):
    recipe = {"epochs": 1, "bf16": False, "distill": 0.5, **recipe}
    layers = {"block1.fc1": LayerSpec(weights="binary")}
    return TrialSpec(
        model=str(tiny_vit), layers=layers, fraction=0.02, recipe=Recipe(**recipe, teacher=teacher)
    )


def images(size=(32, 32)):
    smooth = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(smooth, size, mode="bicubic").clamp(0, 255).byte()


@pytest.mark.parametrize("given", [GIVEN, dataclasses.replace(GIVEN, swapped=True)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [24, 32, 50])
def test_pixels_are_converted_to_those_of_another_processor(given, interpolation, side):
    wanted = dataclasses.replace(WANTED, size=(side, side), resize=(side, side), interpolation=interpolation)
    found = converted(given(images()), given, wanted)
    steps = (found - wanted(images())).abs() * torch.tensor(wanted.std)[:, None, None]
    assert steps.max() <= (0.001 if side == 32 else 1.5)  # of 255: torchvision rounds, twice in bicubic


def test_mixed_pixels_are_converted_as_the_mix_of_converted_ones():
    wanted = dataclasses.replace(WANTED, size=(40, 40), resize=(40, 40))
    one, other = GIVEN(images()), GIVEN(images()).flip(0)
    both = [converted(pixels, GIVEN, wanted) for pixels in (one, other)]
    mixed = converted(0.3 * one + 0.7 * other, GIVEN, wanted)
    torch.testing.assert_close(mixed, 0.3 * both[0] + 0.7 * both[1], rtol=0, atol=1e-3)
    assert converted(one, GIVEN, dataclasses.replace(GIVEN, interpolation="bicubic")) is one  # nothing to do


def test_the_loss_is_that_of_its_own_logits(tiny_vit, folder):
    """Its rows are in the data's order, and its images in its own size and normalisation."""
    spec = taught(tiny_vit, folder, distill=1.0, temperature=3.0)
    data = load_data(spec.data, spec.model)
    own = loading.preprocess(folder)
    model, pixels = build(spec, data.classes), images()
    with torch.no_grad():
        given = preprocess_of(spec.model, data)(pixels)
        loss = Objective(model, spec.recipe, external_teacher(spec, data))(
            given, torch.zeros(4, dtype=torch.long)
        )
        plain = ViTForImageClassification.from_pretrained(folder, attn_implementation="eager").eval()
        resized = F.interpolate(pixels.float(), own.size, mode="bilinear", antialias=True)
        its = plain((resized / 255 - 0.4) / 0.2).logits.flip(1) / 3
        expected = 9 * F.kl_div(
            F.log_softmax(model(given).logits / 3, 1), F.softmax(its, 1), reduction="batchmean"
        )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_trial_of_it_trains_no_other_teacher(tiny_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    teacher = saved(tmp_path / "teacher", hidden_size=16)
    mixed = run_trial(taught(tiny_vit, teacher, mix=0.8, distill=1.0))
    assert mixed["status"] == "complete" and not (tmp_path / "cache" / "teachers").exists()
    edit(tmp_path / "teacher", lambda state: {key: value * 2 for key, value in state.items()})
    other = run_trial(taught(tiny_vit, teacher, mix=0.8, distill=1.0))
    assert other["status"] == "complete" and other["loss"] != mixed["loss"]
    assert other["trial_id"] != mixed["trial_id"]


def test_its_contents_and_not_its_path_are_in_the_id(tiny_vit, folder, tmp_path):
    copy = copy_files(locating.local_path(folder), tmp_path)
    name = trial_id(taught(tiny_vit, folder))
    assert trial_id(taught(tiny_vit, str(copy))) == name != trial_id(taught(tiny_vit, None))
    idle = {"distill": 0.0, "temperature": 2.0}
    assert trial_id(taught(tiny_vit, folder, **idle)) == trial_id(taught(tiny_vit, None, **idle))
    edit(copy, lambda state: {key: value + 1 for key, value in state.items()})
    assert trial_id(taught(tiny_vit, str(copy))) != name


@pytest.mark.parametrize(
    ("labels", "more", "recipe", "told"),
    [
        (
            ["a", "b"],
            {},
            {},
            r"must know the data's classes, but that of '.*' would be new \(The head is new: .*labels",
        ),
        (
            REVERSED,
            {"num_hidden_layers": 3},
            {"distill_blocks": 1.0},
            "the model has 2 and the teacher 3; set distill_b",
        ),
        (
            REVERSED,
            {"hidden_size": 16},
            {"distill_blocks": 1.0},
            "the model is 17x32 and of the teacher 17x16",
        ),
        (REVERSED, {"patch_size": 16}, {"distill_blocks": 1.0}, "the model is 17x32 and of the teacher 5x32"),
        (
            REVERSED,
            {"image_size": 64},
            {},
            "must take the images that its processor makes, but: Input image size",
        ),
    ],
)
def test_what_cannot_teach_is_refused_before_anything_trains(
    tiny_vit, tmp_path, monkeypatch, labels, more, recipe, told
):
    monkeypatch.setattr("ablate.training.trial._trained", lambda *_: pytest.fail("a training"))
    teacher = saved(tmp_path / "teacher", labels, **more)
    with pytest.raises(BadInput, match=told):
        run_trial(taught(tiny_vit, teacher, full_epochs=1, **recipe))


@pytest.mark.parametrize("name", ["vit-micro", "resnet18:random", "./nowhere"])
def test_names_that_cannot_teach(tiny_vit, name):
    with pytest.raises(BadInput, match=r"would be new|no folder"):
        run_trial(taught(tiny_vit, name))


def test_a_worker_gets_its_files(tiny_vit, folder):
    spec = taught(tiny_vit, "/elsewhere/teacher")
    data = load_data(spec.data, spec.model)
    with pytest.raises(BadInput, match="no folder '/elsewhere/teacher'"):
        prepare(spec, 1, data, None)
    files = {str(tiny_vit): {}, "/elsewhere/teacher": locating.files(folder)}
    worker_steps(spec, "name", None, threads=1, files=files, dataset=data)
    _, teacher = prepare(spec, 1, data, None)
    there = external_teacher(taught(tiny_vit, folder), data)
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
    device = next(teacher.parameters()).device
    assert teacher(pixels.to(device)).logits.cpu().allclose(there(pixels).logits, atol=1e-5)
