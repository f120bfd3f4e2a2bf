"""The gate before a study: what is checked, what it says, what it refuses, and that it writes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from ablate import check_study
from ablate.cli import status
from ablate.cli.main import app
from ablate.config.study_spec import load_study
from ablate.engine.plan import plan
from ablate.errors import BadInput


def study(folder, model, data="cifar10-mini"):
    """A study of every layer group, of a model and a dataset."""
    head = f'question = "?"\nmodel = "{model}"\ndata = "{data}"\n'
    space = '[space]\ndescription = "?"\nobjectives = ["accuracy"]\n'
    space += '[space.layer]\nweights = { each = ["full", "binary"] }\n'
    (folder / "study.toml").write_text(head + space)
    return load_study(str(folder / "study.toml"))


def found(checks, about):
    return [check.found for check in checks if check.about == about]


def test_everything_that_can_go_wrong_in_silence_is_checked(tiny_vit, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    asked = study(tmp_path, tiny_vit)
    monkeypatch.chdir(tmp_path / "empty")
    checks = check_study(asked)
    assert {check.about for check in checks} == {
        "images",
        "image processor",
        "checkpoint",
        "layers",
        "packed model",
    }
    assert found(checks, "images") == [
        "4,000 to train on, 1,000 to validate, 1,000 to test (500 in half A and 500 in half B); 10 classes"
    ]
    assert not list((tmp_path / "empty").iterdir())


def test_a_processor_that_is_not_followed_is_refused(tiny_vit, tmp_path):
    shutil.copytree(tiny_vit, tmp_path / "model")
    transformers.ImageGPTImageProcessor(n_clusters=8, clusters=np.zeros((8, 3))).save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(BadInput, match="that can be followed"):
        check_study(study(tmp_path, tmp_path / "model"))


def test_a_checkpoint_with_more_than_the_model_is_refused(tiny_vit, tmp_path):
    shutil.copytree(tiny_vit, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["vit.embeddings.register_tokens"] = torch.zeros(1, 4, 32)
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="register_tokens"):
        check_study(study(tmp_path, tmp_path / "model"))


def test_layers_without_effect_stay_full_with_the_reason(tmp_path):
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vision |= {"image_size": 32, "patch_size": 8}
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 50,
    }
    config = transformers.SiglipConfig(vision_config=vision, text_config=text, num_labels=10)
    transformers.SiglipForImageClassification(config).save_pretrained(tmp_path / "model")
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    said = found(check_study(study(tmp_path, tmp_path / "model")), "layers")
    assert any("vision_model.head" in line and "never reaches the logits" in line for line in said)


def test_images_are_counted_and_the_head_is_explained(tiny_vit, tmp_path, logged):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(
                tmp_path / "pets" / name / f"{i}.png"
            )
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    asked = study(tmp_path, tiny_vit, f"imagefolder:{tmp_path / 'pets'}")
    checks = check_study(asked)
    images = found(checks, "images")
    assert images[0] == "4 to train on, 2 to validate, 2 to test (2 in half A and 0 in half B); 2 classes"
    assert any("notes.txt" in line for line in images)
    assert any("scaled up" in line for line in images)  # from 30 x 20 to the model's 32 x 32
    assert [check for check in checks if check.about == "checkpoint"]
    assert logged().count("notes.txt") == 1
    assert not any(
        "notes.txt" in line or "scaled up" in line for line in status._describe_checks(checks, plan(asked))
    )  # said once


@pytest.mark.long
def test_a_dry_run_prints_the_checks_and_writes_nothing(tiny_study, tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    monkeypatch.chdir(tmp_path)
    app(["study", "tiny.toml", "--dry-run", "--json"], standalone_mode=False)
    assert {check["about"] for check in json.loads(capsys.readouterr().out)["checks"]} >= {
        "images",
        "checkpoint",
        "packed model",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_a_run_keeps_what_was_checked(finished):
    checks = json.loads((finished[0] / "provenance.json").read_text())["checks"]
    assert {check["about"] for check in checks} >= {
        "images",
        "image processor",
        "checkpoint",
        "layers",
        "packed model",
    }
