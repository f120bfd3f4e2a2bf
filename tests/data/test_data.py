import hashlib

import numpy as np
import pytest

from ablate.config.builtin import ASSETS
from ablate.data import cifar10, datasets
from ablate.errors import BadInput


@pytest.fixture(scope="module")
def mini():
    return datasets.load("cifar10-mini")


def test_the_bundled_images_are_cifar10s(mini):
    """Digests of the decoded pixels, taken from the official images when the files were made."""
    digests = {
        "train": "87dd145a2a3cfbb9e7a1936fe7c7a113eafc32c99419c4b6ad2656ae0df1bee8",
        "validation": "2e6f994a6685aeb966461450af0ce7de594a5ae52fc81dd28ed4464fe2b59287",
        "test": "7c38c61aa8c7f1716d28cda247fd6f77a8db4bc051de264382e94804d47bce91",
    }
    for name, digest in digests.items():
        split = getattr(mini, name)
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == (32, 32, 3)
        assert hashlib.sha256(split.images.tobytes()).hexdigest() == digest
        assert np.bincount(split.labels).tolist() == [len(split) // 10] * 10
    assert [len(mini.train), len(mini.validation), len(mini.test)] == [4000, 1000, 1000]


def test_splits_share_no_image(mini):
    seen = [{image.tobytes() for image in split.images} for split in (mini.train, mini.validation, mini.test)]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


@pytest.mark.parametrize("seed", [0, 1])
def test_fractions_are_nested_and_stratified(mini, seed):
    labels = mini.train.labels
    before = set()
    for fraction in (0.001, 0.01, 0.1, 0.3, 1.0):
        chosen = datasets.subset(labels, fraction, seed)
        assert before <= set(chosen) and len(set(chosen)) == len(chosen)
        assert np.ptp(np.bincount(labels[chosen], minlength=10)) == 0
        before = set(chosen)
    assert len(before) == 4000


def test_seeds_draw_different_subsets(mini):
    first, second = (set(datasets.subset(mini.train.labels, 0.1, seed)) for seed in (0, 1))
    assert len(first) == len(second) == 400 and first != second


def test_broken_files_are_refused(tmp_path, monkeypatch):
    source = ASSETS / "cifar10-mini"
    broken = tmp_path / "cifar10-mini"
    broken.mkdir()
    for file in source.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(cifar10, "ASSETS", tmp_path)
    (broken / "test.webp").write_bytes(
        (broken / "validation.webp").read_bytes()
    )  # readable, but not the right pixels
    with pytest.raises(BadInput, match="must have sha256 e9983e1a1db6, but got"):
        cifar10.load_mini()
    (broken / "train.webp").write_bytes((broken / "train.webp").read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot read"):
        cifar10.load_mini()
