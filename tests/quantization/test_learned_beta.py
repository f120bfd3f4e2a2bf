"""A learned beta: mean|W| times a trained gain, in training, in evaluation and in what is stored."""

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import AveragedModel
from use_table import full, layers, pixels, same

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, recorded_precisions
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.packed_size import packed_bytes
from ablate.quantization.quantizers import quantize_weights
from ablate.quantization.recorded import record_of

PER = ("tensor", "channel")


def learned(per="tensor", weights="binary", **fields):
    """A layer whose gain is not where it began."""
    layer = BitLinear(6, 4, weights=weights, beta="learned", beta_per=per, **fields)
    nn.init.uniform_(layer.gain, 0.5, 2.0)
    return layer


def model_of(**fields):
    torch.manual_seed(0)
    model = full()
    quantize_(model, {"*attention*": LayerSpec(weights="ternary", beta="learned", **fields)})
    for layer in layers(model):
        nn.init.uniform_(layer.gain, 0.5, 2.0)
    return model


def test_it_begins_at_mean_w_and_only_a_learned_beta_has_a_gain():
    x = torch.randn(3, 6)
    for per, shape in zip(PER, ((1,), (4,)), strict=True):
        layer = BitLinear(6, 4, beta="learned", beta_per=per)
        plain = BitLinear.from_linear(layer, beta_per=per)
        assert layer.gain.shape == shape and plain.gain is None and "gain" not in plain.state_dict()
        assert layer(x).equal(plain(x)) and layer.eval()(x).equal(plain.eval()(x))
    assert BitLinear(6, 4, weights="int8", beta="learned").gain is None  # it takes no beta


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("weights", ["binary", "ternary"])
@pytest.mark.parametrize("ramp", [None, 0.25])
def test_the_gradient_of_the_gain_is_that_of_the_formula(per, weights, ramp):
    layer, x = (
        learned(per, weights, activation_bits=None, beta_multiplier=3.0).double(),
        torch.randn(5, 6).double(),
    )
    layer.ramp = None if ramp is None else torch.tensor(ramp)
    w, gain = layer.weight.detach(), layer.gain.detach().clone().requires_grad_()
    levels, base = quantize_weights(w, layer.spec)  # beta_multiplier is in base
    scaled = levels * base * (gain[:, None] if per == "channel" else gain)
    y = x @ (scaled if ramp is None else w + ramp * (scaled - w)).T + layer.bias.detach()
    y.square().sum().backward()
    found = layer(x)
    found.square().sum().backward()
    torch.testing.assert_close(found, y)
    torch.testing.assert_close(layer.gain.grad, gain.grad)
    assert layer.weight.grad.any()


def test_the_gain_learns_where_no_gradient_goes_to_weights():
    layer = learned(straight_through=None)
    layer(torch.randn(5, 6)).square().sum().backward()
    assert layer.weight.grad is None and layer.gain.grad.any()


def test_evaluation_gives_the_gain_the_same_gradient_and_so_does_vmap():
    layer, x = learned("channel", straight_through="clipped"), torch.randn(5, 6)
    (expected,) = torch.autograd.grad(layer(x).sum(), layer.gain)
    torch.testing.assert_close(torch.autograd.grad(layer.eval()(x).sum(), layer.gain)[0], expected)
    layer.train().weight.requires_grad_(False)
    parameters = dict(layer.named_parameters())
    each = vmap(grad(lambda p, x: functional_call(layer, p, (x[None],)).sum()), in_dims=(None, 0))(
        parameters, x
    )
    torch.testing.assert_close(each["gain"].sum(0), expected)


@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_clipping_is_at_the_learned_beta(weights):
    layer = BitLinear(2, 1, False, weights=weights, beta="learned", straight_through="clipped")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, 1.5]]))  # mean|W| = 1
        layer.gain.fill_(-2.0)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.all()  # both within 2


@pytest.mark.parametrize("per", PER)
def test_all_ways_to_evaluate_have_the_learned_beta(per, tmp_path):
    model = model_of(beta_per=per).eval()
    specs = {name: layer.spec for name, layer in model.named_modules() if isinstance(layer, BitLinear)}
    with torch.no_grad():
        expected = logits(model, pixels())
        assert expected.allclose(logits(model.train(), pixels()), atol=1e-5)
        assert logits(AveragedModel(model.eval()), pixels()).equal(expected)
        with as_integers(model):
            assert logits(model, pixels()).equal(expected)
    size = pack(model, tmp_path)
    assert size == packed_bytes(model, specs) == packed_bytes(full(), specs)
    stored = load_file(tmp_path / "model.safetensors")
    assert not any(key.endswith(".gain") for key in stored)
    assert size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert logits(load_packed(tmp_path), pixels()).equal(expected)
    without = copy.deepcopy(model)
    for layer in layers(without):
        nn.init.ones_(layer.gain)
    assert not logits(without, pixels()).allclose(expected, atol=1e-4)


def test_a_gain_that_is_not_finite_is_not_packed(tmp_path):
    model = model_of()
    nn.init.constant_(layers(model)[0].gain, torch.nan)
    with pytest.raises(BadInput, match=r"weights and scales must be finite, but those of layer 'vit\."):
        pack(model, tmp_path)


def test_what_has_a_gain_is_quantized_again():
    layer = learned()
    assert BitLinear.from_linear(layer, beta="learned").gain is layer.gain
    assert BitLinear.from_linear(layer, beta="learned", beta_per="channel").gain.equal(torch.ones(4))
    half = nn.Linear(2, 3, dtype=torch.bfloat16, device="meta")
    half.weight.requires_grad_(False)
    gain = BitLinear.from_linear(half, beta="learned").gain
    assert gain.dtype == torch.bfloat16 and gain.is_meta and not gain.requires_grad


def test_a_layer_of_an_earlier_version_is_unpickled():
    layer = BitLinear(6, 4)
    del layer._parameters["gain"]
    assert copy.deepcopy(layer).gain is None


def test_from_pretrained_does_not_lose_a_learned_beta_in_silence(tmp_path):
    model = model_of().eval()
    assert recorded_precisions(model)  # nothing is lost yet
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    loaded = full()  # as from_pretrained makes it where our quantizer is not imported
    loaded.config = config
    with pytest.raises(BadInput, match=r"'vit.*' is learned, and from_pretrained .*; keep .* state_dict\(\)"):
        recorded_precisions(loaded)
    recorded = record_of(loaded)["layers"]  # the next step that the message names
    quantize_(loaded, {name: LayerSpec(**fields) for name, fields in recorded.items()})
    assert not logits(loaded.eval(), pixels()).allclose(logits(model, pixels()), atol=1e-4)
    loaded.load_state_dict(model.state_dict())
    same(model, loaded, tolerance=1e-6)  # its attention is torch's own
