"""BitLinear in model families: tiny models with random weights, and docs/families.md."""

import resource
import runpy

import families
import pytest
import torch
import torch.nn.functional as F
import transformers
from families import DOCS, FAMILIES, NO, build, documented, exports, pixels, quantized, row
from torch import nn

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.data.datasets import Split
from ablate.engine.latency_stage import _measure_packed
from ablate.errors import BadInput, WriteFailed
from ablate.models import checkpoints, loading, preprocessing
from ablate.models.layer_groups import linear_layers
from ablate.models.unfusing import unfused
from ablate.profiling.macs import count
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.round_trip import check_round_trip
from ablate.training.evaluation import evaluate


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_can_do_what_the_table_says(family, tmp_path):
    said = documented()[family]
    assert row(family, tmp_path) == {
        column: said[column] for column in said if column not in ("8-bit attention", "ONNX", "why not")
    }
    assert said["why not"] == families.REASONS.get(family, "")


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family, cells in documented().items() if cells["ONNX"] != "-"])
def test_a_family_attends_in_8_bits_and_is_exported_as_the_table_says(family, tmp_path):
    assert families.attends(family, tmp_path / "attention") == documented()[family]["8-bit attention"]
    assert families.attempt(exports, family, tmp_path) == documented()[family]["ONNX"]


def test_the_table_is_whole():
    rows = documented()
    assert [*rows] == [*FAMILIES] and len(rows) >= 20
    assert all(bool(cells["why not"]) or NO not in cells.values() for cells in rows.values())
    head = runpy.run_path(str(DOCS / "make_families.py"))["HEAD"]
    assert (DOCS / "families.md").read_text().startswith(head), "run python docs/make_families.py"


@pytest.mark.long
@pytest.mark.parametrize(
    "family", ["ViT", "SwinV2", "SigLIP", "Hiera", "LeViT", "torchvision's ViT", "torchvision's Swin"]
)
def test_quantizing_changes_what_a_model_says(family):
    """A layer that is converted but not called would leave the output as it was."""
    with torch.no_grad():
        for layer in linear_layers(unfused(build(family))):
            model = unfused(build(family))
            nn.init.normal_(model.get_submodule(layer).weight)
            loud = loading.logits(model, pixels(family))
            quantize_(model, {layer: LayerSpec(weights="binary", activation_bits=2)})
            assert not loading.logits(model, pixels(family)).equal(loud), layer


def test_a_model_that_transformers_has_no_class_for_is_loaded_into_its_skeleton(tmp_path):
    family = "torchvision's ViT"
    with pytest.warns(UserWarning, match="skeleton"):
        pack(model := quantized(family), tmp_path)
    with pytest.raises(BadInput, match="give its skeleton"):
        load_packed(tmp_path)
    loaded = load_packed(tmp_path, build(family))
    assert loading.logits(loaded, pixels(family)).equal(loading.logits(model, pixels(family)))


@pytest.mark.long
def test_a_front_is_timed(tmp_path):
    build("Swin").save_pretrained(tmp_path / "swin")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "swin")
    name, classes = str(tmp_path / "swin"), [str(i) for i in range(10)]
    model = checkpoints.load(name, classes)
    quantize_(model, {"*encoder*": LayerSpec(weights="binary")})
    pack(model, tmp_path / "packed", preprocess=loading.preprocess(name))
    files = {file.name: file.read_bytes() for file in (tmp_path / "packed").iterdir()}
    assert all(timing.median_ms > 0 for timing in _measure_packed(files, name, classes, {}))


def test_what_would_not_come_back_from_its_file_is_found_before_a_study():
    processing = preprocessing.Preprocess((32, 32), (32, 32), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)
    model = build("SwinV2")
    check_round_trip(model, processing)
    assert not any(isinstance(module, BitLinear) for module in model.modules())
    model.register_forward_hook(lambda _, __, output: setattr(output, "logits", output.logits.flip(1)))
    with pytest.raises(BadInput, match="gives logits that are off by"):
        check_round_trip(model, processing)
    for family, match in (
        ("SigLIP 2, NaFlex", "must be usable"),
        ("torchvision's ViT", "the file holds a model .* no class"),
    ):
        with pytest.raises(BadInput, match=match):
            check_round_trip(build(family), processing)


def test_a_full_disk_is_not_the_models_fault():
    model, before = build("ViT"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, before[1]))  # no file may grow
    try:
        with pytest.raises(WriteFailed, match="a packed model must fit into"):
            check_round_trip(
                model,
                preprocessing.Preprocess((32, 32), (32, 32), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_model_keeps_from_an_evaluation_does_not_go_into_the_next_training():
    """BEiT keeps its positions for the whole process, LeViT its position biases until it is trained again."""
    split = Split(torch.randint(0, 256, (2, 48, 48, 3), dtype=torch.uint8).numpy(), torch.arange(2).numpy())
    processing = preprocessing.Preprocess((48, 48), (48, 48), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)
    beit = families.hugging_face("Beit", **{**families.RELATIVE, "image_size": 48})().eval()
    evaluate(beit, split, processing)
    F.cross_entropy(loading.logits(beit.train(), torch.randn(2, 3, 48, 48)), torch.arange(2)).backward()
    levit, processing = (
        build("LeViT"),
        preprocessing.Preprocess((64, 64), (64, 64), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3),
    )
    before = evaluate(levit, split, processing).loss
    values = {
        key: value + 1 if "attention_biases" in key else value for key, value in levit.state_dict().items()
    }
    values = {
        key: value * torch.arange(value.shape[-1]) if "attention_biases" in key else value
        for key, value in values.items()
    }
    levit.load_state_dict(values)
    assert evaluate(levit, split, processing).loss != before
    assert count(levit, (64, 64)).macs > 0  # what it keeps belongs to no optimizer, and is no leaf


def test_a_layer_that_its_model_never_calls_stays_full():
    """Someone's own attention may do what torch's does."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, pixels):
            return self.head(F.linear(pixels.mean((2, 3)), self.project.weight))

    model = Reads()
    assert [*linear_layers(model)] == ["head"]
    with pytest.raises(BadInput, match="its model never calls 'project'"):
        quantize_(model, {"project": LayerSpec(weights="binary")})
    quantize_(model, {"head": LayerSpec(weights="binary")})
    assert count(model, (4, 4)).macs == 6
    model.project = BitLinear.from_linear(model.project)
    with pytest.raises(BadInput, match="layer 'project' must be called"):
        count(model, (4, 4))


def test_a_packed_layer_has_a_weight_without_values():
    """ConViT asks a layer's weight where and of which type it is; who reads its values must not get zeros."""
    model = nn.Sequential(nn.Linear(3, 3))
    quantize_(model, {"0": LayerSpec(weights="binary")})
    with as_integers(model):
        assert model[0].weight.dtype == torch.float32 and "0.weight" not in model.state_dict()
        assert model[0].weight.norm().isnan()
