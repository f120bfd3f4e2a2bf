"""Anyone's own images: layouts, splits, sizes, faults, and one trial on them."""

import numpy as np
import pytest
from PIL import Image

from ablate import run_trial
from ablate.config.study_spec import load_study
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets, image_folder
from ablate.errors import BadInput

CLASSES = {"cat": 20, "dog": 30, "emu": 10}


def draw(path, seed, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def pets(tmp_path):
    """Sixty PNGs of 40 x 40 pixels in three classes, without splits."""
    for label, (name, count) in enumerate(CLASSES.items()):
        for i in range(count):
            draw(tmp_path / "pets" / name / f"{i:02}.png", 100 * label + i)
    return tmp_path / "pets"


@pytest.fixture
def apart(tmp_path):
    """Two classes in train/, val/ and test/."""
    for i, split in enumerate(("train", "val", "test")):
        for name in ("ant", "bee"):
            draw(tmp_path / "apart" / split / name / "0.png", i)
    return tmp_path / "apart"


def test_a_folder_a_class_is_split_by_the_hash_of_each_name(pets):
    found = datasets.load(f"imagefolder:{pets}")
    assert found.classes == ["cat", "dog", "emu"]
    assert np.bincount(found.train.labels).tolist() == [16, 24, 8]
    assert (
        np.bincount(found.validation.labels).tolist() == np.bincount(found.test.labels).tolist() == [2, 3, 1]
    )
    assert found.train.images.shape == (48, 40, 40, 3) and found.train.images.dtype == np.uint8
    splits = [
        {image.tobytes() for image in split.images} for split in (found.train, found.validation, found.test)
    ]
    assert len(set.union(*splits)) == 60
    # the first tenth by sha256 of "emu/NN.png", computed by hand here
    import hashlib

    first = min(
        (f"emu/{i:02}.png" for i in range(10)), key=lambda name: hashlib.sha256(name.encode()).hexdigest()
    )
    assert np.array_equal(found.test.images[-1], np.asarray(Image.open(pets / first)))


def test_the_split_depends_on_nothing_but_names(pets, tmp_path):
    before = datasets.load(f"imagefolder:{pets}")
    moved = pets.rename(tmp_path / "elsewhere")
    assert datasets.load(f"imagefolder:{moved}").digest == before.digest


def test_the_digest_covers_pixels_labels_and_splits(pets):
    def digest():
        return image_folder.load(f"imagefolder:{pets}").digest

    seen = {digest()}
    draw(pets / "cat" / "00.png", 999)
    seen.add(digest())
    (pets / "cat" / "01.png").rename(pets / "cat" / "xx.png")
    seen.add(digest())
    (pets / "cat").rename(pets / "zebu")  # the same pixels, with other labels
    seen.add(digest())
    assert len(seen) == 4


def test_splits_of_ones_own(apart):
    found = datasets.load(f"imagefolder:{apart}")
    for seed, split in enumerate((found.train, found.validation, found.test)):
        expected = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        assert split.labels.tolist() == [0, 1] and np.array_equal(split.images[1], expected)
    (apart / "val").rename(apart / "validation")
    assert image_folder.load(f"imagefolder:{apart}").digest == found.digest


def test_images_of_different_sizes(pets):
    half = np.zeros((60, 100, 3), np.uint8)
    half[:, 50:] = 255
    Image.fromarray(half).save(pets / "cat" / "00.png")
    assert datasets.load(f"imagefolder:{pets}").train.images.shape == (48, 40, 40, 3)  # the median
    found = datasets.load(
        f"imagefolder:{pets}?size=30"
    )  # 100 x 60 -> 50 x 30, of which the middle 30 columns
    images = np.concatenate([found.train.images, found.validation.images, found.test.images])
    shown = next(image for image in images if (image[:, :10] == 0).all() and (image[:, -10:] == 255).all())
    assert images.shape == (60, 30, 30, 3) and np.abs(shown.mean() - 127.5) < 5


def test_kinds_of_images(pets):
    Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40)).save(pets / "cat" / "00.png")  # grey
    Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(pets / "cat" / "01.png")
    Image.new("P", (40, 40)).save(pets / "cat" / "02.png")
    Image.new("CMYK", (40, 40)).save(pets / "cat" / "03.jpg")
    (pets / "cat" / "notes.txt").write_text("passed over")
    assert datasets.load(f"imagefolder:{pets}").train.images.shape[1:] == (40, 40, 3)


def harmed(name, *parts):
    with pytest.raises(BadInput) as error:
        datasets.load(name)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_images_that_cannot_be_read_are_named(pets):
    whole = (pets / "cat" / "00.png").read_bytes()
    (pets / "cat" / "00.png").write_bytes(whole[: len(whole) // 2])
    harmed(
        f"imagefolder:{pets}", "every image must be one that Pillow reads", "but 1 of", "00.png", "truncated"
    )
    (pets / "cat" / "00.png").write_bytes(b"")
    (pets / "dog" / "00.png").write_bytes(b"no image")
    harmed(
        f"imagefolder:{pets}",
        "but 2 of 60",
        "cat/00.png' (no image)",
        "dog/00.png' (no image)",
        "mend or remove them",
    )


def test_folders_of_another_layout(pets, apart, tmp_path):
    harmed("imagefolder:nowhere", "must be a folder of images", "nowhere' does not exist")
    harmed("imagefolder:", "unknown dataset 'imagefolder:'", "imagefolder:PATH")
    harmed(f"imagefolder:{pets / 'cat'}", "must hold a folder of images a class")
    harmed(f"imagefolder:{pets}?size=0", "8 <= size <= 4096 must hold", "?size=0")
    (pets / "empty").mkdir()
    harmed(f"imagefolder:{pets}", "the folder of a class must hold images", "pets/empty' has none; remove it")
    (pets / "empty" / "photo.heic").write_bytes(b"")
    harmed(f"imagefolder:{pets}", "pets/empty' has none ('", "empty/photo.heic' was left out)")
    (pets / "empty" / "photo.heic").unlink()
    (pets / "empty").rmdir()
    draw(pets / "few" / "0.png", 0)
    harmed(f"imagefolder:{pets}", "'few' has 1")
    draw(apart / "test" / "cow" / "0.png", 0)
    harmed(f"imagefolder:{apart}", "train and test", "differ in 'cow'")
    (apart / "val").rename(apart / "other")
    harmed(f"imagefolder:{apart}", "lacks validation")
    draw(tmp_path / "one" / "cat" / "0.png", 0)
    harmed(f"imagefolder:{tmp_path / 'one'}", "two classes or more", "['cat']")


def test_paths_are_made_absolute_at_the_door(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert datasets.load("imagefolder:pets").digest == datasets.load(f"imagefolder:{pets}").digest
    (tmp_path / "studies").mkdir()
    text = "question = '?'\nspace = 'bits'\ndata = 'imagefolder:../pets?size=32'"
    (tmp_path / "studies" / "mine.toml").write_text(text)
    monkeypatch.chdir("/")
    name = load_study(str(tmp_path / "studies" / "mine.toml")).data
    assert name == f"imagefolder:{tmp_path}/studies/../pets?size=32"
    assert datasets.load(name).train.images.shape[1:] == (32, 32, 3)


def test_a_plan_holds_the_absolute_path(pets, tiny_vit, tmp_path, monkeypatch):
    from ablate.engine.plan import plan

    monkeypatch.chdir(tmp_path)
    study = load_study("default").model_copy(update={"data": "imagefolder:pets", "model": str(tiny_vit)})
    planned = plan(study)
    assert planned.study.data == f"imagefolder:{pets}" and planned.dataset.classes == ["cat", "dog", "emu"]
    assert all(spec.data == planned.study.data for spec in planned.anchors)


def test_a_trial_on_ones_own_images(pets, tiny_vit, tmp_path):
    layers = {"block0.fc1": LayerSpec(weights="ternary")}
    asked = {
        "model": str(tiny_vit),
        "recipe": Recipe(epochs=1, batch_size=8, bf16=False),
        "layers": layers,
        "test": True,
    }
    spec = TrialSpec(data=f"imagefolder:{pets}", **asked)
    record = run_trial(spec)
    assert record["status"] == "complete" and record["error"] is None
    assert record["images"] == 48 and record["steps"] == 6
    assert record["accuracy"] * 6 == pytest.approx(round(record["accuracy"] * 6), abs=1e-5)
    assert record["test_accuracy"] is not None
    moved = pets.rename(tmp_path / "elsewhere")
    assert run_trial(TrialSpec(data=f"imagefolder:{moved}", **asked))["trial_id"] == record["trial_id"]
