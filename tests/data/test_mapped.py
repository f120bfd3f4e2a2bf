"""Images that are larger than memory: the same as in memory, from a file that workers open by its path."""

import pickle
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from ablate import run_trial
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import cache, datasets, image_files, image_folder, mapped
from ablate.errors import BadInput, WriteFailed
from ablate.training.trial import load_data


def draw(path, seed, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """Two classes, copies, and an image that EXIF turns: all that has a note, or changes the order."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    for i in range(60):
        draw(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i:02}.png", i)
    for i in range(0, 20, 2):
        shutil.copy(tmp_path / "pets" / "cat" / f"{i:02}.png", tmp_path / "pets" / "cat" / f"copy{i}.png")
    (exif := Image.Exif())[0x0112] = 6
    Image.new("RGB", (24, 20)).save(tmp_path / "pets" / "dog" / "turned.png", exif=exif)
    return tmp_path / "pets"


@pytest.fixture
def small_memory(monkeypatch):
    """Nothing fits in memory from here on, and what is loaded is loaded again."""

    def shrink():
        datasets._loaded.clear()
        monkeypatch.setattr(image_files, "MEMORY_SHARE", 1e-9)

    return shrink


def kept(folder):
    return sorted((cache.cache() / "images").glob("*.uint8"))


@pytest.mark.parametrize("options", ["", "?size=16"])
def test_they_are_what_they_are_in_memory(pets, tiny_vit, small_memory, monkeypatch, options):
    name = f"imagefolder:{pets}{options}"
    whole = load_data(name, str(tiny_vit))
    small_memory()
    first = load_data(name, str(tiny_vit))
    datasets._loaded.clear()
    monkeypatch.setattr(image_files, "_decoded", None)  # nothing is decoded again
    for found in (first, load_data(name, str(tiny_vit)), pickle.loads(pickle.dumps(first))):
        for split in ("train", "validation", "test"):
            images, labels = getattr(found, split).images, getattr(found, split).labels
            assert isinstance(images, mapped.MappedImages) and images.shape == images[:].shape
            assert np.array_equal(images[:], getattr(whole, split).images)
            assert np.array_equal(labels, getattr(whole, split).labels)
        assert np.array_equal(found.tested("B").images[:], whole.tested("B").images)
        about = [(d.digest, d.digest_of_b, d.notes, d.mirrored, d.at_decoding) for d in (found, whole)]
        assert about[0] == about[1] and any("turned as EXIF says" in note for note in found.notes)
    assert len(pickle.dumps(first)) < 10_000 < len(pickle.dumps(whole))


def test_a_trial_on_them_is_the_same_to_the_bit(pets, tiny_vit, small_memory):
    spec = TrialSpec(
        model=str(tiny_vit),
        data=f"imagefolder:{pets}",
        layers={"block0.fc1": LayerSpec(weights="binary")},
        recipe=Recipe(epochs=1, batch_size=8, bf16=False),
        fraction=0.5,
        test="A",
    )
    whole = run_trial(spec)
    small_memory()
    again = run_trial(spec)
    assert (whole["status"], again["trial_id"]) == ("complete", whole["trial_id"])
    for key in ("images", "accuracy", "test_accuracy", "loss"):
        assert again[key] == whole[key]


def test_the_file_is_made_anew_when_the_images_change(pets, small_memory):
    small_memory()
    before = datasets.load(f"imagefolder:{pets}")
    old = kept(pets)
    datasets.load(f"imagefolder:{pets}?size=16")
    assert len(kept(pets)) == 2  # another size is another dataset
    draw(pets / "cat" / "00.png", 99)
    after = datasets.load(f"imagefolder:{pets}")
    assert after.digest != before.digest and len(kept(pets)) == 2 and old[0] not in kept(pets)
    with pytest.raises(
        BadInput, match=r"must be in .*uint8' on each machine, but: .*; put ABLATE_CACHE on a file"
    ):
        pickle.loads(pickle.dumps(before)).train.images[:1]


def test_what_fails_leaves_no_file(pets, small_memory, monkeypatch):
    small_memory()
    (pets / "dog" / "01.png").write_bytes((pets / "dog" / "01.png").read_bytes()[:900])
    with pytest.raises(BadInput, match="every image must be one that Pillow reads, but 1 of 71 can't"):
        image_folder.contents(pets)
    assert not kept(pets)
    draw(pets / "dog" / "01.png", 1)
    disk = namedtuple("Disk", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    with pytest.raises(
        WriteFailed, match=r"71 images of .* must fit into .*, but: 0.0 GB are free; give a .*\?size="
    ):
        image_folder.contents(pets)
    assert not kept(pets)


@pytest.mark.long
def test_every_node_must_reach_the_file(own_ray, tmp_path):
    import ray

    from ablate.execution.shared_files import check_reachable

    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
    (tmp_path / "here").write_bytes(pixels.tobytes())
    images = mapped.MappedImages(tmp_path / "here", (4, 3), np.array([4, 0, 2]))
    assert np.array_equal(ray.get(ray.remote(lambda images: images[1:]).remote(images)), pixels[[0, 2]])
    check_reachable({tmp_path / "here"})
    check_reachable(set())
    unreadable = type(
        "Elsewhere", (type(tmp_path),), {"__reduce__": lambda self: (type(tmp_path), ("/elsewhere",))}
    )
    with pytest.raises(
        BadInput, match=r"must be on every node, but '/elsewhere' is not on .*; set ABLATE_CACHE"
    ):
        check_reachable({unreadable(tmp_path / "here")})
