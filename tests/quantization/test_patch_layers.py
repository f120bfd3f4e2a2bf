"""The patch embedding as a quantized layer: by name only, trained, packed, loaded, counted and searched."""

import json

import families
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, recorded_precisions, run_trial
from ablate.config.search_space import SpaceSpec
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.engine.gate import check_study
from ablate.engine.plan import plan
from ablate.errors import BadInput
from ablate.hardware import device
from ablate.models import loading
from ablate.models.layer_groups import groups, groups_named, linear_layers, unnormalised
from ablate.models.patch_embedding import patch_convolutions
from ablate.models.preprocessing import Preprocess
from ablate.profiling.macs import bitops, count, macs
from ablate.profiling.part_latencies import layer_table
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.onnx_export import to_onnx
from ablate.quantization.packed_size import packed_bytes
from ablate.quantization.patch_layers import BitPatchEmbedding

TERNARY = LayerSpec(weights="ternary")
EMBEDDINGS = {
    "ViT": "vit.embeddings.patch_embeddings.projection",
    "DINOv2": "dinov2.embeddings.patch_embeddings.projection",
    "CLIP": "vision_model.embeddings.patch_embedding",
    "Swin": "swin.embeddings.patch_embeddings.projection",
    "ConvNeXt": "convnext.embeddings.patch_embeddings",
    "torchvision's ViT": "conv_proj",
    "torchvision's Swin": "features.0.0",
}


@pytest.mark.parametrize("size", [(8, 8), (4, 6)])
def test_without_activation_bits_it_is_a_convolution_with_the_levels(size):
    convolution = nn.Conv2d(3, 5, size, stride=size)
    layer = BitPatchEmbedding.from_convolution(convolution, weights="ternary", activation_bits=None)
    levels, beta = layer.levels_and_scale()
    x = torch.randn(2, 3, 35, 26)  # more than whole patches
    expected = F.conv2d(x, (levels * beta).view_as(layer.weight), layer.bias, stride=size)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.train()(x), expected, rtol=1e-4, atol=1e-5)
    assert layer.weight is convolution.weight and layer.bias is convolution.bias


def test_only_a_convolution_that_cuts_patches_of_an_image_is_one():
    cut = nn.Conv2d(3, 5, 4, stride=4)
    others = {
        "padded": nn.Conv2d(3, 5, 4, stride=4, padding=1),
        "overlapping": nn.Conv2d(3, 5, 4, stride=2),
        "features": nn.Conv2d(6, 5, 4, stride=4),
        "pointwise": nn.Conv2d(3, 5, 1),
        "dilated": nn.Conv2d(3, 5, 4, stride=4, dilation=2),
        "grouped": nn.Conv2d(3, 6, 4, stride=4, groups=3),
    }
    assert [*patch_convolutions(nn.ModuleDict({"cut": cut, **others}))] == ["cut"]


@pytest.mark.parametrize("family", EMBEDDINGS)
def test_a_fully_ternary_model_is_counted_packed_and_loaded(family, tmp_path):
    model, x, name = families.build(family), families.pixels(family), EMBEDDINGS[family]
    every = [*linear_layers(families.unfused(model))]
    assert quantize_(families.build(family), {"*": TERNARY}) == every  # never by default
    layers = dict.fromkeys([*every, name], TERNARY)
    size, full, by_layer = packed_bytes(model, layers), count(model, (32, 32)), macs(model, (32, 32))
    assert {*quantize_(model, {"*": TERNARY, name: TERNARY})} == {*layers}
    assert isinstance(model.get_submodule(name), BitPatchEmbedding)
    cost = count(model, (32, 32))
    assert (cost.parameters, cost.macs) == (full.parameters, full.macs)
    assert cost.bitops == bitops(by_layer, layers) < full.bitops
    F.cross_entropy(loading.logits(model.train(), x), torch.arange(3)).backward()
    assert model.get_submodule(name).weight.grad.any()
    model.eval()
    is_torchvision = family.startswith("torchvision")
    if is_torchvision:
        with pytest.warns(UserWarning, match="skeleton"):
            assert pack(model, tmp_path) == size
    else:
        assert pack(model, tmp_path) == size
    with torch.inference_mode():
        expected = loading.logits(model, x)
        loaded = load_packed(tmp_path, families.build(family) if is_torchvision else None)
        assert loading.logits(loaded, x).equal(expected)
        with as_integers(model):
            assert loading.logits(model, x).equal(expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": "binary", "beta_per": "channel"},
        {"weights": "binary", "beta": "learned"},
        {"weights": "int4", "activation_bits": 4, "signed": False},
        {"weights": "int8", "activation_scale": "tensor", "norm": True},
        {"weights": "ternary", "straight_through": "clipped"},
    ],
)
def test_every_precision_is_packed(fields, tmp_path):
    model, x = families.build("ViT"), families.pixels("ViT")
    quantize_(model, {EMBEDDINGS["ViT"]: LayerSpec(**fields)})
    loading.logits(model.train(), x).square().sum().backward()
    layer = model.get_submodule(EMBEDDINGS["ViT"])
    assert layer.weight.grad.shape == layer.weight.shape == (32, 3, 8, 8)
    pack(model.eval(), tmp_path)
    with torch.inference_mode():
        assert loading.logits(load_packed(tmp_path), x).equal(loading.logits(model, x))


def test_it_is_saved_as_the_convolution_and_quantized_again(tmp_path):
    model, x = families.build("ViT"), families.pixels("ViT")
    quantize_(model, {"*projection": TERNARY, "classifier": TERNARY})
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), "every tensor fits the convolution"
    quantize_(again, recorded_precisions(again))
    assert loading.logits(again.eval(), x).equal(loading.logits(model, x))
    quantize_(again, {"*projection": LayerSpec(weights="int8")})
    assert again.get_submodule(EMBEDDINGS["ViT"]).spec.weights == "int8"


def test_its_group_must_be_named():
    model = families.build("ViT")
    assert groups_named(model, ["*"]) == groups(model) == groups_named(model, ["head"])
    for patterns in (["*", "patch_embedding"], ["patch*"]):
        named = groups_named(model, patterns)
        assert [*named] == ["patch_embedding", *groups(model)]
    assert named["patch_embedding"] == [EMBEDDINGS["ViT"]]
    quantize_(model, {EMBEDDINGS["ViT"]: TERNARY})
    assert groups(model) == named and EMBEDDINGS["ViT"] not in unnormalised(model)
    with pytest.raises(BadInput, match="matches no linear layer"):
        quantize_(families.build("ResNet"), {"*patch*": TERNARY})


@pytest.mark.long
def test_a_layer_has_its_latency_beside_the_others():
    table = layer_table(families.build("ViT"), (32, 32), [TERNARY], device())
    assert all(milliseconds > 0 for milliseconds in table.layers[EMBEDDINGS["ViT"]].values())


@pytest.mark.long
def test_a_space_that_names_it_searches_it(tiny_vit, tmp_path):
    space = {
        "name": "all",
        "description": "d",
        "objectives": ["accuracy", "size_bytes"],
        "groups": ["*", "patch_embedding"],
        "layer": {"weights": {"each": ["full", "ternary"]}},
    }
    study = StudySpec(question="?", model=str(tiny_vit), data="cifar10-1k", space=SpaceSpec(**space))
    planned = plan(study)
    assert planned.search.groups[0] == "patch_embedding" and len(planned.search.groups) == 8
    assert "packed model" in {check.about for check in check_study(study)}
    other = plan(study.model_copy(update={"space": SpaceSpec(**{**space, "groups": ["*"]})}))
    assert other.search.groups == planned.search.groups[1:] == [*other.groups]
    spec = TrialSpec(
        model=str(tiny_vit),
        data="cifar10-1k",
        layers=dict.fromkeys(planned.search.groups, TERNARY),
        recipe=Recipe(epochs=1, bf16=False),
        fraction=0.05,
        seed=0,
    )
    counted, record = planned.count(spec), run_trial(spec)
    assert record["status"] == "complete", record["error"]
    assert {key: record[key] for key in ("size_bytes", "bitops")} == {**counted}
    assert record["parameters"] == sum(p.numel() for p in planned.count.model.parameters())
    assert "patch_embedding" in json.dumps(record["spec"])


@pytest.mark.slow
def test_onnxruntime_computes_the_same(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = families.build("ViT")
    quantize_(model, {EMBEDDINGS["ViT"]: TERNARY, "classifier": TERNARY})
    processing = Preprocess((32, 32), (32, 32), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)
    pack(model, tmp_path, preprocess=processing)
    to_onnx(tmp_path, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"pixels": families.pixels("ViT").numpy()})[0])
    with torch.no_grad():
        ours = loading.logits(load_packed(tmp_path), families.pixels("ViT"))
    assert (theirs - ours).norm() < 0.05 * ours.norm()
    assert not any(isinstance(module, BitLinear) for module in load_packed(tmp_path).modules())
