"""The packed format: what it costs, that it changes nothing, and that nothing but what `pack` writes is loaded."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors.torch import load_file, save
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.data import datasets
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import checkpoints, loading
from ablate.quantization.bit_packing import checked_levels, pack_levels, unpack_levels
from ablate.quantization.packed_model import load_preprocess

WEIGHTS = ("binary", "ternary", "int4", "int8")
MIB = 2**20


def unpack(packed, weights, n):
    """The inverse of pack_levels, one value at a time: slow and plain."""
    values = []
    for byte in packed.tolist():
        if weights == "binary":
            values += [1 if byte >> i & 1 else -1 for i in range(8)]
        elif weights == "ternary":
            values += [byte // 3**i % 3 - 1 for i in range(5)]
        elif weights == "int4":
            values += [(byte & 15) - 8, (byte >> 4) - 8]
        else:
            values.append(byte - 256 if byte > 127 else byte)
    return values[:n]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (10, 192), (5, 8), (768, 192)])
def test_levels_survive_packing(weights, shape):
    top = {"binary": 1, "ternary": 1, "int4": 7, "int8": 127}[weights]
    levels = torch.randint(-top, top + 1, shape).float()
    if weights == "binary":
        levels = torch.where(levels > 0, 1.0, -1.0)
    packed = pack_levels(levels, weights)
    per_byte = {"binary": 8, "ternary": 5, "int4": 2, "int8": 1}[weights]
    assert packed.dtype == torch.uint8 and len(packed) == -(-levels.numel() // per_byte)
    assert unpack(packed, weights, levels.numel()) == levels.flatten().tolist()
    assert unpack_levels(packed, weights, shape).equal(levels.to(torch.int8))


def test_size_is_what_is_written(tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10)
    full = pack(model, tmp_path / "full")
    quantize_(model, {"vit.layers.*": LayerSpec(weights="binary")})
    binary = pack(model, tmp_path / "binary")
    for size, folder in ((full, "full"), (binary, "binary")):
        assert size == sum(file.stat().st_size for file in (tmp_path / folder).iterdir())
    weights = 6 * 12 * 192**2
    assert full - binary == pytest.approx(weights * (32 - 1) / 8, rel=0.01)


def test_the_files_hold_the_model(tmp_path):
    net = nn.Sequential(nn.Linear(5, 4), BitLinear(4, 3, weights="ternary"))
    pack(net, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    header = json.loads((tmp_path / "packed.json").read_text())
    assert set(tensors) == {"0.weight", "0.bias", "1.packed", "1.beta", "1.bias"}
    assert header["format"] == 1 and header["layers"]["1"]["weights"] == "ternary"
    levels = np.reshape(unpack(tensors["1.packed"], "ternary", 12), (3, 4))
    x = torch.randn(2, 4)
    expected = nn.functional.linear(x, torch.tensor(levels).float() * tensors["1.beta"], net[1].bias)
    net[1].spec = LayerSpec(weights="ternary", activation_bits=None)
    assert torch.allclose(net[1].eval()(x), expected)


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
        layers = json.loads((tmp_path / per / "packed.json").read_text())["layers"]
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
    assert (tmp_path / "same" / "packed.json").read_bytes() == (tmp_path / "packed.json").read_bytes()


@pytest.mark.parametrize("source", [None, (20, 48)])
def test_a_photo_is_predicted_as_the_models_images_are_trained(source, tiny_vit, tmp_path):
    """Of any size: as the model's image processor does it, or, where images came in at another size, it covers that first."""
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
        assert predict(tmp_path, [tmp_path / f"{name}.png"])[0][1] == pytest.approx(expected, abs=1e-6)


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
    pack(net, tmp_path)
    skeleton = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert load_packed(tmp_path, skeleton) is skeleton and skeleton(x).equal(net(x))
    with pytest.raises(BadInput, match="give its skeleton"):
        load_packed(tmp_path)


def test_weights_that_are_not_finite_are_not_packed(tmp_path):
    layer = BitLinear(2, 2)
    nn.init.constant_(layer.weight, torch.nan)
    with pytest.raises(BadInput, match="weights must be finite"):
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


@pytest.fixture(scope="module")
def good(tiny_vit, tmp_path_factory):
    """A packed model with a layer of every precision: its folder and its two files."""
    model = checkpoints.load(str(tiny_vit), ["a", "b", "c"])
    specs = {"*.q_proj": "binary", "*.fc1": "ternary", "*.fc2": "int4", "*.k_proj": "int8"}
    quantize_(model, {pattern: LayerSpec(weights=weights) for pattern, weights in specs.items()})
    quantize_(model, {"*.v_proj": LayerSpec(weights="binary", beta_per="channel")})
    folder = tmp_path_factory.mktemp("good")
    pack(model, folder, preprocess=loading.preprocess(str(tiny_vit)))
    return {name: (folder / name).read_bytes() for name in ("packed.json", "model.safetensors")}


def refused(folder, files, match=None):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=match) as error:
        load_packed(folder)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600


fuzz = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
files = st.sampled_from(["packed.json", "model.safetensors"])


@fuzz
@given(file=files, where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_bytes_are_refused(good, tmp_path, file, where, flip):
    content = bytearray(good[file])
    content[int(where * len(content))] ^= flip
    refused(tmp_path, good | {file: bytes(content)})


@pytest.mark.long
@fuzz
@given(file=files, where=st.floats(0, 1, exclude_max=True), tail=st.binary(max_size=9))
def test_truncated_and_continued_files_are_refused(good, tmp_path, file, where, tail):
    whole = good[file]
    header = 8 + int.from_bytes(good["model.safetensors"][:8], "little")
    for end in {0, 1, 7, 8, 9, header - 1, header, header + 1, int(where * len(whole)), len(whole) - 1}:
        if end < len(whole):
            refused(tmp_path, good | {file: whole[:end]})
    refused(tmp_path, good | {file: whole + b" " + tail})


@fuzz
@given(file=files, content=st.binary(max_size=300))
def test_foreign_files_are_refused(good, tmp_path, file, content):
    refused(tmp_path, good | {file: content})


def forge(good, fields=None, tensors=None):
    """Files with other contents and the right checksum, as a forger would make them."""
    header = json.loads(good["packed.json"]) | (fields or {})
    header.pop("sha256")
    body = (
        good["model.safetensors"]
        if tensors is None
        else tensors
        if isinstance(tensors, bytes)
        else save(tensors)
    )
    spelled = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    header["sha256"] = hashlib.sha256(spelled + body).hexdigest()
    return {
        "packed.json": json.dumps(header, sort_keys=True, separators=(",", ":")).encode(),
        "model.safetensors": body,
    }


def test_a_forgery_without_a_fault_is_the_model(good, tmp_path):
    for name, content in forge(good).items():
        assert content == good[name]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.long
@fuzz
@given(key=st.sampled_from(["format", "dtype", "layers", "model", "preprocess", "more"]), value=anything)
def test_hostile_fields_are_refused(good, tmp_path, key, value):
    if (key, value) != ("preprocess", None):
        refused(tmp_path, forge(good, {key: value}))


@pytest.mark.long
@fuzz
@given(value=anything, data=st.data())
def test_a_hostile_configuration_is_refused_or_is_the_same_model(good, tmp_path, value, data):
    model = json.loads(good["packed.json"])["model"]
    key = data.draw(
        st.sampled_from(
            [*model["config"], "auto_map", "_attn_implementation", "num_channels", "num_attention_heads"]
        )
    )
    model["config"][key] = value
    for name, content in forge(good, {"model": model}).items():
        (tmp_path / name).write_bytes(content)
    try:
        loaded = load_packed(tmp_path)
    except BadInput:
        return
    assert isinstance(loaded, ViTForImageClassification) and not any(p.is_meta for p in loaded.parameters())


@pytest.mark.parametrize(
    ("name", "config", "match"),
    [
        ("ViTModel", {}, "must be an image classifier"),
        ("os.system", {}, "must be an image classifier"),
        ("TimmWrapperForImageClassification", {}, "must be an image classifier"),
        ("ViTForImageClassification", {"num_labels": 10**10}, "num_labels must be at most 65536"),
        ("ViTForImageClassification", {"num_labels": True}, "num_labels must be at most 65536"),
        (
            "CLIPForImageClassification",
            {"vision_config": {"num_labels": 10**10}},
            "num_labels must be at most 65536",
        ),
        (
            "CLIPForImageClassification",
            {"vision_config": {"_attn_implementation": "kernels/evil"}},
            "must not hold '_attn_impl",
        ),
        ("CLIPForImageClassification", {"text_config": [{"auto_map": {}}]}, "must not hold 'auto_map'"),
        (
            "SwinForImageClassification",
            {"window_size": 2**7, "depths": [1], "num_heads": [1], "image_size": 2**10},
            "its buffers must take at most",
        ),
        ("ViTForImageClassification", {"auto_map": {"AutoModel": "evil/model"}}, "must not hold 'auto_map'"),
        ("ViTForImageClassification", {"num_hidden_layers": 10**9}, "more parameters than"),
        ("ViTForImageClassification", {"hidden_size": 10**30}, "cannot build|must be"),
        ("ViTForImageClassification", {"image_size": 10**7}, "must be"),
        ("ViTForImageClassification", {"image_size": -16}, "image_size must be at least 1, but got -16"),
        (
            "SwinForImageClassification",
            {"patch_size": [4, 0]},
            r"patch_size must be at least 1, but got \[4, 0\]",
        ),
    ],
)
def test_hostile_models_are_refused(name, config, match, good, tmp_path):
    """Nor does a configuration inside another, or what a model computes when it is built, load code or fill memory."""
    model = json.loads(good["packed.json"])["model"]
    own = model["config"] if name.startswith("ViT") else {"id2label": model["config"]["id2label"]}
    model |= {"name": name, "config": own | config}
    refused(tmp_path, forge(good, {"model": model}), match)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{" * 10**6,
        b"[" * 10**6,
        b'{"format":1,"format":1}',
        b'{"format": 1}',
        b'{"format":NaN}',
        b'{"format":1e999}',
        b'{"format":' + b"9" * 10**5 + b"}",
        b"\xff\xfe",
        b" " * (2**24 + 1),
    ],
)
def test_hostile_json_is_refused(text, good, tmp_path):
    refused(tmp_path, good | {"packed.json": text})


def test_another_format_is_named(good, tmp_path):
    refused(tmp_path, forge(good, {"format": 2}), "format must be 1, but got 2")


@pytest.mark.long
def test_tensors_must_be_those_of_the_model(good, tmp_path):
    whole = {name: value.clone() for name, value in read_good(good, tmp_path).items()}
    layer = "vit.layers.0.attention.q_proj"
    for name, value in whole.items():
        refused(tmp_path, forge(good, tensors={k: v for k, v in whole.items() if k != name}), "must be")
        refused(
            tmp_path,
            forge(good, tensors=whole | {name: torch.cat([value.flatten(), value.flatten()[:1]])}),
            "must be",
        )
        refused(tmp_path, forge(good, tensors=whole | {name: value.double()}), "must be")
    refused(tmp_path, forge(good, tensors=whole | {"more": torch.ones(1)}), "'more' must be absent")
    for beta in (torch.nan, torch.inf):
        refused(
            tmp_path,
            forge(good, tensors=whole | {f"{layer}.beta": torch.tensor([beta])}),
            "beta must be finite",
        )
    layers = json.loads(good["packed.json"])["layers"]
    per_channel = layers | {layer: layers[layer] | {"beta_per": "channel"}}
    refused(tmp_path, forge(good, {"layers": per_channel}), "q_proj.beta' must be")
    undecided = layers | {layer: layers[layer] | {"norm": "unnormalised"}}
    refused(tmp_path, forge(good, {"layers": undecided}), "norm")
    missing = json.loads(good["packed.json"])["layers"]
    refused(
        tmp_path,
        forge(good, {"layers": missing | {"vit.layers.9.fc": missing[layer]}}),
        "must be linear layers",
    )
    refused(
        tmp_path, forge(good, {"layers": missing | {layer: {"weights": "full"}}}), "must be linear layers"
    )


def read_good(good, folder):
    (folder / "model.safetensors").write_bytes(good["model.safetensors"])
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("weights", "shape", "byte"),
    [
        ("binary", (1, 3), 0b1000),
        ("ternary", (1, 5), 243),
        ("ternary", (1, 4), 81),
        ("int4", (1, 2), 0x10),
        ("int4", (1, 1), 0x11),
    ],
)
def test_bytes_that_pack_does_not_write_are_refused(weights, shape, byte):
    with pytest.raises(BadInput, match=f"bytes of {weights} weights"):
        checked_levels(torch.tensor([byte], dtype=torch.uint8), weights, shape)
    with pytest.raises(BadInput, match="bytes of int8 weights"):
        checked_levels(torch.tensor([128], dtype=torch.uint8), "int8", (1, 1))


def test_paths_that_are_not_files(good, tmp_path):
    for folder in (tmp_path / "absent", "/dev/null", "a\0b"):
        with pytest.raises(BadInput):
            load_packed(folder)
    (tmp_path / "packed.json").mkdir()
    with pytest.raises(BadInput, match="must be a file"):
        load_packed(tmp_path)
