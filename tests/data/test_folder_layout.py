"""Which classes and images a folder has: splits, what is left out, links, copies, changes in a process."""

import hashlib
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ablate.data import datasets, image_folder
from ablate.data.folder_layout import layout
from ablate.errors import BadInput


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def fill(*folders, n=4, classes=("cat", "dog")):
    """n images of each class in each folder, no two of them equal."""
    for i, folder in enumerate(folders):
        for j, name in enumerate(classes):
            for k in range(n):
                draw(folder / name / f"{k}.png", 10_000 * i + 100 * j + k)
    return folders[0]


def counted(folder):
    """Images of train, validation and test."""
    return [len(labels) for _, labels in image_folder.read(folder)[1].values()]


def refused(folder, *parts):
    with pytest.raises(BadInput) as error:
        image_folder.read(folder)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), [8, 8, 8]),
        (("Train", "Valid", "Test"), [8, 8, 8]),
        (("TRAINING", "VALIDATION", "TESTING"), [8, 8, 8]),
        (("train", "dev", "eval"), [8, 8, 8]),
        (("training_set", "val images", "test-data"), [8, 8, 8]),
        (("training", "testing"), [6, 2, 8]),
        (("seg_train", "seg_test"), [6, 2, 8]),
        (("train2017", "val2017"), [6, 8, 2]),
        (("train", "val (1)", "my-test"), [8, 8, 8]),
        (("train", "val"), [6, 8, 2]),
        (("train",), [4, 2, 2]),
    ],
)
def test_words_of_splits(tmp_path, names, expected, logged):
    fill(*(tmp_path / name for name in names))
    classes, arrays = image_folder.read(tmp_path)
    assert classes == ["cat", "dog"] and [len(labels) for _, labels in arrays.values()] == expected
    lacking = logged()
    assert ("no folder for" in lacking) == (len(names) < 3)
    whole = [image.tobytes() for images, _ in arrays.values() for image in images]
    assert len(set(whole)) == len(whole) == 8 * len(names)


def test_splits_that_are_unclear(tmp_path):
    fill(tmp_path / "a" / "train", tmp_path / "a" / "val", tmp_path / "a" / "Valid", tmp_path / "a" / "test")
    refused(tmp_path / "a", "'Valid' and 'val' for validation", "keep or rename one")
    fill(tmp_path / "b" / "test", tmp_path / "b" / "val")
    refused(tmp_path / "b", "must have train/", "lacks train")
    fill(tmp_path / "c" / "train", tmp_path / "c" / "held out")
    refused(tmp_path / "c", "lacks validation and test and has 'held out'")
    for split in ("train", "test"):
        draw(tmp_path / "d" / split / "0.png", 0)  # no folder a class
    refused(tmp_path / "d", "d/train' must hold a folder of images a class")
    fill(tmp_path / "e", classes=("cat/train", "cat/test", "dog/train", "dog/test"))
    refused(tmp_path / "e", "splits must stand above classes", "e/cat'")
    fill(tmp_path / "f", classes=("a\nb", "c"))
    refused(tmp_path / "f", "a name that can be printed", "'a\\nb'")


def test_what_is_no_split(tmp_path, logged):
    classes = ("car", "plane", "train")  # a class
    assert image_folder.read(fill(tmp_path / "a", classes=classes))[0] == [*classes]
    assert "'train' counts as a class" in logged()
    assert image_folder.read(fill(tmp_path / "b", classes=("valid", "invalid")))[0] == ["invalid", "valid"]
    fill(*(tmp_path / "c" / name for name in ("train", "val", "test", "more")))
    assert counted(tmp_path / "c") == [8, 8, 8]
    assert "'more' was left out: no split has this name" in logged()


HIDDEN = (
    ".ipynb_checkpoints",
    "@eaDir",
    "__MACOSX",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    ".git",
)


@pytest.mark.parametrize("splits", [(), ("train", "val", "test")])
def test_what_is_hidden_or_the_systems_is_left_out(tmp_path, splits, logged):
    folders = [tmp_path / split for split in splits] or [tmp_path]
    fill(*folders)
    before = counted(tmp_path)
    assert logged() == ""
    for name in HIDDEN:
        for folder in (tmp_path, folders[0], folders[0] / "cat"):
            draw(folder / name / "cat" / "0.png", 7)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folders[0] / "cat" / name).write_bytes(b"none")
    assert image_folder.read(tmp_path)[0] == ["cat", "dog"] and counted(tmp_path) == before
    said = logged()
    n = len(HIDDEN) * (3 if splits else 2) + 4
    assert f"left out: {n} hidden or the system's ('$RECYCLE.BIN', '.git', " in said


def test_what_pillow_reads_is_read_and_the_rest_is_counted(tmp_path, logged):
    fill(tmp_path)
    for i, extension in enumerate(("JPG", "jfif", "gif", "avif", "TIFF", "webp", "jp2", "ppm", "tga", "ico")):
        draw(tmp_path / "dog" / f"more.{extension}", 20 + i)
    assert sum(counted(tmp_path)) == 18 and logged() == ""
    for name in ("a.heic", "b.txt", "c.mpg", "d.h5", "e.eps", "f", "g.png.part"):
        (tmp_path / "cat" / name).write_bytes(b"none")
    draw(tmp_path / "loose.png", 50)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    found = image_folder.contents(tmp_path)
    (note,) = found.notes
    assert "7 without the extension of an image ('cat/a.heic', 'cat/b.txt', 'cat/c.mpg', ...)" in note
    assert "1 in no class's folder ('loose.png')" in note and "1 not regular files ('cat/pipe.png')" in note
    assert logged() == f"{tmp_path}: {note}\n"


def test_a_file_counts_once(tmp_path):
    fill(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(".")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "Z").mkdir()
    shutil.move(tmp_path / "cat" / "3.png", tmp_path / "cat" / "Z" / "3.png")
    (tmp_path / "cat" / "A").symlink_to("Z")
    (tmp_path / "cat" / "0 again.png").symlink_to("0.png")
    (tmp_path / "dog" / "itself").symlink_to("itself")
    (tmp_path / "all").symlink_to(".")
    (tmp_path / "hound").symlink_to("dog")
    found = layout(tmp_path)
    assert found.classes == ["cat", "dog"]
    names = [path.relative_to(tmp_path).as_posix() for path, _ in found.files["train"]]
    assert names == [f"cat/{name}" for name in ("0.png", "1.png", "2.png", "Z/3.png")] + [
        f"dog/{i}.png" for i in range(4)
    ]
    assert "6 linking to what counts already ('all', 'cat/0 again.png', 'cat/A', ...)" in found.notes[0]


def test_links_to_files_elsewhere_are_read(tmp_path):
    fill(tmp_path / "raw")
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "links" / name / f"{i}.png").symlink_to(tmp_path / "raw" / name / f"{i}.png")
    for (images, _), (others, _) in zip(
        *(image_folder.read(tmp_path / n)[1].values() for n in ("raw", "links")), strict=True
    ):
        assert np.array_equal(images, others)
    (tmp_path / "links" / "cat" / "9.png").symlink_to("nowhere")
    refused(tmp_path / "links", "9.png", "No such file")
    (tmp_path / "alias").symlink_to("raw")
    (tmp_path / "raw" / "emu").symlink_to("nowhere")
    assert "1 linking to what is not there ('emu')" in layout(tmp_path / "raw").notes[0]
    assert image_folder.read(tmp_path / "alias")[0] == ["cat", "dog"]


def test_classes_and_images_are_those_of_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    fill(tmp_path, classes=("b", "B", "a b", "é", "1", "10", "2", "x/y", "x/y-z", "x"))
    found, theirs = layout(tmp_path), ImageFolder(tmp_path)
    assert found.classes == theirs.classes
    assert [(str(path), label) for path, label in found.files["train"]] == theirs.samples


def test_copies_are_in_one_split(tmp_path, logged):
    fill(tmp_path, n=20)
    alone = datasets.load(f"imagefolder:{tmp_path}")
    for path in list(tmp_path.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
        Image.open(path).save(path.with_suffix(".bmp"))
    found = datasets.load(f"imagefolder:{tmp_path}")
    splits = [
        {image.tobytes() for image in split.images} for split in (found.train, found.validation, found.test)
    ]
    assert [len(split) for split in splits] == [32, 4, 4] and len(set.union(*splits)) == 40
    assert [len(split) for split in (found.train, found.validation, found.test)] == [96, 12, 12]
    assert found.notes == (found.notes[0],) and found.notes[0].startswith(
        "80 images are copies of others in their split"
    )
    assert f"{tmp_path}: {found.notes[0]}\n" == logged()
    assert alone.notes == () and alone.digest != found.digest


def test_an_image_in_two_classes_is_for_training(tmp_path):
    fill(tmp_path, n=10)
    ranked = sorted(range(10), key=lambda i: hashlib.sha256(f"cat/{i}.png".encode()).hexdigest())
    test = tmp_path / "cat" / f"{ranked[0]}.png"
    shutil.copy(test, tmp_path / "dog" / "cat.png")
    found = image_folder.contents(tmp_path)
    pixels = np.asarray(Image.open(test))
    assert sum(np.array_equal(image, pixels) for image in found.arrays["train"][0]) == 2
    assert "2 images are in several classes, as equal pixels ('cat/" in found.notes[0]


def test_copies_across_splits_of_ones_own_are_counted(tmp_path):
    fill(*(tmp_path / name for name in ("train", "val", "test")))
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "3.png")
    shutil.copy(tmp_path / "train" / "cat" / "1.png", tmp_path / "val" / "cat" / "9.png")
    found = datasets.load(f"imagefolder:{tmp_path}")
    assert found.notes == (
        "1 of 8 test images are in train, too, as equal pixels ('test/cat/3.png', 'train/cat/0.png')",
        "1 of 9 validation images are in train, too, as equal pixels ('val/cat/9.png', 'train/cat/1.png')",
    )


def test_changes_within_a_process_are_seen(tmp_path, capsys):
    name = f"imagefolder:{fill(tmp_path, n=5)}"
    first = datasets.load(name)
    assert datasets.load(name) is first
    draw(tmp_path / "cat" / "new.png", 77)
    added = datasets.load(name)
    assert len(added.train) == len(first.train) + 1 and datasets.load(name) is added
    path = tmp_path / "cat" / "new.png"
    about = path.stat()
    content = bytearray(path.read_bytes())
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))  # as long as before, and as old
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert datasets.load(name).digest != added.digest
    path.unlink()
    assert datasets.load(name).digest == first.digest
    shutil.rmtree(tmp_path)
    with pytest.raises(BadInput, match="must be a folder of images"):
        datasets.load(name)
