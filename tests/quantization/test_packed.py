"""The packed format: what it costs, and that it changes nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.data import datasets
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import checkpoints, loading
from ablate.quantization.packed_loading import load_preprocess

WEIGHTS = ("binary", "ternary", "int4", "int8")


MIB = 2**20


def test_size_is_what_is_written(tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10)
    full = pack(model, tmp_path / "full")
    quantize_(model, {"vit.layers.*": LayerSpec(weights="binary")})
    binary = pack(model, tmp_path / "binary")
    for size, folder in ((full, "full"), (binary, "binary")):
        assert size == sum(file.stat().st_size for file in (tmp_path / folder).iterdir())
    weights = 6 * 12 * 192**2
    assert full - binary == pytest.approx(weights * (32 - 1) / 8, rel=0.01)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"signed": False, "norm": True, "activation_bits": 4},
        {"activation_bits": None},
        {"norm": "unnormalised", "beta_per": "channel", "straight_through": "clipped"},
    ],
)
def test_packing_changes_nothing(weights, fields, tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10).eval()
    quantize_(model, {"*": LayerSpec(weights=weights, **fields)})
    pack(model, tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    loaded = load_packed(tmp_path)
    assert loaded.config.id2label == dict(enumerate(datasets.CIFAR10))
    assert loading.logits(loaded, pixels).equal(loading.logits(model, pixels))


@pytest.mark.long
def test_a_beta_per_channel_costs_its_bytes_and_nothing_else_is_written(tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10)
    sizes = []
    for per in ("tensor", "channel"):
        names = quantize_(
            model, {"*.fc1": LayerSpec(weights="binary", beta_per=per, straight_through="clipped")}
        )
        sizes.append(pack(model, tmp_path / per))
        layers = json.loads((tmp_path / per / "config.json").read_text())["quantization_config"]["layers"]
        assert all(("beta_per" in layer) == (per == "channel") for layer in layers.values())
        assert not any("straight_through" in layer for layer in layers.values())
    words = len('"beta_per":"channel",') * len(names)
    channels = sum(model.get_submodule(name).out_features for name in names)
    assert sizes[1] - sizes[0] - words == pytest.approx(
        4 * (channels - len(names)), abs=8 * len(names)
    )  # safetensors' header


def vit_base(weights):
    """ViT-B/16 with 10 classes and a quantized encoder, random weights."""
    model = ViTForImageClassification(ViTConfig(num_labels=10)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model, quantize_(model, {"vit.layers.*": LayerSpec(weights=weights)})


@pytest.mark.long
@pytest.mark.parametrize(("weights", "bits"), [("binary", 1.01), ("ternary", 1.61)])
def test_the_size_of_vit_base(weights, bits, tmp_path):
    model, names = vit_base(weights)
    size = pack(model, tmp_path)
    quantized = sum(model.get_submodule(name).weight.numel() for name in names)
    rest = sum(p.numel() for p in model.parameters()) - quantized
    assert 8 * (size - 4 * rest) / quantized <= bits
    if weights == "binary":
        assert size <= 13.6 * MIB
        pixels = torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            assert loading.logits(load_packed(tmp_path), pixels).equal(loading.logits(model, pixels))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_rest_in_half_precision(dtype, tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10).eval()
    full = pack(model, tmp_path / "full")
    assert pack(model, tmp_path / "half", dtype=dtype) == pytest.approx(full / 2, rel=0.01)
    loaded = load_packed(tmp_path / "half")
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].equal(value.to(getattr(torch, dtype)).float())


def test_image_processing_is_kept(tiny_vit, tmp_path):
    preprocess = loading.preprocess(str(tiny_vit))
    pack(model := checkpoints.load(str(tiny_vit), ["a", "b"]), tmp_path, preprocess=preprocess)
    assert load_preprocess(tmp_path) == preprocess
    same, other = (preprocess.of(np.zeros((2, *size, 3), np.uint8)) for size in (preprocess.size, (48, 64)))
    pack(model, tmp_path / "same", preprocess=same)
    pack(model, tmp_path / "other", preprocess=other)
    assert same == preprocess and other.source == (48, 64) and load_preprocess(tmp_path / "other") == other
    assert (tmp_path / "same" / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()


@pytest.mark.parametrize("source", [None, (20, 48)])
def test_a_photo_is_predicted_as_the_models_images_are_trained(source, tiny_vit, tmp_path):
    """Of any size: as the processor does it, or, where images came at another size, after covering that."""
    model, preprocess = checkpoints.load(str(tiny_vit), ["a", "b"]).eval(), loading.preprocess(str(tiny_vit))
    preprocess = dataclasses.replace(preprocess, source=source)
    pack(model, tmp_path, preprocess=preprocess)
    rng, (height, width) = np.random.default_rng(0), source or preprocess.size
    for name, size in (("wide", (90, 40)), ("tall", (40, 90)), ("as they are", (width, height))):
        photo = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        photo.save(tmp_path / f"{name}.png")
        first = ImageOps.fit(photo, (width, height), Image.Resampling.BICUBIC) if source else photo
        pixels = np.asarray(first).transpose(2, 0, 1)
        with torch.inference_mode():
            expected = model(preprocess(torch.from_numpy(pixels[None].copy()))).logits.softmax(1).max().item()
        assert predict(tmp_path, [tmp_path / f"{name}.png"], exact=True)[0][1] == pytest.approx(
            expected, abs=1e-6
        )


def test_images_of_a_size_that_the_model_does_not_take_are_refused(tiny_vit, tmp_path):
    preprocess = dataclasses.replace(loading.preprocess(str(tiny_vit)), size=(48, 40), resize=(48, 40))
    pack(checkpoints.load(str(tiny_vit), ["a", "b"]), tmp_path, preprocess=preprocess)
    Image.new("RGB", (50, 50)).save(tmp_path / "photo.png")
    with pytest.raises(BadInput, match=r"takes no images of 40 x 48: .*; pack it with its preprocess"):
        predict(tmp_path, [tmp_path / "photo.png"])


def small_net():
    return nn.Sequential(nn.Linear(5, 4), BitLinear(4, 3, weights="ternary"), nn.BatchNorm1d(3))


def test_a_skeleton_is_filled_in_place(tmp_path):
    net, x = small_net().eval(), torch.randn(2, 5)
    with pytest.warns(
        UserWarning, match="load_packed will need a skeleton of this model: Sequential is neither"
    ):
        pack(net, tmp_path)
    skeleton = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert load_packed(tmp_path, skeleton) is skeleton and skeleton(x).equal(net(x))
    with pytest.raises(BadInput, match="give its skeleton"):
        load_packed(tmp_path)


def test_weights_that_are_not_finite_are_not_packed(tmp_path):
    layer = BitLinear(2, 2)
    nn.init.constant_(layer.weight, torch.nan)
    with pytest.raises(BadInput, match="weights and scales must be finite"):
        pack(nn.Sequential(layer), tmp_path)


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, "float32"), (1e6, "float16")])
def test_what_is_not_finite_as_it_is_stored_is_not_packed(value, dtype, tmp_path):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    with pytest.raises(BadInput, match=f"must be finite in {dtype}, but those of '0.weight' are not"):
        pack(nn.Sequential(layer), tmp_path, dtype=dtype)


def test_a_mask_of_infinities_is_packed(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("mask", torch.full((2,), -torch.inf))
    with pytest.warns(UserWarning, match="skeleton"):
        pack(model, tmp_path)
    assert load_file(tmp_path / "model.safetensors")["mask"].equal(model.mask)


def test_a_type_that_is_none_of_floats_is_refused(tmp_path):
    with pytest.raises(BadInput, match="dtype must be one of float32, float16, bfloat16, but got 'int8'"):
        pack(nn.Sequential(nn.Linear(2, 2)), tmp_path, dtype="int8")


def test_a_checkpoint_is_not_overwritten(tiny_vit):
    before = (tiny_vit / "model.safetensors").read_bytes()
    with pytest.raises(BadInput, match=r"must not overwrite a model, .* has a model.safetensors"):
        pack(checkpoints.load(str(tiny_vit), ["a", "b"]), tiny_vit)
    assert (tiny_vit / "model.safetensors").read_bytes() == before
    with pytest.raises(BadInput, match="must be packed to a folder"):
        pack(nn.Sequential(nn.Linear(2, 2)), tiny_vit / "config.json")
