"""A quantized model in other people's hands: docs/compatibility.md, and what its rows rest on."""

import copy
import pickle
import runpy
from pathlib import Path

import pytest
import torch
import transformers
import uses_in_torch
import uses_of_libraries
from torch import nn
from torch.func import functional_call, grad, vmap
from use_table import PRECISIONS, USES, full, layers, make, pixels, row

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, recorded_precisions
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights
from ablate.quantization.wrappers import plain_names, unwrapped

assert uses_in_torch and uses_of_libraries  # they enter their uses into the table
DOCS = Path(__file__).parents[2] / "docs"


def documented():
    """The table of docs/compatibility.md: use -> column -> cell."""
    lines = [line for line in (DOCS / "compatibility.md").read_text().splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


@pytest.mark.long
@pytest.mark.parametrize("title", USES)
def test_a_use_ends_as_the_table_says(title, tmp_path):
    if USES[title].needs:
        pytest.importorskip(USES[title].needs)
    assert row(title, tmp_path) | {"": USES[title].note} == documented()[title]


def test_the_table_is_whole():
    assert [*documented()] == [*USES]
    head = runpy.run_path(str(DOCS / "make_compatibility.py"))["HEAD"]
    assert (DOCS / "compatibility.md").read_text().startswith(head), "run python docs/make_compatibility.py"


def integer(layer):
    levels, beta = quantize_weights(layer.weight.detach().float(), layer.spec)
    bias = layer.bias.detach().float()
    return IntegerLinear(levels.to(torch.int8), beta.flatten(), bias, layer.spec)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fields", [{"norm": True}, {"signed": False}, {"activation_bits": None}])
def test_a_packed_layer_computes_what_bitlinear_does_in_half_precision(dtype, fields):
    layer = BitLinear(24, 10, weights="int8", **fields).eval().to(dtype)
    packed, x = integer(layer).to(dtype), torch.randn(3, 5, 24).to(dtype)
    assert packed(x).dtype == layer(x).dtype == dtype
    torch.testing.assert_close(packed(x), layer(x), rtol=0, atol=1e-6 if dtype == torch.float64 else 0)
    assert {packed.beta.dtype, packed.bias.dtype} == {torch.float32}


@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_float16_trains_where_its_range_ends(weights):
    layer = BitLinear(8, 4, weights=weights).half()
    nn.init.zeros_(layer.weight)
    layer(torch.full((2, 8), 1e-6, dtype=torch.float16)).sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("weights", ["binary", "int8"])
@pytest.mark.parametrize("halved", [False, True])
def test_in_evaluation_gradients_go_straight_through_as_well(weights, halved, monkeypatch):
    monkeypatch.setattr("ablate.quantization.integer_linear.int8_is_slow", lambda: not halved)
    monkeypatch.setattr("ablate.quantization.integer_linear.int8_saturates", lambda: halved)
    layer, x = BitLinear(6, 5, weights=weights), torch.randn(3, 6, requires_grad=True)
    expected = torch.autograd.grad(layer(x).sum(), [x, layer.weight, layer.bias])
    layer.eval()
    for found, value in zip(
        torch.autograd.grad(layer(x).sum(), [x, *layer.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(found, value)
    y = integer(layer)(x)
    assert y.equal(layer(x)) and torch.autograd.grad(y.sum(), x)[0].allclose(expected[0])
    with torch.no_grad():
        assert layer(x).equal(y)


def test_gradients_of_each_sample():
    layer = BitLinear(8, 3, weights="ternary", straight_through="clipped")
    parameters, x = dict(layer.named_parameters()), torch.randn(5, 8)

    def loss(parameters, x):
        return functional_call(layer, parameters, (x[None],)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)["weight"]
    for i, each in enumerate(x):
        torch.testing.assert_close(found[i], torch.autograd.grad(loss(parameters, each), layer.weight)[0])


def test_a_layer_from_a_machine_with_exact_int8_products_stays_exact(monkeypatch):
    saturates = "ablate.quantization.integer_linear.int8_saturates"
    monkeypatch.setattr("ablate.quantization.integer_linear.int8_is_slow", lambda: False)
    monkeypatch.setattr(saturates, lambda: False)
    layer = integer(BitLinear(8, 4, weights="int8"))
    stored = pickle.dumps(layer)
    monkeypatch.setattr(saturates, lambda: True)
    assert pickle.loads(stored).floats and not layer.floats


def test_a_layer_that_could_not_be_loaded_is_not_packed(tmp_path):
    with pytest.raises(BadInput, match=r"below 2\^31"):
        pack(nn.Sequential(BitLinear(140_000, 1, weights="int8")), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_skeleton_may_be_wrapped(tmp_path):
    model = make("BitLinear")
    pack(model, tmp_path)
    skeleton = torch.compile(full(), backend="eager")
    assert load_packed(tmp_path, skeleton) is skeleton
    assert logits(skeleton._orig_mod, pixels()).equal(logits(model, pixels()))


def test_as_nn_linear_it_takes_a_device_and_a_dtype():
    layer = BitLinear(4, 2, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta and layer.bias.dtype == torch.bfloat16
    assert layer(torch.empty(3, 4, device="meta", dtype=torch.bfloat16)).shape == (3, 2)


def test_the_record_is_of_one_model_alone():
    config = full().config
    one, other = (transformers.ViTForImageClassification(config) for _ in range(2))
    quantize_(one, PRECISIONS)
    assert not hasattr(other.config, "quantization_config") and not hasattr(config, "quantization_config")
    assert {id(part.config) for part in one.modules() if hasattr(part, "config")} == {id(one.config)}
    specs = {name: layer.spec for name, layer in one.named_modules() if isinstance(layer, BitLinear)}
    assert recorded_precisions(one) == specs
    quantize_(one, {"vit.layers.0.mlp.fc1": LayerSpec(weights="int4")})
    assert recorded_precisions(one)["vit.layers.0.mlp.fc1"].weights == "int4"
    with pytest.raises(BadInput, match="must have a quantization_config of ablate, but got None"):
        recorded_precisions(other)


def test_what_another_library_has_quantized_is_refused():
    model = full()
    model.config.quantization_config = {"quant_method": "awq"}
    with pytest.raises(BadInput, match="this one's configuration names awq"):
        quantize_(model, PRECISIONS)
    assert not layers(model)


def test_a_model_of_transformers_that_it_would_not_build_is_packed_with_a_warning(tmp_path):
    """A class of the user's, a head of the user's: load_packed needs the user's skeleton."""
    model = make("BitLinear")
    model.__class__ = type("Mine", (type(model),), {})
    with pytest.warns(UserWarning, match="skeleton of this model: Mine is neither"):
        pack(model, tmp_path / "class")
    model = make("BitLinear")
    model.classifier = nn.Sequential(nn.Linear(16, 3))
    with pytest.warns(
        UserWarning, match=r"skeleton of this model: tensor 'classifier.0.bias' must be absent"
    ):
        pack(model, tmp_path / "head")
    skeleton = full()
    skeleton.classifier = nn.Sequential(nn.Linear(16, 3))
    with torch.no_grad():
        assert logits(load_packed(tmp_path / "head", skeleton), pixels()).equal(logits(model, pixels()))


def test_packing_does_not_change_the_configuration(tmp_path):
    """LeViT's changes whenever a model is built from it."""
    import families

    model = families.quantized("LeViT")
    before = copy.deepcopy(model.config.down_ops)
    pack(model, tmp_path / "a"), pack(model, tmp_path / "b")
    assert model.config.down_ops == before
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_a_backbone_has_the_precisions_of_its_classifier(tmp_path):
    model = make("BitLinear")
    model.vit.save_pretrained(tmp_path / "backbone")
    backbone = transformers.AutoModel.from_pretrained(tmp_path / "backbone")
    names = quantize_(backbone, recorded_precisions(backbone))
    assert len(names) == sum(isinstance(module, BitLinear) for module in model.vit.modules())
    head = transformers.AutoModelForImageClassification.from_config(backbone.config)
    assert any(name.startswith("vit.") for name in recorded_precisions(head))


def test_the_parts_of_a_packed_model_refuse_to_save_themselves(tmp_path):
    with pytest.raises(BadInput, match="packed"):
        make("packed").vit.save_pretrained(tmp_path)


def test_a_quantized_layer_cannot_be_made_full_again():
    with pytest.raises(BadInput, match="is quantized already; load the model again"):
        quantize_(make("BitLinear"), {"*": LayerSpec(weights="full")})


def test_names_without_wrappers():
    block = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))
    block.module[0] = torch.compile(block.module[0], backend="eager")
    model = nn.Sequential(nn.Linear(2, 2), block)
    names = [*model.state_dict()]
    assert plain_names(model, ["1.module.0._orig_mod", "1.module"]) == {
        "1.module.0._orig_mod": "1.0",
        "1.module": "1",
    }
    assert "1.module.0._orig_mod.weight" in names
    assert [*plain_names(model, names).values()] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert unwrapped(torch.compile(nn.DataParallel(model), backend="eager")) is model


class Adapter(nn.Module):
    """What PEFT's layers have in common."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer

    def merge(self):
        return "merged"


def test_an_adapter_is_not_merged_into_a_quantized_layer():
    adapter = Adapter(nn.Linear(2, 2))
    assert adapter.merge() == "merged"
    adapter.base_layer = BitLinear(2, 2)
    for each in (adapter, copy.deepcopy(adapter)):
        with pytest.raises(BadInput, match="must not be merged into a BitLinear"):
            each.merge()
    with pytest.warns(UserWarning, match="does not record that the model it was trained on is quantized"):
        nn.Sequential(adapter).state_dict()
