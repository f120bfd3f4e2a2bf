"""BitLinear against NumPy references written here from the paper's equations, on random inputs in float64."""

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ablate import BitLinear, LayerSpec
from ablate.errors import BadInput
from ablate.quantization.quantizers import binarize, quantize_activations, ternarize


def reference_weights(w, spec):
    over = {"axis": 1, "keepdims": True} if spec.beta_per == "channel" else {}
    if spec.weights == "binary":
        levels = np.where(w > w.mean(), 1.0, -1.0)
    elif spec.weights == "ternary":
        levels = np.clip(np.round(w / (np.abs(w).mean(**over) + 1e-8)), -1, 1)
    else:
        scale = np.abs(w).max(1, keepdims=True) / {"int4": 7, "int8": 127}[spec.weights]
        return np.round(w / scale), scale
    if spec.beta == "absmean":
        beta = np.abs(w).mean(**over)
    elif spec.beta == "least_squares":
        beta = (w * levels).sum(**over) / (levels**2).sum(**over)
    else:
        beta = spec.beta
    return levels, beta * spec.beta_multiplier


def reference(x, w, bias, spec):
    if spec.norm:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    levels, beta = reference_weights(w, spec)
    if spec.activation_bits is not None:
        x = reference_activations(x, spec.activation_bits, spec.signed, spec.activation_scale)
    return x @ (levels * beta).T + bias


def reference_activations(x, bits, signed, scale):
    axis = -1 if scale == "token" else None
    if bits == 1:
        return np.where(x > 0, 1.0, -1.0) * np.abs(x).mean(axis, keepdims=True)
    q_b = 2 ** (bits - 1)
    eta = 0.0 if signed else x.min(axis, keepdims=True)
    gamma = np.abs(x - eta).max(axis, keepdims=True)
    low = -(q_b - 1) if signed else 0
    return np.clip(np.round((x - eta) * q_b / gamma), low, q_b - 1) * gamma / q_b + eta


FIELDS = [
    {"weights": weights, "activation_bits": bits, "activation_scale": scale, "signed": signed, "norm": norm}
    for weights, bits, scale, signed, norm in itertools.product(
        ("binary", "ternary", "int4", "int8"),
        (None, 1, 2, 3, 4, 5, 6, 7, 8),
        ("token", "tensor"),
        (True, False),
        (True, False),
    )
    if signed or bits != 1
]
FIELDS += [
    {"weights": weights, "beta": beta, "beta_multiplier": multiplier, "beta_per": per}
    for weights, beta, multiplier, per in itertools.product(
        ("binary", "ternary"), ("absmean", "least_squares", 8.0), (0.5, 1.0, 3.0), ("tensor", "channel")
    )
]


@pytest.mark.parametrize("training", [True, False])
def test_every_field_against_the_reference(training):
    for fields in FIELDS:
        spec = LayerSpec(**fields)
        layer = BitLinear(24, 10, **fields).double().train(training)
        nn.init.normal_(layer.weight, 0.1)
        x = torch.randn(3, 5, 24, dtype=torch.float64)
        expected = reference(x.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy(), spec)
        np.testing.assert_allclose(
            layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=str(spec)
        )


def test_zero_goes_to_minus_one():
    signs, alpha, _ = binarize(torch.tensor([[-1.0, 0.0, 1.0]]))
    assert alpha == 0 and signs.tolist() == [[-1, -1, 1]]
    levels, scale, _ = quantize_activations(torch.tensor([[-3.0, 0.0, 3.0]]), 1)
    assert levels.tolist() == [[-1, -1, 1]] and scale.item() == 2


def test_least_squares_beta_is_the_best_beta():
    w = torch.randn(16, 32) + 0.3
    signs, _, best = binarize(w, "least_squares")
    trits, best_ternary = ternarize(w, "least_squares")
    for factor in (0.9, 1.1):
        assert (w - best * signs).norm() < (w - factor * best * signs).norm()
        assert (w - best_ternary * trits).norm() < (w - factor * best_ternary * trits).norm()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_integers_within_the_range(bits, signed):
    if bits == 1 and not signed:
        with pytest.raises(BadInput, match="2 <= bits when not signed"):
            quantize_activations(torch.randn(2, 3), bits, signed)
        return
    x = torch.randn(7, 33) * torch.logspace(-20, 20, 7)[:, None]
    levels, scale, offset = quantize_activations(x, bits, signed)
    top = max(1, 2 ** (bits - 1) - 1)
    assert levels.equal(levels.round()) and levels.max() <= top and levels.min() >= (-top if signed else 0)
    assert scale.shape == offset.shape == (7, 1)
    if bits == 8:
        error = (x - levels * scale - offset).abs().amax(1, keepdim=True)
        assert (error <= scale * 1.001).all()


def test_all_zero_tokens_stay_zero_and_finite():
    for bits, signed in itertools.product(range(2, 9), (True, False)):
        levels, scale, offset = quantize_activations(torch.zeros(2, 8), bits, signed)
        assert not levels.any() and not scale.any() and not offset.any()


def test_an_image_does_not_depend_on_its_batch_mates_with_token_scale():
    layer = BitLinear(16, 8).eval()
    x = torch.randn(4, 5, 16)
    alone, together = layer(x[:1]), layer(x)[:1]
    assert alone.equal(together)
    tensor_wide = BitLinear.from_linear(layer, weights="binary", activation_scale="tensor").eval()
    x[3] *= 100
    assert not torch.allclose(tensor_wide(x[:1]), tensor_wide(x)[:1])


@pytest.mark.parametrize(
    "fields", [{"weights": "binary"}, {"weights": "ternary", "signed": False}, {"weights": "int8"}]
)
def test_gradients_go_straight_through(fields):
    layer = BitLinear(6, 4, **fields).double()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    levels, beta = reference_weights(layer.weight.detach().numpy(), layer.spec)
    quantized_x = reference_activations(x.detach().numpy(), 8, layer.spec.signed, "token")
    ones = np.ones((5, 4))
    np.testing.assert_allclose(x.grad.numpy(), ones @ (levels * beta))
    np.testing.assert_allclose(layer.weight.grad.numpy(), ones.T @ quantized_x)
    np.testing.assert_allclose(layer.bias.grad.numpy(), ones.sum(0))


def test_evaluation_is_exact_where_training_is_rounded():
    """At 4,096 inputs the float32 sum of integer levels is exact: int64 arithmetic gives the same numbers."""
    layer = BitLinear(4096, 3, bias=False).eval()
    x = torch.randn(2, 4096)
    levels, scale, _ = quantize_activations(x, 8)
    signs, _, beta = binarize(layer.weight)
    exact = levels.long() @ signs.long().T
    assert layer(x).equal(exact.float() * (scale * beta))


def test_variance_law():
    """Fig. 6: Var(y) = n beta^2 E[x^2] for signs; near E[x^2] only where n beta^2 is near 1."""
    n, rows = 768, 4096
    w = torch.randn(512, n)
    x = torch.randn(rows, n)
    for beta in (n**-0.5, 8.0):
        layer = BitLinear.from_linear(nn.Linear(n, 512, bias=False), beta=beta)
        layer.weight.data.copy_(w)
        y = layer(x).detach()
        assert y.var().item() == pytest.approx(n * beta**2 * x.square().mean().item(), rel=0.05)


def test_from_linear_keeps_weight_and_bias():
    linear = nn.Linear(7, 3)
    layer = BitLinear.from_linear(linear, weights="ternary", activation_bits=None)
    assert layer.weight is linear.weight and layer.bias is linear.bias
    x = torch.randn(2, 7)
    zero = BitLinear.from_linear(nn.Linear(7, 3, bias=False), weights="binary")
    assert zero.bias is None and zero(x).shape == (2, 3)
    assert torch.allclose(layer(torch.zeros(1, 7)), linear.bias)  # the bias comes last, unscaled


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_evaluation_of_a_half_precision_model_sums_in_float32(dtype):
    layer = BitLinear(768, 8, weights="int8").eval()
    half = BitLinear.from_linear(layer, weights="int8").to(dtype)
    x = torch.randn(3, 768).to(dtype)
    y = half(x)
    assert y.dtype == dtype
    assert torch.allclose(y.float(), layer.float()(x.float()), atol=0.02)


def test_refusals():
    with pytest.raises(BadInput, match=r"use nn\.Linear"):
        BitLinear(2, 2, weights="full")
    for arguments in ((4.5,), (9,), (8, True, "channel")):
        with pytest.raises(BadInput):
            quantize_activations(torch.ones(2, 2), *arguments)
    for wrong in (
        {"activation_bits": 9},
        {"activation_bits": 1, "signed": False},
        {"beta": -1.0},
        {"beta": "max"},
        {"bits": 8},
    ):
        with pytest.raises(ValidationError):
            LayerSpec(weights="binary", **wrong)
