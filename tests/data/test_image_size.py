"""At which size the images of a folder are decoded: what the model's image processor makes of each file."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTImageProcessor

from ablate.cli import status
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.data.image_size import Fit, fit, notes
from ablate.engine import estimate, plan
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import loading
from ablate.models.preprocessing import Preprocess
from ablate.training.run_trial import trial_steps
from ablate.training.trial import load_data, preprocess_of, trial_id

PHOTOS = [(90, 41), (33, 120), (50, 50), (64, 48), (20, 27), (47, 81)]  # (width, height)
PROCESSORS = {
    "squeezed": {"size": {"height": 32, "width": 32}},
    "cropped": {
        "size": {"shortest_edge": 37},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
    },
}
SQUEEZES = Preprocess((32, 24), (32, 24), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)


def folder(root, sizes):
    """Two classes of three images or more, all of them different."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for i, (width, height) in enumerate(sizes):
            path = root / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return f"imagefolder:{root / 'photos'}"


@pytest.fixture(params=PROCESSORS)
def model(request, tiny_vit, tmp_path):
    """A model of 32 px with one of the processors."""
    shutil.copytree(tiny_vit, tmp_path / "model")
    ViTImageProcessor(**PROCESSORS[request.param]).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def files(name):
    return sorted((datasets.Path(name.partition(":")[2])).rglob("*.png"))


@pytest.mark.parametrize("sizes", [PHOTOS, [(64, 48)] * 3], ids=["several", "one, larger"])
def test_photos_reach_the_model_as_its_processor_makes_them(sizes, model, tmp_path):
    found = load_data(name := folder(tmp_path, sizes), model)
    preprocess, theirs = preprocess_of(model, found), AutoImageProcessor.from_pretrained(model)
    assert found.at_decoding and found.train.images.shape[1:] == (32, 32, 3)
    images = np.concatenate([found.train.images, found.validation.images, found.test.images])
    ours = preprocess(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    expected = [theirs(Image.open(path), return_tensors="pt")["pixel_values"][0] for path in files(name)]
    assert len(ours) == len(expected)
    for pixels in expected:
        assert min((pixels - one).abs().max() for one in ours) < 1e-5


def test_a_photo_is_predicted_as_it_was_trained(model, tmp_path):
    spec = TrialSpec(model=model, data=(name := folder(tmp_path, PHOTOS)), recipe=Recipe(epochs=0))
    steps = trial_steps(spec, "one", load_data(name, model))
    with pytest.raises(StopIteration) as end:
        next(steps)
    outcome = end.value.value
    for file, content in outcome.weights.items():
        (tmp_path / "packed").mkdir(exist_ok=True)
        (tmp_path / "packed" / file).write_bytes(content)
    logits = torch.from_numpy(outcome.predictions["validation_logits"])  # (2, classes)
    predicted = [probability for _, probability in predict(tmp_path / "packed", files(name), exact=True)]
    for expected in logits.softmax(1).amax(1).tolist():
        assert min(abs(probability - expected) for probability in predicted) < 1e-6


def test_small_images_of_one_size_stay_as_they_are(model, tmp_path):
    found = load_data(folder(tmp_path, [(32, 20)] * 3), model)
    assert found.train.images.shape[1:] == (20, 32, 3) and not found.at_decoding
    assert preprocess_of(model, found) == loading.preprocess(model).of(found.train.images)
    assert any(
        "all images are scaled up from 32 x 20 to the 32 x 32 that the model takes" in note
        for note in found.notes
    )


def test_the_size_asked_for_holds(model, tmp_path):
    name = folder(tmp_path, PHOTOS) + "?size=40"
    found = load_data(name, model)
    assert found.train.images.shape[1:] == (40, 40, 3) and preprocess_of(model, found).source == (40, 40)
    assert found.digest == datasets.load(name).digest
    found = load_data(
        folder(tmp_path, PHOTOS) + "?size=32", model
    )  # as large as the model takes, but not squeezed
    assert found.covered and preprocess_of(model, found).source == (32, 32)


def test_the_id_says_which_rule_holds(model, tmp_path):
    """Equal pixels are not the same images where the one is to be resized and cropped yet."""
    found = load_data(name := folder(tmp_path, PHOTOS), model)
    for split in ("train", "validation", "test"):
        for i, (image, label) in enumerate(
            zip(getattr(found, split).images, getattr(found, split).labels, strict=True)
        ):
            path = tmp_path / "decoded" / split / ("cat", "dog")[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    again = load_data(f"imagefolder:{tmp_path / 'decoded'}", model)
    assert np.array_equal(found.train.images, again.train.images) and again.digest != found.digest
    assert trial_id(TrialSpec(model=model, data=name)) == trial_id(TrialSpec(model=model, data=name), found)


def test_images_that_the_processor_leaves_at_several_sizes(tiny_vit, tmp_path):
    shutil.copytree(tiny_vit, tmp_path / "model")
    ViTImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path / "model")
    with pytest.raises(
        BadInput, match=r"must bring images to 32 x 32, but not those of \d+ x \d+; set do_resize"
    ):
        load_data(folder(tmp_path, PHOTOS), str(tmp_path / "model"))


def test_a_dry_run_says_the_size(tiny_vit, tmp_path, logged):
    def shown(sizes):
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)
        space = {"description": "?", "layer": {"weights": ["full", "binary"]}, "objectives": ["accuracy"]}
        study = StudySpec(question="?", model=str(tiny_vit), data=folder(tmp_path, sizes), space=space)
        return status._describe_images(**estimate._images(plan.plan(study)))

    assert (
        shown(PHOTOS)
        == "Images: 32 x 32 pixels, each resized and cropped as the model's image processor does it"
    )
    assert "2 of 12 images are scaled up to 32 x 32 pixels, the smallest from 20 x 27\n" in logged()
    assert shown([(24, 20)] * 3) == "Images: 24 x 20 pixels, resized to the model's 32 x 32 batch by batch"
    assert shown([(32, 32)] * 3) == "Images: 32 x 32 pixels"


def test_the_rule():
    several = [(640, 480), (640, 480), (640, 500), (30, 20)]
    assert fit(several, None, None) == Fit((640, 480))  # the median, whatever the odd ones are
    assert fit([(640, 480)] * 2, None, None) == Fit((640, 480)) and fit(several, 50, SQUEEZES) == Fit(
        (50, 50)
    )
    assert fit(several, None, SQUEEZES) == fit([(25, 32)] * 2, None, SQUEEZES) == Fit((24, 32), SQUEEZES)
    assert fit([(24, 32)] * 2, None, SQUEEZES) == Fit((24, 32)) and fit([(9, 9)], None, SQUEEZES) == Fit(
        (9, 9)
    )


def test_scaling_up_is_noted():
    several = [(640, 480), (640, 480), (600, 500), (30, 20)]
    said = ["2 of 4 images are scaled up to 640 x 480 pixels, the smallest from 30 x 20"]
    assert notes(several, Fit((640, 480)), SQUEEZES) == said
    assert notes(several, Fit((24, 32), SQUEEZES), SQUEEZES) == [
        "1 of 4 images are scaled up to 24 x 32 pixels, the smallest from 30 x 20"
    ]
    assert notes([(9, 9)], Fit((9, 9)), SQUEEZES) == [
        "all images are scaled up from 9 x 9 to the 24 x 32 that the model takes"
    ]
    assert notes([(24, 32)], Fit((24, 32)), SQUEEZES) == notes([(99, 99)], Fit((99, 99)), None) == []
