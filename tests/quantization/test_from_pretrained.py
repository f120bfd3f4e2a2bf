"""transformers' from_pretrained and save_pretrained of our models, once the quantizer is imported."""

import copy
import pickle
import re
import subprocess
import sys

import pytest
import torch
import transformers
from forgery import FILES, forge, header_of, intact
from saved_models import SMALL, SWIN, numbered, save

from ablate import BitLinear, LayerSpec, calibrate_, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.integrations.transformers import AblateConfig
from ablate.models import loading
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_loading import load_preprocess

Auto = transformers.AutoModelForImageClassification


@pytest.fixture(scope="module")
def packed(tiny_vit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    intact(tiny_vit, folder)
    return folder


def logits(model, seed=0):
    with torch.no_grad():
        return loading.logits(model, torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_packed_folder_is_a_folder_of_transformers(packed, tmp_path):
    model, expected = Auto.from_pretrained(packed), load_packed(packed)
    assert logits(model).equal(logits(expected))
    assert sum(isinstance(layer, IntegerLinear) for layer in model.modules()) == 10
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"} and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {**model.state_dict()}.keys() == {**expected.state_dict()}.keys()


@pytest.mark.parametrize("load", [Auto.from_pretrained, load_packed])
@pytest.mark.parametrize(
    "copied", [lambda model: model, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_save_pretrained_writes_the_same_files(load, copied, packed, tmp_path):
    model = load(packed)
    other = copied(model)
    if other is not model:  # a copy saves itself, and not what it was copied from
        with torch.no_grad():
            other.classifier.bias += 1
        other.save_pretrained(tmp_path)
        assert logits(load_packed(tmp_path)).equal(logits(model) + 1)
        return
    model.save_pretrained(tmp_path)
    assert contents(tmp_path) == contents(packed)
    assert load_preprocess(tmp_path) == load_preprocess(packed)
    with pytest.raises(BadInput, match="must not upload it"):
        model.save_pretrained(tmp_path, push_to_hub=True)


def test_static_scales_are_read_packed_and_in_training(tmp_path):
    model = Auto.from_config(transformers.ViTConfig(**SMALL, num_labels=3)).eval()
    spec = LayerSpec(weights="ternary", activation_scale="static")
    quantize_(model, {"vit.layers.*": spec})
    calibrate_(model, torch.randn(4, 3, 32, 32))
    for name, parameter in model.named_parameters():
        if name.endswith("static.gain"):
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    pack(model, tmp_path / "packed")
    model.save_pretrained(tmp_path / "training")
    for folder in ("packed", "training"):
        assert logits(Auto.from_pretrained(tmp_path / folder)).equal(logits(model))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_stored_in_half_precision_computes_in_float32(dtype, packed, tmp_path):
    pack(load_packed(packed), tmp_path / "half", dtype=dtype)
    model = Auto.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert logits(model).equal(logits(load_packed(tmp_path / "half")))
    model.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "half")
    half = Auto.from_pretrained(packed, dtype=torch.bfloat16)
    assert half.classifier.weight.dtype == torch.bfloat16
    assert next(m for m in half.modules() if isinstance(m, IntegerLinear)).beta.dtype == torch.float32


def test_buffers_that_are_computed_and_scales_of_an_image(tmp_path):
    model = save(tmp_path / "swin", "SwinForImageClassification", SWIN, **numbered(["a", "b", "c"]))
    quantize_(model, {"*": LayerSpec(weights="ternary", activation_scale="tensor", signed=False, norm=True)})
    pack(model, tmp_path / "packed")
    loaded = Auto.from_pretrained(tmp_path / "packed")
    assert logits(loaded).equal(logits(model)) and logits(loaded).equal(
        logits(load_packed(tmp_path / "packed"))
    )


def test_a_model_in_training_goes_on(tmp_path):
    """With what its beta has learned, which from_pretrained alone leaves out."""
    model = save(tmp_path / "vit", "ViTForImageClassification", SMALL, **numbered(["a", "b", "c"]))
    names = quantize_(
        model, {"vit.layers.*": LayerSpec(weights="binary", beta="learned", norm="unnormalised")}
    )
    with torch.no_grad():
        for layer in (model.get_submodule(name) for name in names):
            layer.gain += torch.rand(1)
    model.save_pretrained(tmp_path / "saved")
    loaded = Auto.from_pretrained(tmp_path / "saved")
    assert logits(loaded).equal(logits(model)) and isinstance(loaded.get_submodule(names[0]), BitLinear)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "saved")
    pack(loaded, tmp_path / "one"), pack(model, tmp_path / "other")
    assert logits(load_packed(tmp_path / "one")).equal(logits(load_packed(tmp_path / "other")))


def test_from_pretrained_quantizes_a_checkpoint(tiny_vit):
    spec = LayerSpec(weights="ternary", norm="unnormalised")
    model = Auto.from_pretrained(tiny_vit, quantization_config=AblateConfig({"vit.layers.*.mlp.*": spec}))
    expected = Auto.from_pretrained(tiny_vit)
    names = quantize_(expected, {"vit.layers.*.mlp.*": spec})
    assert logits(model).equal(logits(expected))
    assert [name for name, layer in model.named_modules() if isinstance(layer, BitLinear)] == names
    with pytest.raises(BadInput, match="matches no linear layer"):
        Auto.from_pretrained(tiny_vit, quantization_config=AblateConfig({"nowhere": spec}))


def test_files_that_do_not_fit_are_refused(packed, tmp_path):
    for change in (
        lambda b: b.replace(b'"format":2', b'"format":3'),
        lambda b: b.replace(b'"ternary"', b'"tern"'),
        lambda b: re.sub(rb'("quantization_config":{"dtype":)"float\d+"', rb'\1"float8"', b),
    ):
        for name, content in contents(packed).items():
            (tmp_path / name).write_bytes(change(content) if name == "config.json" else content)
        with pytest.raises(BadInput, match=r"got 3; upgrade|weights|got 'float8'"):
            Auto.from_pretrained(tmp_path)
    layers = {
        key.replace(".q_proj", ".nowhere"): row for key, row in header_of(contents(packed))["layers"].items()
    }
    for name, content in forge(contents(packed), {"layers": layers}).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="nowhere' is none"):
        Auto.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_damaged_files_are_refused_as_load_packed_refuses_them(file, packed, tmp_path):
    for name, content in contents(packed).items():
        (tmp_path / name).write_bytes(content)
    good = (tmp_path / file).read_bytes()
    damaged = (
        good.replace(b'"0":"a"', b'"0":"z"') if file == "config.json" else good[:-1] + bytes([good[-1] ^ 1])
    )
    assert damaged != good
    (tmp_path / file).write_bytes(damaged)
    for load in (load_packed, Auto.from_pretrained):
        with pytest.raises(BadInput, match="damaged or edited: sha256 differs; pack the model again"):
            load(tmp_path)


@pytest.mark.long
def test_without_the_import_nobody_gets_a_random_model(packed):
    code = f"""
from transformers import AutoModelForImageClassification
AutoModelForImageClassification.from_pretrained({str(packed)!r})"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "ignore_mismatched_sizes" in done.stderr
