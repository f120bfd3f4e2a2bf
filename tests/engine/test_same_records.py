"""A run whose provenance.json is gone: its trials say by which study they were made."""

import numpy as np
import pytest
from PIL import Image

from ablate.config.study_spec import StudySpec
from ablate.engine.plan import plan
from ablate.engine.same_records import check_records
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.training.trial import trial_id

SPACE = {"description": "d", "layer": {"weights": ["full", "binary"]}}


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


def planned(images, model, **changes):
    fields = {"space": SPACE, "recipe": {"epochs": 1}, "data": f"imagefolder:{images}", "model": str(model)}
    return plan(StudySpec(question="?", **fields | changes))


def records_of(made):
    return [blank_record(spec, trial_id(spec, made.dataset)) for spec in made.anchors]


def test_an_edited_study_is_refused_by_its_trials(images, tiny_vit, tmp_path):
    made = planned(images, tiny_vit)
    records = records_of(made)
    check_records(tmp_path, made, records)
    for changes, told in (
        ({"seed": 7}, "seed is 0 there and 7 here"),
        ({"recipe": {"epochs": 2}}, r"recipe\.epochs is 1 there and 2 here"),
        ({"space": SPACE | {"layer": {"weights": ["full", "ternary"]}}}, "layers have other fields"),
    ):
        with pytest.raises(BadInput, match=told):
            check_records(tmp_path, planned(images, tiny_vit, **changes), records)
    check_records(tmp_path, planned(images, tiny_vit, trials=99, max_size_bytes=10**9), records)


def test_other_images_are_refused_and_a_moved_folder_is_not(images, tiny_vit, tmp_path):
    records = records_of(planned(images, tiny_vit))
    moved = images.rename(tmp_path / "moved")
    check_records(tmp_path, planned(moved, tiny_vit), records)
    (moved / "a" / "0.png").unlink()
    with pytest.raises(BadInput, match="its dataset or its model was another one"):
        check_records(tmp_path, planned(moved, tiny_vit), records)


def test_a_design_has_its_seeds(images, tiny_vit, tmp_path):
    design = {"design": "factorial", "seeds": 2, "tuning_seeds": 1}
    records = records_of(planned(images, tiny_vit, **design))
    check_records(tmp_path, planned(images, tiny_vit, **design), records)
    with pytest.raises(BadInput, match="seed is 0 there and 5 to 7 here"):
        check_records(tmp_path, planned(images, tiny_vit, **design, seed=5), records)
