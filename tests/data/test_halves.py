"""The halves of the test images: balanced, fixed by the pixels alone, copies together."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from ablate.data import datasets
from ablate.data.dataset import Dataset, Split
from ablate.data.halves import halves, pixel_keys


def dataset(images, labels, **more):
    split = Split(images, np.array(labels))
    return Dataset(["a", "b", "c"], split, split, split, "digest", **more)


def random_images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), np.uint8)


def contents(split):
    return {image.tobytes() for image in split.images}


def test_the_halves_of_the_bundled_images_never_change():
    mini = datasets.load("cifar10-mini")
    digests = {
        "A": "078477abce16a3a3bafa4740aaebb7800b996af1e00327b25807009a84fd721f",
        "B": "0b7e6844b9a4eccf0aa1752431b751bfc3108c76965cae0ace141e1f9d5a5627",
    }
    for half, digest in digests.items():
        split = mini.tested(half)
        assert np.bincount(split.labels).tolist() == [50] * 10
        assert hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest() == digest
    assert mini.tested(True) is mini.test and mini.digest_of_b.startswith("169af4c13a26")


def test_each_class_is_ranked_by_the_hash_of_its_pixels():
    images, labels = random_images(11), np.array([0, 1, 0, 1, 0, 1, 0, 0, 2, 1, 2])
    found = halves(labels, pixel_keys(images))
    expected = set()
    for label in range(3):
        members = [i for i in range(11) if labels[i] == label]
        members.sort(key=lambda i: hashlib.sha256(images[i].tobytes()).hexdigest())
        expected |= {*members[: -(-len(members) // 2)]}  # of 5, 4 and 2: the first 3, 2 and 1
    assert found["A"].tolist() == sorted(expected) and len(expected) == 6
    assert sorted([*found["A"], *found["B"]]) == [*range(11)]


def test_the_cut_does_not_depend_on_the_order():
    images, labels = random_images(30), np.arange(30) % 3
    order = np.random.default_rng(1).permutation(30)
    before, after = dataset(images, labels), dataset(images[order], labels[order])
    for half in ("A", "B"):
        assert contents(before.tested(half)) == contents(after.tested(half))
    assert before.digest_of_b == after.digest_of_b


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_half_whatever_their_class(seed):
    """Among 24 images of three classes, each of 12 pictures is there twice, in most cases in two classes."""
    images = random_images(12, seed)[np.arange(24) % 12]
    labels = np.random.default_rng(seed).integers(0, 3, 24)
    found = dataset(images, labels)
    a, b = contents(found.tested("A")), contents(found.tested("B"))
    assert a and b and not a & b


def test_the_only_image_of_a_class_is_in_half_a():
    found = dataset(random_images(5), [0, 1, 2, 2, 2])
    assert found.tested("A").labels.tolist().count(2) == 2 and {0, 1} <= {*found.tested("A").labels}
    assert {*found.tested("B").labels} == {2}
    assert not len(dataset(random_images(3), [0, 1, 2]).tested("B"))


def test_the_halves_of_a_folder_do_not_depend_on_the_models_size(tmp_path):
    """At 8 and at 16 pixels the same files are in half B, and it has one digest."""
    for label, name in enumerate(("ant", "bee")):
        for split, n in (("train", 2), ("val", 2), ("test", 9)):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for i, image in enumerate(random_images(n, 10 * label + len(split))):
                Image.fromarray(image).resize((16, 16)).save(tmp_path / "own" / split / name / f"{i}.png")
    small, large = (datasets.load(f"imagefolder:{tmp_path / 'own'}?size={side}") for side in (8, 16))
    assert small.digest != large.digest and small.digest_of_b == large.digest_of_b
    assert small.halves["B"].tolist() == large.halves["B"].tolist() and len(small.halves["B"]) == 8
    by_pixels = halves(small.test.labels, pixel_keys(small.test.images))
    assert by_pixels["B"].tolist() != small.halves["B"].tolist()  # what they would be by the resized pixels
