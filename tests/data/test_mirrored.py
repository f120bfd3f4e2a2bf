"""Classes that are each other's mirror images are found, and are not mixed up by the default augmentation."""

import logging

import numpy as np
import pytest
from PIL import Image

from ablate import run_trial
from ablate.config.canonical import asked
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets, flips
from ablate.data.datasets import Dataset, Split
from ablate.data.mirrored import mirrored_classes
from ablate.engine.plan import plan
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.search.experiment_design import Design
from ablate.training.rerun import compare
from ablate.training.trial import resolved, trial_id

PAIR = (("left", "right"),)


def arrows(n):
    """Arrows to the left, to the right and up, on noise: (3 n, 16, 16, 3), and their labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (3 * n, 16, 16, 3)).astype(np.uint8)
    labels = np.repeat(np.arange(3), n)
    for image, label in zip(images, labels, strict=True):
        drawn = image.transpose(1, 0, 2) if label == 2 else image[:, ::-1] if label == 1 else image  # views
        y = rng.integers(5, 11)
        drawn[y - 1 : y + 2, 3:14] += 120
        for j in range(4):
            drawn[y - j : y + j + 1, 3 + j] += 60
    return images, labels


def dataset(n=40):
    split = Split(*arrows(n))
    return Dataset(["a", "b", "up"], split, split, split, "arrows")


def test_mirrored_classes_are_seen_in_the_images():
    assert dataset().mirrored == (("a", "b"),)
    assert mirrored_classes(["x", "y", "z"], *arrows(24)) == (("x", "y"),)


def test_a_class_without_images_is_nobodys_mirror_image():
    images, labels = arrows(24)
    for gone in range(3):
        kept = labels != gone
        assert mirrored_classes(["x", "y", "z"], images[kept], labels[kept]) == (
            (("x", "y"),) if gone == 2 else ()
        )
    assert mirrored_classes(["w", "x", "y", "z"], images, labels + 1) == (("x", "y"),)


def test_no_other_classes_are():
    rng, mini = np.random.default_rng(0), datasets.load("cifar10-mini")
    assert mini.mirrored == mirrored_classes(mini.classes, mini.train.images, mini.train.labels) == ()
    for n in (1, 2, 8, 30):
        noise = rng.integers(0, 255, (6 * n, 8, 9, 3), dtype=np.uint8)
        assert mirrored_classes([*"abcdef"], noise, np.repeat(np.arange(6), n)) == ()
    flat = np.zeros((20, 8, 8, 3), dtype=np.uint8)
    assert mirrored_classes(["a", "b"], flat, np.arange(20) % 2) == ()


def test_names_tell_as_well():
    names = ["Turn left", "bright", "turn right", "right hand", "blight", "left_hand", "leftover"]
    images, labels = np.zeros((7, 8, 8, 3), dtype=np.uint8), np.arange(7)
    assert mirrored_classes(names, images, labels) == (("Turn left", "turn right"),)


def test_true_augments_only_where_nothing_is_mixed_up():
    mirrored, plain = dataset(), datasets.load("cifar10-mini")
    for given, there, elsewhere in (
        (True, False, True),
        ("both", "both", True),
        ("shift", "shift", "shift"),
        ("flip", "flip", "flip"),
        (False, False, False),
    ):
        spec = TrialSpec(recipe=Recipe(augment=given))
        found = [resolved(spec, images).recipe.augment for images in (mirrored, plain)]
        assert found == [there, elsewhere]
        assert resolved(resolved(spec, mirrored), mirrored) == resolved(spec, mirrored)
    ids = {
        given: trial_id(TrialSpec(recipe=Recipe(augment=given)), mirrored)
        for given in (True, "both", "shift", False)
    }
    assert ids[True] == ids[False] and len(set(ids.values())) == 3
    both = asked(TrialSpec(recipe=Recipe(augment="both")), exclude=set())
    assert both == asked(TrialSpec(recipe=Recipe(augment=True)), exclude=set())  # as it was recorded before


def test_a_study_decides_it_wherever_it_is_said():
    space = {
        "description": "d",
        "layer": {"weights": "binary"},
        "recipe": {"augment": [True, "shift", False]},
    }
    steps = [{"name": "s", "recipe": {"augment": True}, "tune": {"augment": [True, "both"]}}]
    study = StudySpec(question="?", space=space, design=("arms",), steps=steps)
    found = flips.decided(study, PAIR)
    assert (found.recipe.augment, found.space.recipe["augment"]) == (False, (False, "shift"))
    assert found.steps[0].recipe == {"augment": False} and found.steps[0].tune == {"augment": (False, "both")}
    assert flips.decided(study, ()).space.recipe["augment"] == (True, "shift", False)
    assert {spec.recipe.augment for (spec,) in Design(found, ["head"]).planned} == {False, "both"}


def test_what_is_said():
    assert flips.notice([True], ()) == flips.notice([False, "shift"], PAIR) == ""
    assert (
        "'left' and 'right' are mirror images of each other, so recipe.augment = true augments nothing"
        in flips.notice([True, "both"], PAIR)
    )
    assert "(and 1 more pairs)" in (said := flips.notice(["flip"], PAIR * 2)) and "mix them up" in said


def test_a_trial_and_a_study_on_mirrored_classes(tiny_vit, tmp_path, caplog):
    images, labels = arrows(20)
    for i, (image, label) in enumerate(zip(images[:40], labels[:40], strict=True)):
        (folder := tmp_path / ("left", "right")[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    name = f"imagefolder:{tmp_path}"
    caplog.set_level(logging.WARNING, "ablate")
    record = run_trial(TrialSpec(model=str(tiny_vit), data=name, recipe=Recipe(epochs=1, bf16=False)))
    assert record["status"] == "complete" and record["spec"]["recipe"]["augment"] is False
    assert "mirror images" in caplog.text
    space = {"description": "d", "layer": {"weights": ["full", "binary"]}}
    study = StudySpec(question="?", model=str(tiny_vit), data=name, space=space)
    planned = plan(study)
    assert planned.study.recipe.augment is False and "mirror images" in planned.notices[0]
    assert {spec.recipe.augment for spec in planned.anchors} == {False}
    spec = TrialSpec(model=str(tiny_vit), data=name, recipe=Recipe(epochs=1, bf16=False, augment="both"))
    old = run_trial(spec)
    old["spec"]["recipe"]["augment"] = True  # as a version that always flipped wrote it
    assert all(row["same"] for row in compare(old))
    with pytest.raises(BadInput, match="a version that flipped images began this run"):
        plan(study, [old])
    blank = blank_record(TrialSpec(recipe=Recipe(augment=False)), "x")
    assert plan(study, [blank]).study.recipe.augment is False
