"""The files of a checkpoint: which are read, and which are refused."""

import json
import os
import threading

import pytest
import torch
from saved_models import OWN, copy_files, edit, save_vit
from transformers.utils import logging

from ablate.errors import BadInput
from ablate.models import checkpoints, digests, locating
from ablate.models.checkpoints import load_with_report


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    return folder, save_vit(folder)


@pytest.fixture
def copy(vit, tmp_path):
    """A ViT's folder, to be spoilt."""
    return copy_files(vit[0], tmp_path)


def block(tensors):
    return {
        key.replace("layer.1.", "layer.2."): value.clone()
        for key, value in tensors.items()
        if "layer.1." in key
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | block(t), r"holds 16 tensors that its model has no place for, 'vit\..*2\."),
        (
            lambda t: t | {"vit.embeddings.register_tokens": torch.ones(1, 4, 32)},
            "holds 1 .*'vit.embeddings.register_tokens'",
        ),
        (
            lambda t: t | {f"{key}.lora_A": v.clone() for key, v in t.items() if "query" in key},
            "holds .*lora_A",
        ),
        (
            lambda t: t | {f"ema.{key}": value.clone() for key, value in t.items()},
            "the backbone more than once, 'ema",
        ),
        (
            lambda t: {f"module.{key}": value for key, value in t.items()},
            "lacks 38 .* and has 40 .*'module.classifier.bias'",
        ),
        (
            lambda t: {key: v for key, v in t.items() if key != "vit.layernorm.weight"},
            "lacks 1 .*'vit.layernorm.weight'",
        ),
        (
            lambda t: t | {"vit.embeddings.position_embeddings": torch.ones(1, 65, 32)},
            r"has '.*position_embeddings' in the shape \(1, 65, 32\), "
            r".* must be \(1, 17, 32\); correct .*image_size",
        ),
        (
            lambda t: t | {"vit.layernorm.bias": torch.full((32,), torch.nan)},
            "must hold finite weights, but 'vit.layernorm.bias'",
        ),
        (
            lambda t: t | {"classifier.weight": torch.ones(4, 32, dtype=torch.int8)},
            "'classifier.weight' is torch.int8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(copy, change, message):
    edit(copy, change)
    with pytest.raises(BadInput, match=message):
        checkpoints.load(str(copy), OWN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "must be in floating point, .*quantization_config",
        ),
        ({"auto_map": {"AutoModelForImageClassification": "evil.Model"}}, "code of its own .*never run"),
        ({"model_type": "bert"}, "no image classifier of model_type 'bert'; give one of beit"),
        ({"model_type": None}, "no image classifier of model_type 'unknown'"),
        ({"image_size": 64}, r"'vit.embeddings.position_embeddings' in the shape \(1, 17, 32\)"),
        ({"num_hidden_layers": 1}, "no place for"),
        ({"num_hidden_layers": 3}, "lacks 16"),
    ],
)
def test_configurations_that_are_not_to_be_loaded(copy, change, message):
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(BadInput, match=message):
        checkpoints.load(str(copy), OWN)


@pytest.mark.parametrize(
    ("gone", "new", "message"),
    [
        ("config.json", None, "has no config.json"),
        (
            "model.safetensors",
            "tf_model.h5",
            "must hold model.safetensors or pytorch_model.bin, but has .*, tf_model.h5; load",
        ),
        (None, "adapter_config.json", "holds an adapter; merge it"),
    ],
)
def test_folders_that_hold_something_else(copy, gone, new, message):
    if new:
        (copy / new).write_text("{}")
    if gone:
        (copy / gone).unlink()
    with pytest.raises(BadInput, match=message):
        checkpoints.load(str(copy), OWN)


def test_pickled_weights_are_the_same_and_no_code(vit, copy):
    model = vit[1]
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert checkpoints.load(str(copy), OWN).classifier.weight.equal(model.classifier.weight)
    (copy / "pytorch_model.bin").unlink()
    torch.save({"classifier.weight": Spy()}, copy / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot load model"):
        checkpoints.load(str(copy), OWN)
    assert not Spy.was_run


class Spy:
    """A pickle of one runs code when it is read."""

    was_run = False

    def __reduce__(self):
        return setattr, (Spy, "was_run", True)


def test_loading_leaves_the_process_as_it_was(vit):
    """Random state, transformers' verbosity and progress bars; and threads do not disturb each other."""
    logging.set_verbosity_info()
    state, models = torch.get_rng_state(), []
    alone = checkpoints.load(str(vit[0]), ["p", "q"], 1).classifier.weight
    threads = [
        threading.Thread(target=lambda: models.append(checkpoints.load(str(vit[0]), ["p", "q"], 1)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(model.classifier.weight.equal(alone) for model in models) and len(models) == 3
    assert torch.get_rng_state().equal(state)
    assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
    logging.set_verbosity_warning()


def test_the_files_that_another_machine_gets(copy, monkeypatch):
    (copy / "optimizer.pt").write_bytes(b"large")
    files = locating.files(str(copy))
    assert sorted(files) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    monkeypatch.setenv("HOME", str(copy.parent))
    assert locating.absolute(f"~/{copy.name}") == str(copy)
    locating.provide("/elsewhere/model", files)
    one = checkpoints.load("/elsewhere/model", OWN)
    edit(copy, lambda tensors: tensors | {"classifier.bias": torch.ones(4)})
    locating.provide("/elsewhere/model", locating.files(str(copy)))  # the folder's content is another now
    assert not checkpoints.load("/elsewhere/model", OWN).classifier.bias.equal(one.classifier.bias)


def test_weights_that_are_not_read_are_named(copy):
    assert not any("not read" in note for note in load_with_report(str(copy), OWN)[1].notes)
    torch.save({}, copy / "pytorch_model.bin")
    assert load_with_report(str(copy), OWN)[1].notes[-1].endswith("not read: pytorch_model.bin")


def test_a_checkpoint_changed_in_place_is_seen(copy):
    """Also where its size and the time of its last change stay what they were."""
    file, before = copy / "model.safetensors", digests.digest(str(copy))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    edit(copy, lambda tensors: {key: value + 1 for key, value in tensors.items()})
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1] and digests.digest(str(copy)) != before
