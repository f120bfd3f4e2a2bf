"""Progressive quantization: lambda in a layer, over the steps, and in a training."""

import pytest
import torch
from tiny_training import net, trained
from torch import nn

from ablate import BitLinear
from ablate.config.trial_spec import Recipe
from ablate.training.progressive import Ramp


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "fields", [{}, {"norm": True}, {"weights": "ternary", "activation_bits": None, "norm": True}]
)
def test_lambda_0_is_the_linear_layer_bit_for_bit(fields, bf16):
    linear = nn.Linear(24, 10)
    layer = BitLinear.from_linear(linear, **fields)
    layer.ramp = torch.tensor(0.0)
    outcomes = []
    for module in (linear, layer):
        x = torch.linspace(-3, 5, 72).reshape(3, 24).requires_grad_()
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = module(x)
        y.float().square().sum().backward()
        outcomes.append((y, x.grad, linear.weight.grad.clone(), linear.bias.grad.clone()))
    assert all(a.equal(b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("amount", [0.25, 0.75])
def test_lambda_mixes_the_layer_with_its_linear_one(amount):
    layer = BitLinear(24, 10, norm=True).double()
    x = torch.randn(5, 24, dtype=torch.float64)
    signs = torch.where(layer.weight > layer.weight.mean(), 1.0, -1.0).double()
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    gamma = normed.abs().amax(1, keepdim=True)
    quant = (normed * 128 / gamma).round().clamp(-127, 127) * gamma / 128
    mixed_x, mixed_w = (
        x + amount * (quant - x),
        layer.weight + amount * (layer.weight.abs().mean() * signs - layer.weight),
    )
    layer.ramp = torch.tensor(amount)
    assert torch.allclose(layer(x), mixed_x @ mixed_w.T + layer.bias)
    ramped = layer.eval()(x)
    layer.ramp = None
    assert ramped.equal(layer(x))  # evaluation is exact


def lambdas(steps=100, **recipe):
    model = net()
    ramp = Ramp(model, Recipe(**recipe), steps)
    rows = []
    for step in range(steps):
        ramp.at(step)
        rows.append([1.0 if model[i].ramp is None else model[i].ramp.item() for i in (1, 3)])
    return rows


def test_lambda_grows_over_its_share_of_the_steps():
    together = lambdas(progressive="linear", progressive_share=0.4)
    assert [together[s] for s in (0, 10, 20, 39, 40, 99)] == [
        pytest.approx([v, v], rel=1e-6) for v in (0, 0.25, 0.5, 0.975, 1, 1)
    ]
    by_depth = lambdas(progressive="linear", progressive_share=0.4, progressive_order="depth")
    assert [by_depth[s] for s in (0, 10, 20, 30, 40)] == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    logistic = [row[0] for row in lambdas(progressive="sigmoid", progressive_share=1)]
    assert (
        logistic[0] == 0
        and logistic[50] == pytest.approx(0.5)
        and logistic[10] < 0.01
        and logistic[90] > 0.99
    )
    assert logistic == sorted(logistic) and lambdas(progressive="none") == [[1, 1]] * 100


def test_training_begins_with_the_full_model_and_ends_with_the_quantized_one():
    options = {"epochs": 1, "batch_size": 60}
    full, quantized, progressive = (
        trained(model, progressive=shape, **options)
        for model, shape in ((net("full"), None), (net(), None), (net(), "linear"))
    )
    assert progressive[0][0].train_loss == full[0][0].train_loss != quantized[0][0].train_loss
    assert progressive[1][1].ramp is None
    assert trained(progressive="linear", progressive_share=0.5)[0][-1].loss != trained()[0][-1].loss
