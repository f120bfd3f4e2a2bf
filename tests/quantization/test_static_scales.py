"""Static activation scales: calibration, the gradient of LSQ, evaluation, and what is stored."""

import itertools
import pickle

import pytest
import torch
from torch import nn
from use_table import full, layers, pixels, same

from ablate import BitLinear, LayerSpec, calibrate_, load_packed, pack, quantize_, recorded_precisions
from ablate.bitlinear import quantize_activations
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.profiling import macs
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.packed_size import packed_bytes

BITS_AND_SIGNS = [(bits, signed) for bits in range(1, 9) for signed in (True, False) if signed or bits > 1]


def calibrated(x, **fields):
    layer = BitLinear(x.shape[-1], 4, **{"activation_scale": "static", **fields})
    layer.static.calibrating = True
    layer.eval()(x)
    return layer


def model_of(**fields):
    torch.manual_seed(0)
    model = full()
    quantize_(model, {"*attention*": LayerSpec(weights="ternary", activation_scale="static", **fields)})
    assert calibrate_(model, pixels(8)) == len(layers(model))
    for layer in layers(model):
        nn.init.uniform_(layer.static.gain, 0.5, 2.0)
    return model


@pytest.mark.parametrize("bits, signed", BITS_AND_SIGNS)
def test_the_largest_value_gives_the_levels_of_the_tensor_s_scale(bits, signed):
    x = torch.randn(3, 5, 6)
    layer = calibrated(x, calibration="max", activation_bits=bits, signed=signed)
    static, of_tensor = (quantize_activations(x, bits, signed, per) for per in (layer.static(), "tensor"))
    for value, expected in zip(static, of_tensor, strict=True):
        torch.testing.assert_close(value, expected.reshape(value.shape))
    plain = BitLinear.from_linear(layer, activation_scale="tensor", activation_bits=bits, signed=signed)
    torch.testing.assert_close(layer(x), plain.eval()(x))


def test_the_nearest_range_has_less_error_than_the_others_and_a_few_outliers_hardly_move_a_percentile():
    x = torch.randn(200, 50)
    x[0, 0] = 100.0
    errors, ranges = {}, {}
    for rule in ("mse", "max", "percentile"):
        static = calibrated(x, calibration=rule, activation_bits=4).static
        levels, scale, _ = quantize_activations(x, 4, True, static())
        errors[rule], ranges[rule] = (levels * scale - x).square().mean().item(), static.gamma.item()
    assert errors["mse"] == min(errors.values()) < errors["max"]
    assert ranges["max"] == 100.0 and ranges["percentile"] == pytest.approx(3.3, abs=0.4)


@pytest.mark.parametrize("bits, signed", BITS_AND_SIGNS)
def test_the_gradients_are_those_of_lsq(bits, signed):
    x = torch.randn(7, 6).requires_grad_()
    layer = calibrated(x, calibration="percentile", activation_bits=bits, signed=signed).train()
    nn.init.constant_(layer.static.gain, 0.6)  # so that some values lie beyond the levels
    upstream = torch.randn(7, 4)
    (layer(x) * upstream).sum().backward()
    q_b = 1 if bits == 1 else 2 ** (bits - 1)
    low, high = (-(q_b - 1) if signed else 0), q_b - 1
    scale, offset = (value.detach() for value in layer.static())
    v = (x.detach() - offset) / scale
    slope = torch.where((v >= low) & (v <= high), v.round() - v, v.clamp(low, high))  # LSQ eq. 3
    if bits == 1:
        slope = torch.where(x > 0, 1.0, -1.0)
    weight = layer._quantized_weight().detach()
    of_scale = ((upstream @ weight) * slope).sum() / (6 * q_b) ** 0.5  # section 2.2
    torch.testing.assert_close(layer.static.gain.grad, (of_scale * layer.static.gamma / q_b).reshape(1))
    torch.testing.assert_close(x.grad, upstream @ weight)


@pytest.mark.parametrize("bits, signed", BITS_AND_SIGNS)
@pytest.mark.parametrize("weights", ["binary", "ternary", "int8"])
def test_integers_compute_what_evaluation_does_and_images_do_not_depend_on_each_other(bits, signed, weights):
    x = torch.randn(3, 5, 40)
    layer = calibrated(x, weights=weights, activation_bits=bits, signed=signed, norm=True)
    model = nn.Sequential(layer)
    expected = model(x)
    with as_integers(model):
        assert model(x).equal(expected)
    torch.testing.assert_close(model(x[1]), expected[1])
    assert layer.train()(x).isfinite().all()


def test_a_scale_that_is_not_calibrated_is_refused_wherever_it_is_used(tmp_path):
    model = full()
    quantize_(model, {"*fc1": LayerSpec(weights="binary", activation_scale="static")})
    for use in (logits, lambda model, images: pack(model, tmp_path / "packed")):
        with pytest.raises(BadInput, match=r"must be calibrated .* call ablate.calibrate_"):
            use(model, pixels(1))
    assert not (tmp_path / "packed").exists()
    assert macs.count(model, (32, 32)).bitops > 0  # counting needs no values
    again = pickle.loads(pickle.dumps(model))
    calibrate_(again, pixels(4))
    assert logits(again, pixels(1)).isfinite().all()
    model.load_state_dict(again.state_dict())  # its calibration included
    assert logits(model.eval(), pixels(1)).equal(logits(again.eval(), pixels(1)))


@pytest.mark.parametrize(
    "images, message",
    [
        (None, "images must be a tensor of floats .* but got None"),
        (pixels(0), r"with N > 0, .* but got torch.float32, \(0, 3, 32, 32\)"),
        (pixels(2).byte(), "images must be a tensor of floats .* but got torch.uint8"),
        (pixels(2) * torch.nan, "images must be finite"),
        (pixels(2)[..., :2, :2], "Kernel size can't be greater"),  # what the model itself says
    ],
)
def test_images_that_cannot_calibrate_are_refused_and_change_nothing(images, message):
    model = model_of()
    before = logits(model.eval(), pixels(2))
    with pytest.raises((BadInput, RuntimeError), match=message):
        calibrate_(model, images)
    assert logits(model, 3 * pixels(2)).isfinite().all()  # and calibrates nothing
    assert logits(model, pixels(2)).equal(before)


def test_the_first_batch_of_a_training_calibrates_it():
    model, images = full(), pixels(4)
    quantize_(model, {"*attention*": LayerSpec(weights="ternary", activation_scale="static")})
    logits(model.train(), images)
    ranges = [layer.static.gamma.clone() for layer in layers(model)]
    logits(model, 2 * images)
    assert [layer.static.gamma for layer in layers(model)] == ranges  # and no later one
    assert logits(model.eval(), images).isfinite().all()


@pytest.mark.parametrize("fields", [{}, {"signed": False, "activation_bits": 4}, {"activation_bits": 1}])
def test_what_has_been_learned_is_packed_and_its_bytes_are_counted(fields, tmp_path):
    model = model_of(**fields)
    specs = {name: layer.spec for name, layer in model.named_modules() if isinstance(layer, BitLinear)}
    plain = full()
    assert packed_bytes(plain, specs) == packed_bytes(model, specs) == pack(model, tmp_path)
    same(load_packed(tmp_path), model)
    assert "calibration" not in (tmp_path / "config.json").read_text()


def test_a_scale_that_is_not_finite_is_not_packed(tmp_path):
    model = model_of()
    layers(model)[0].static.gamma.fill_(torch.nan)
    with pytest.raises(BadInput, match="scales must be finite"):
        pack(model, tmp_path)


def test_a_recorded_configuration_says_that_the_scales_are_lost():
    bare = full()
    bare.config = model_of().config
    with pytest.raises(BadInput, match=r"the activation scale of .* is learned"):
        recorded_precisions(bare)


@pytest.mark.parametrize("ramp, clipped", [*itertools.product((None, 0.25), (True, False))])
def test_training_moves_the_scale(ramp, clipped):
    torch.manual_seed(0)
    x, target = torch.randn(64, 6), torch.randn(64, 4)
    layer = calibrated(x, activation_bits=2, straight_through="clipped" if clipped else "plain").train()
    layer.ramp = None if ramp is None else torch.tensor(ramp)
    before = layer.static.gain.item()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and layer.static.gain.item() != before
