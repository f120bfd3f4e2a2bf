"""IntegerLinear against BitLinear's evaluation, bit for bit; int32 sums against int64 arithmetic."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import ViTForImageClassification

from ablate import BitLinear, LayerSpec, quantize_
from ablate.config.precisions import TOP
from ablate.errors import BadInput
from ablate.quantization.integer_linear import IntegerLinear, as_integers
from ablate.quantization.quantizers import quantize_weights

WEIGHTS = ("binary", "ternary", "int4", "int8")


def integer(layer):
    levels, beta = quantize_weights(layer.weight.detach(), layer.spec)
    return IntegerLinear(levels.to(torch.int8), beta.flatten(), layer.bias, layer.spec)


@pytest.fixture(autouse=True, params=["integers", "floats"])
def arithmetic(request, monkeypatch):
    """Each test with integer products and with float32 ones, whichever is faster here."""
    monkeypatch.setattr("ablate.quantization.integer_linear.int8_is_slow", lambda: request.param == "floats")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_field_gives_the_evaluation_forward(weights):
    fields = itertools.product((None, *range(1, 9)), ("token", "tensor"), (True, False), (True, False))
    for bits, scale, signed, norm in fields:
        if bits == 1 and not signed:
            continue
        spec = LayerSpec(
            weights=weights, activation_bits=bits, activation_scale=scale, signed=signed, norm=norm
        )
        layer = BitLinear(40, 24, **spec.model_dump()).eval()
        x = torch.randn(2, 5, 40)
        x[0, 0] = 0
        assert integer(layer)(x).equal(layer(x)), spec


@pytest.mark.parametrize("weights", ["binary", "ternary"])
@pytest.mark.parametrize("beta", ["absmean", "least_squares", 8.0])
@pytest.mark.parametrize("fields", [{}, {"signed": False, "activation_bits": 3}, {"activation_bits": None}])
def test_a_beta_per_channel_gives_the_evaluation_forward(weights, beta, fields):
    layer = BitLinear(40, 24, weights=weights, beta=beta, beta_per="channel", **fields).eval()
    layer.weight.data *= torch.logspace(-2, 2, 24)[:, None]
    x = torch.randn(2, 5, 40)
    assert len(integer(layer).beta) == 24 and integer(layer)(x).equal(layer(x))


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 7), (3, 7), (2, 1, 7), (0, 7)])
def test_odd_shapes(shape):
    layer = BitLinear(shape[-1], 10, bias=False, weights="int8", signed=False).eval()
    x = torch.randn(shape)
    assert integer(layer)(x).equal(layer(x)) and integer(layer)(x).shape == (*shape[:-1], 10)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_sums_are_exact_at_large_in_features(weights):
    n, top = 20_000, TOP[weights]
    levels = torch.randint(-top, top + 1, (3, n), dtype=torch.int8)
    levels[0] = top  # the largest sum there is
    if weights == "binary":
        levels = torch.where(levels > 0, 1, -1).to(torch.int8)
    x = torch.randint(-127, 128, (5, n), dtype=torch.int8)
    x[0] = 127
    layer = IntegerLinear(levels, torch.ones(1), None, LayerSpec(weights=weights))
    assert layer._product(x.float()).long().equal(x.long() @ levels.long().T)


def test_evaluation_and_packed_round_large_sums_alike():
    layer = BitLinear(20_000, 3, weights="int8").eval()
    nn.init.uniform_(layer.weight, 0.5, 1)  # sums of about 2^27, which float32 does not hold
    x = torch.rand(2, 20_000) + 0.5
    assert integer(layer)(x).equal(layer(x))


def test_bfloat16_autocast_leaves_the_integers_alone():
    layer = BitLinear(16, 8, norm=True).eval()
    x = torch.randn(3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert integer(layer)(x).equal(layer(x))


@pytest.mark.long
def test_a_cpu_without_int8_instructions_gives_the_right_answer():
    """oneDNN held to AVX2 multiplies in saturating int16 pairs; the tests above must hold there too."""
    select = "sums or odd or every_field"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", select, __file__]
    done = subprocess.run(
        command, env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_sum_that_could_leave_int32_is_refused():
    with pytest.raises(BadInput, match=r"below 2\^31"):
        IntegerLinear(
            torch.ones(1, 140_000, dtype=torch.int8), torch.ones(1), None, LayerSpec(weights="int8")
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", [(1, 7), (3, 17, 40)])
def test_cuda_multiplies_the_same_integers(weights, shape):
    layer = BitLinear(shape[-1], 10, weights=weights, signed=False).eval()
    x = torch.randn(shape)
    assert torch.allclose(integer(layer).cuda()(x.cuda()).cpu(), layer(x), rtol=1e-5)


def test_a_model_as_integers_gives_the_same_numbers_and_comes_back(tiny_vit):
    model = ViTForImageClassification.from_pretrained(tiny_vit).eval()
    quantize_(
        model,
        {
            "vit.layers.0.*": LayerSpec(weights="binary"),
            "vit.layers.1.*": LayerSpec(weights="ternary", signed=False),
        },
    )
    before, pixels = [type(module) for module in model.modules()], torch.randn(3, 3, 32, 32)
    expected = model(pixels).logits
    with torch.inference_mode(), as_integers(model):
        assert sum(isinstance(module, IntegerLinear) for module in model.modules()) == 12
        assert model(pixels).logits.equal(expected)
    assert [type(module) for module in model.modules()] == before
    with pytest.raises(KeyboardInterrupt), as_integers(model):
        raise KeyboardInterrupt
    assert [type(module) for module in model.modules()] == before


def test_a_model_in_double_precision_stays_so():
    model = nn.Sequential(BitLinear(8, 4)).double().eval()
    with as_integers(model):
        assert isinstance(model[0], BitLinear)
