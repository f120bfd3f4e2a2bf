"""The heads of loaded checkpoints."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from saved_models import (
    CONVNEXT,
    HIERA,
    LEVIT,
    MAE,
    MOBILEVIT,
    OWN,
    PVT,
    SMALL,
    SWIN,
    TEXT,
    copy_files,
    edit,
    numbered,
    save,
    save_vit,
)

from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.models import checkpoints, digests
from ablate.models.checkpoints import LoadReport, load_with_report
from ablate.training.run_trial import run_trial


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    return folder, save_vit(folder)


@pytest.fixture
def copy(vit, tmp_path):
    """A ViT's folder, to be spoilt."""
    return copy_files(vit[0], tmp_path)


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
    name, plain = str(vit[0]), digests.digest(str(vit[0]))
    starts = [
        digests.start(name, labels)
        for labels in (OWN, sorted(OWN), ["p", "q", "r", "s"], ["dog", "cat"], ["p", "q"])
    ]
    assert starts[0] == starts[4] == plain and len(set(starts)) == 4
    assert digests.start("vit-micro", ["cat", "dog"]) == digests.digest("vit-micro")


def test_a_trial_of_a_head_in_another_order(vit, tmp_path):
    """Without training, images that the checkpoint tells apart are told apart under the data's names."""
    model, pixels = vit[1], np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = model((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).logits
    best = (logits - logits.mean(0)).argmax(1)  # so that each class has some
    bias = model.classifier.bias.detach() - logits.mean(0)
    copy_files(vit[0], tmp_path)
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
    same, other = (
        checkpoints.load(str(tmp_path), ["a", "b", "c"]),
        checkpoints.load(str(tmp_path), ["a", "b", "c"], 1),
    )
    for key in shapes:
        assert model.state_dict()[key].equal(same.state_dict()[key])
        assert not model.state_dict()[key].equal(other.state_dict()[key])


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
    before = digests.digest(str(copy))
    edit(copy, lambda tensors: tensors | {"classifier.bias": torch.ones(4)})
    assert digests.digest(str(copy)) != before


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
