"""What a checkpoint holds and what becomes of it: its labels, its head, its other tensors."""

import json
import os
import threading

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.errors import BadInput
from ablate.models import checkpoints, loading, locating
from ablate.models.checkpoints import LoadReport, load_with_report
from ablate.models.heads import few, match
from ablate.training.trial_runner import run_trial

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 32, 48],
    "num_attention_heads": [2, 3, 4],
    "depths": [1, 1, 1],
}
LEVIT |= {"key_dim": [8] * 3, "mlp_ratio": [2] * 3, "attention_ratio": [2] * 3}
HIERA = {"image_size": [64, 64], "embed_dim": 16, "num_heads": [1, 2], "depths": [1, 1], "num_query_pool": 1}
HIERA |= {"decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
MAE = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 9,
}
PVT = {
    "image_size": 32,
    "hidden_sizes": [8, 16, 32, 32],
    "depths": [1] * 4,
    "num_attention_heads": [1, 1, 2, 2],
}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [16] * 3,
    "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
    "num_attention_heads": 2,
}
OWN = ["zebra", "emu", "dog", "cat"]


def numbered(labels):
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def save(folder, kind, config, **more):
    """A model of random weights in a `save_pretrained` folder."""
    torch.manual_seed(0)
    made = getattr(transformers, kind)
    model = made(made.config_class(**config, **more)).eval()
    for value in model.parameters():
        value.data += (
            torch.randn_like(value) / 10 if value.ndim < 2 else 0
        )  # norms and biases as trained ones are
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    return model


def edit(folder, change):
    """Rewrite the tensors of a checkpoint."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder, save(folder, "ViTForImageClassification", SMALL, **numbered(OWN))


@pytest.fixture
def copy(vit, tmp_path):
    """A ViT's folder, to be spoilt."""
    for file in vit[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("own", "labels", "fate"),
    [
        (["cat", "dog"], ["cat", "dog"], "kept"),
        (["dog", "cat"], ["cat", "dog"], "permuted"),
        (["emu", "dog", "cat"], ["cat", "dog"], "taken"),
        (["cat", "dog"], ["cat", "dog", "emu"], "new"),
        (["x", "y"], ["cat", "dog"], "new"),
        (["Polar_bear", "GREY-wolf "], ["grey wolf", "polar  bear"], "permuted"),
        (["größe", "gro\u0308ße b"], ["gr\u00f6ße b", "größe"], "permuted"),
        (["A", "a"], ["a", "A"], "permuted"),
        (["A", "B"], ["a", "b"], "new"),
        (["-1", "1"], ["-1", "1"], "kept"),
        (["1", "x"], ["-1", "x"], "new"),
        (["c", "c++"], ["c", "c"], "new"),
        (["m2", "m3"], ["m\u00b2", "m3"], "new"),
        (["a 1", "b"], ["a1", "b"], "new"),
        (["crane", "crane", "emu"], ["crane", "emu"], "new"),
        (["Cat", "cat", "emu"], ["CAT", "emu"], "new"),
        (["LABEL_0", "LABEL_1"], ["cat", "dog"], "kept"),
        (["0", "1"], ["cat", "dog"], "kept"),
        (["class 0", "class 1"], ["cat", "dog"], "kept"),
        (["1", "0"], ["cat", "dog"], "new"),
        ([str(i) for i in range(11)], sorted(str(i) for i in range(11)), "permuted"),
    ],
)
def test_labels(own, labels, fate):
    found = match(json.loads(json.dumps(numbered(own))), labels)
    assert (
        found.fate == fate
        and fate.replace("taken", "made").replace("permuted", "kept, its rows") in found.note
    )


@pytest.mark.parametrize(
    ("config", "fate", "note"),
    [
        ({}, "kept", "it has none"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "new", "numbered from 0, but are 0, 2"),
        (
            {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 1, "dog": 0}},
            "new",
            "contradict each other in 'cat'",
        ),
        (
            {"id2label": {"0": "dog", "1": "cat"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
            "permuted",
            "dog, cat",
        ),
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"dog": "0", "cat": "1"}},
            "permuted",
            "dog, cat",
        ),
        ({"id2label": {"1": "dog", "0": "cat"}, "label2id": {}}, "kept", "are the data's"),
        ({"id2label": ["cat", "dog"]}, "new", "must number"),
        ({"id2label": {"0": "cat", "1": "dog"}, "problem_type": "regression"}, "new", "for regression"),
    ],
)
def test_labels_that_are_missing_or_contradict_each_other(config, fate, note):
    found = match(config, ["cat", "dog"])
    assert found.fate == fate and note in found.note


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("ViTForImageClassification", SMALL),
        ("DeiTForImageClassificationWithTeacher", SMALL),
        ("BeitForImageClassification", SMALL),
        ("CLIPForImageClassification", {"text_config": TEXT, "vision_config": SMALL}),
        (
            "SiglipForImageClassification",
            {"text_config": TEXT | {"projection_size": 32}, "vision_config": SMALL},
        ),
        ("LevitForImageClassificationWithTeacher", LEVIT),
        ("PvtForImageClassification", PVT | {"num_labels": 4}),
        ("ConvNextForImageClassification", CONVNEXT),
        ("MobileViTForImageClassification", MOBILEVIT),
    ],
)
def test_a_head_gives_its_logits_to_the_classes_of_their_names(tmp_path, kind, config):
    model, side = save(tmp_path, kind, config, **numbered(OWN)), config.get("image_size", 32)
    pixels = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        before = model(pixels).logits
        for labels, fate in ((sorted(OWN), "permuted"), (["dog", "zebra"], "taken"), (OWN, "kept")):
            loaded, report = load_with_report(str(tmp_path), labels)
            assert report.head == fate and loaded.config.id2label == dict(enumerate(labels))
            assert torch.allclose(
                loaded(pixels).logits, before[:, [OWN.index(label) for label in labels]], atol=1e-5
            )
        new = [
            checkpoints.load(str(tmp_path), ["p", "q", "r", "s"], seed)(pixels).logits for seed in (0, 0, 1)
        ]
        assert (
            new[0].equal(new[1]) and not torch.allclose(new[0], new[2]) and not torch.allclose(new[0], before)
        )


def test_what_became_of_the_head_is_said(vit):
    folder, _ = vit
    assert load_with_report(str(folder), ["p", "q", "r"])[1] == LoadReport(
        "new",
        ("The head is new: the checkpoint's 4 labels (zebra, emu, dog, cat) are not the data's 3 (p, q, r)",),
    )
    assert "rows in the data's order" in load_with_report(str(folder), sorted(OWN))[1].notes[0]
    assert load_with_report("resnet18-32", ["a", "b"])[1].head == "new"


def test_trials_of_other_names_have_other_ids(vit):
    """The id says what becomes of the head, but only where that is not what every earlier version did."""
    name, plain = str(vit[0]), loading.digest(str(vit[0]))
    starts = [
        loading.start(name, labels)
        for labels in (OWN, sorted(OWN), ["p", "q", "r", "s"], ["dog", "cat"], ["p", "q"])
    ]
    assert starts[0] == starts[4] == plain and len(set(starts)) == 4
    assert loading.start("vit-micro", ["cat", "dog"]) == loading.digest("vit-micro")


def test_a_trial_of_a_head_in_another_order(vit, tmp_path):
    """Without training, images that the checkpoint tells apart are told apart under the data's names."""
    model, pixels = vit[1], np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        seen = model((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).logits
    best = (seen - seen.mean(0)).argmax(1)  # so that each class has some
    bias = model.classifier.bias.detach() - seen.mean(0)
    for file in vit[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit(tmp_path, lambda tensors: tensors | {"classifier.bias": bias})
    for i, (image, label) in enumerate(zip(pixels, best.tolist(), strict=True)):
        (folder := tmp_path / "images" / OWN[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    spec = TrialSpec(
        model=str(tmp_path), data=f"imagefolder:{tmp_path / 'images'}", recipe=Recipe(epochs=0, bf16=False)
    )
    assert run_trial(spec)["accuracy"] == 1


@pytest.mark.parametrize(
    ("kind", "config", "left"),
    [
        ("ViTModel", SMALL, "pooler.dense.bias"),
        ("ViTForMaskedImageModeling", SMALL | {"encoder_stride": 8}, "decoder.0.bias"),
        ("ViTMAEForPreTraining", SMALL | MAE, "decoder.decoder_embed.bias"),
        ("BeitForMaskedImageModeling", SMALL, "lm_head.bias"),
        ("Data2VecVisionModel", SMALL, None),
        ("Dinov2Model", SMALL, None),
        ("SwinForMaskedImageModeling", SWIN | {"encoder_stride": 8}, "swin.embeddings.mask_token"),
        ("HieraForPreTraining", HIERA, "decoder.decoder_embeddings.bias"),
        ("LevitModel", LEVIT, None),
        ("CLIPModel", {"text_config": TEXT, "vision_config": SMALL}, "logit_scale"),
        ("CLIPVisionModel", SMALL, None),
        ("SiglipVisionModel", SMALL, None),
    ],
)
def test_backbones_get_a_new_head(tmp_path, kind, config, left):
    backbone = save(tmp_path, kind, config)
    model, report = load_with_report(str(tmp_path), ["a", "b", "c"])
    assert report.head == "new" and report.notes[0] == "The head is new: the checkpoint has none"
    values = [value for value in backbone.state_dict().values() if value.ndim > 1]
    given = [value for value in model.state_dict().values() if any(value.equal(other) for other in values)]
    assert len(given) > 8
    notes = " ".join(report.notes)
    assert ("no use for" in notes) == (left is not None)
    shapes = {
        key: value.shape[0]
        for key, value in model.state_dict().items()
        if "classifier" in key and value.ndim == 2
    }
    assert set(shapes.values()) == {3}
    again, other = (
        checkpoints.load(str(tmp_path), ["a", "b", "c"]),
        checkpoints.load(str(tmp_path), ["a", "b", "c"], 1),
    )
    for key in shapes:
        assert model.state_dict()[key].equal(again.state_dict()[key])
        assert not model.state_dict()[key].equal(other.state_dict()[key])


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
            r"has '.*position_embeddings' in the shape \(1, 65, 32\), .* must be \(1, 17, 32\); correct .*image_size",
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


def test_a_head_that_is_not_whole_is_made_anew(copy):
    edit(
        copy,
        lambda t: (
            {key: value for key, value in t.items() if key != "classifier.bias"}
            | {"projector.0.weight": torch.ones(2)}
        ),
    )
    model, report = load_with_report(str(copy), OWN)
    assert report.head == "new" and report.notes[0].endswith("the checkpoint lacks classifier.bias")
    assert "1 of the checkpoint's tensors: projector.0.weight" in report.notes[1]
    assert not model.classifier.weight.equal(load_file(copy / "model.safetensors")["classifier.weight"])


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
    assert not Spy.seen


class Spy:
    """A pickle of one runs code when it is read."""

    seen = False

    def __reduce__(self):
        return setattr, (Spy, "seen", True)


def test_the_head_of_a_checkpoint_with_more_outputs_than_labels_counts(copy):
    """No labels at all: transformers says two, the file has four; its digest is that of its values."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if "2" not in key})
    )
    model, report = load_with_report(str(copy), ["p", "q", "r", "s"])
    assert report.head == "kept" and model.classifier.weight.equal(
        load_file(copy / "model.safetensors")["classifier.weight"]
    )
    before = loading.digest(str(copy))
    edit(copy, lambda tensors: tensors | {"classifier.bias": torch.ones(4)})
    assert loading.digest(str(copy)) != before


def test_a_head_for_several_labels_is_kept_and_one_output_is_not(vit, copy, tmp_path_factory):
    config = json.loads((copy / "config.json").read_text()) | {"problem_type": "multi_label_classification"}
    (copy / "config.json").write_text(json.dumps(config))
    model, report = load_with_report(str(copy), sorted(OWN))
    assert (
        report.head == "permuted"
        and "several labels" in report.notes[1]
        and model.config.problem_type is None
    )
    config |= {"id2label": {"0": "emu", "1": "cat"}, "label2id": {}}  # two labels, four outputs: which ones?
    (copy / "config.json").write_text(json.dumps(config))
    assert load_with_report(str(copy), ["cat", "emu"])[1].head == "new"
    folder = tmp_path_factory.mktemp("one")
    save(folder, "ViTForImageClassification", SMALL, num_labels=1)
    assert load_with_report(str(folder), ["cat", "dog"])[1].notes == (
        "The head is new: the checkpoint's number of outputs is 1, and the data's of classes 2",
    )


def test_loading_leaves_the_process_as_it_was(vit):
    """Random state, transformers' verbosity and progress bars; and threads do not get into each other's way."""
    logging.set_verbosity_info()
    state, found = torch.get_rng_state(), []
    alone = checkpoints.load(str(vit[0]), ["p", "q"], 1).classifier.weight
    threads = [
        threading.Thread(target=lambda: found.append(checkpoints.load(str(vit[0]), ["p", "q"], 1)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(model.classifier.weight.equal(alone) for model in found) and len(found) == 3
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
    file, before = copy / "model.safetensors", loading.digest(str(copy))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    edit(copy, lambda tensors: {key: value + 1 for key, value in tensors.items()})
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1] and loading.digest(str(copy)) != before


def test_labels_are_shown_in_a_line():
    assert few(["a\nb", "\x1b[31m", "c\u202e"]) == "a\\nb, \\x1b[31m, c\\u202e"
    assert len(few(["x" * 999] * 9)) < 400
