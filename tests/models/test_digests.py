"""The digest of a checkpoint is of its files. Those that older versions recorded stay valid."""

import hashlib
import json
import shutil

import pytest
import torch
from huggingface_hub import constants
from saved_models import OWN, copy_files, edit, save_vit

from ablate.config.builtin import ASSETS
from ablate.errors import BadInput
from ablate.models import digests


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    save_vit(folder := tmp_path_factory.mktemp("vit"))
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return copy_files(saved, tmp_path)


def rewrite(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_all_that_changes_an_output_counts_and_nothing_else(saved, copy):
    config, processor = copy / "config.json", copy / "preprocessor_config.json"
    seen = [digests.digest(str(saved))]
    (copy / "README.md").write_text("a ViT")
    rewrite(config, transformers_version="4.0.0", id2label={"0": "a", "1": "b", "2": "c", "3": "d"})
    assert digests.digest(str(copy)) == seen[0]
    for change in (
        lambda: rewrite(config, layer_norm_eps=1e-3),
        lambda: rewrite(processor, image_mean=[0.1, 0.2, 0.3]),
        lambda: edit(copy, lambda tensors: tensors | {"classifier.bias": torch.ones(4)}),
    ):
        change()
        seen.append(digests.digest(str(copy)))
    assert len({*seen}) == 4


def test_it_is_not_of_what_transformers_makes_of_the_files(copy):
    rewrite(copy / "config.json", model_type="unheard_of")
    assert len(digests.digest(str(copy))) == 64


def test_every_shard_counts(copy):
    whole = copy / "model.safetensors"
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (copy / name).write_bytes(whole.read_bytes())
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()
    before = digests.digest(str(copy))
    (copy / names[1]).write_bytes(b"other")
    assert digests.digest(str(copy)) != before
    for name in names:
        (copy / name).rename(copy / f"odd-{name}")
    with pytest.raises(BadInput, match=r"cannot load model .* it has none of model\.safetensors,"):
        digests.digest(str(copy))


def test_what_an_older_version_recorded_stays_valid(copy, monkeypatch):
    """The ids of a run's trials stay what they are, as long as the model does."""
    monkeypatch.setattr(digests, "_kept", {**digests.BUNDLED})
    name, first = str(copy), digests._first_digest(str(copy))
    for labels in (OWN, sorted(OWN)):
        now, then = digests.start(name, labels), digests._start(first, name, labels)
        for recorded, expected in ((then, then), (now, now), (then, then), ("0" * 64, now)):
            digests.keep_start(name, labels, recorded)
            assert digests.start(name, labels) == expected
    digests.keep_start("vit-micro", ["cat"], "0" * 64)
    digests.keep_start("resnet18:random", ["cat"], "0" * 64)
    assert digests.digest("vit-micro").startswith("5c5bef8e06b5a069")


def test_a_model_of_the_hub_has_the_digest_of_its_files(saved, tmp_path, monkeypatch):
    """Wherever in the hub's cache they are: a commit that changes no file that is read changes nothing."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    seen = []
    for name, commit in (("someone/vit", "a" * 40), ("another/vit", "b" * 40)):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        shutil.copytree(saved, folder / "snapshots" / commit)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        seen.append(digests.digest(name))
    assert seen == [digests.digest(str(saved))] * 2


@pytest.mark.parametrize("name", ["vit-micro", "vit-micro-200ep"])
def test_a_bundled_backbone_is_the_file_that_its_card_names(name):
    card, weights = ((ASSETS / name / file).read_bytes() for file in ("README.md", "model.safetensors"))
    assert hashlib.sha256(weights).hexdigest() in card.decode()
