"""The fused blocks against the packed model's own, which compute what evaluation does."""

import copy
import json
import warnings

import families
import pytest
import torch
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

from ablate import LayerSpec, calibrate_, hardware, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.quantization import fused_model, fused_passes, fused_products
from ablate.quantization.fused_blocks import FusedBlock, is_fusible
from ablate.quantization.fused_choices import choice_key, choices_file, keep_choice, kept_choice
from ablate.quantization.fused_model import fuse_
from ablate.quantization.quantizers import quantize_activations

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def packed_vit(folder, layers, **config):
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**SMALL, intermediate_size=64, **config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    quantize_(model, layers)
    calibrate_(model, PIXELS)
    pack(model, folder)
    return load_packed(folder)


def near(one, other):
    return (one - other).norm() <= 0.02 * other.norm()


@pytest.mark.parametrize(
    "layers",
    [
        {"vit.layers.*": LayerSpec(weights="binary")},
        {"vit.layers.*": LayerSpec(weights="ternary", activation_bits=4, norm=True, beta_per="channel")},
        {"vit.layers.*": LayerSpec(weights="int8", activation_bits=None)},
        {"*attention*": LayerSpec(weights="int4"), "*fc2": LayerSpec(weights="binary", activation_bits=2)},
    ],
    ids=["binary", "ternary", "floats", "mixed"],
)
def test_fused_blocks_compute_the_same_but_for_bfloat16(layers, tmp_path, monkeypatch):
    model = packed_vit(tmp_path, layers)
    block, x = model.vit.layers[0], torch.randn(3, 17, 32)
    assert is_fusible(block)
    with torch.inference_mode():
        expected = block(x) - x
        assert (FusedBlock(block, "eager")(x) - x - expected).norm() <= 0.2 * expected.norm()
        monkeypatch.setattr(fused_products, "native_bf16", lambda: False)
        torch.testing.assert_close(FusedBlock(block, "eager")(x) - x, expected, atol=1e-4, rtol=1e-4)
        monkeypatch.setattr(fused_products, "int8_is_slow", lambda: True)  # products in floats
        torch.testing.assert_close(FusedBlock(block, "eager")(x) - x, expected, atol=1e-4, rtol=1e-4)


def test_dinov2_has_factors_after_its_branches(tmp_path):
    torch.manual_seed(0)
    model = Dinov2ForImageClassification(Dinov2Config(**SMALL, mlp_ratio=2)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    quantize_(model, {"*attention*": LayerSpec(weights="binary"), "*mlp*": LayerSpec(weights="binary")})
    pack(model, tmp_path)
    model = load_packed(tmp_path)
    exact = load_packed(tmp_path)
    assert fuse_(model, always=True, compiles=False) == 2
    with torch.inference_mode():
        assert near(logits(model, PIXELS), logits(exact, PIXELS))


def test_levels_are_those_of_the_quantizer():
    x = torch.randn(50, 96) * torch.logspace(-3, 3, 50)[:, None]
    x[3] = 0
    for bits in range(2, 9):
        expected, scale, _ = quantize_activations(x, bits)
        levels, gamma = fused_passes.prepared(x, None, fused_passes.Input(bits, False, False, torch.uint8))
        assert torch.equal(levels.float() - fused_passes.ZERO, expected) and torch.equal(gamma, scale)


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_static_scale_is_part_of_the_product(bits, act, tmp_path, monkeypatch):
    spec = LayerSpec(weights="binary", activation_bits=bits, activation_scale="static")
    model = packed_vit(tmp_path, {"vit.layers.*": spec}, hidden_act=act)
    block, x = model.vit.layers[0], torch.randn(3, 17, 32)
    monkeypatch.setattr(fused_products, "native_bf16", lambda: False)
    with torch.inference_mode():
        expected = block(x) - x
        for slow in (False, True):
            monkeypatch.setattr(fused_products, "int8_is_slow", lambda slow=slow: slow)
            fused = FusedBlock(block, "eager")
            assert fused.in_product == (act == "gelu" and bits == 8 and not slow)
            # a level may be rounded the other way where the sums before it differ in their last bits
            assert (fused(x) - x - expected).norm() <= 0.01 * expected.norm()


def test_static_scales_of_q_k_and_v_that_have_parted_are_near_enough_at_8_bits(tmp_path):
    spec = LayerSpec(weights="binary", activation_scale="static")
    model = packed_vit(tmp_path, {"vit.layers.*": spec})
    for layer in model.vit.layers:
        layer.attention.k_proj.static[0] *= 1.1
    exact = logits(model, PIXELS)
    assert fuse_(model, always=True, compiles=False) == 2
    with torch.inference_mode():
        assert near(logits(model, PIXELS), exact)


def test_gelu_is_near_the_exact_one():
    x = torch.linspace(-8, 8, 10_001)
    torch.testing.assert_close(fused_passes.gelu(x), torch.nn.functional.gelu(x), atol=3e-6, rtol=0)


@pytest.mark.parametrize(
    "change", [{"activation_scale": "tensor"}, {"signed": False}, {"activation_bits": 1}]
)
def test_other_scales_stay_as_they_are(change, tmp_path):
    model = packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary", **change)})
    assert fuse_(model, always=True, compiles=False) == 0
    with torch.inference_mode():
        assert torch.equal(logits(model, PIXELS), logits(load_packed(tmp_path), PIXELS))


def test_a_block_that_computes_something_else_stays(tmp_path):
    model = packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary")})
    plain = model.vit.layers[1].forward
    model.vit.layers[1].forward = lambda *args, **kwargs: 2 * plain(*args, **kwargs)
    assert fuse_(model, always=True, compiles=False) == 1 + 6  # a block, and the other's layers
    assert [isinstance(block, FusedBlock) for block in model.vit.layers] == [True, False]


def test_what_it_is_not_for_is_refused(tmp_path):
    model = packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary")})
    fuse_(model, always=True, compiles=False)
    with pytest.raises(BadInput, match="without masks and gradients"):
        model(PIXELS.clone().requires_grad_())
    with pytest.raises(BadInput, match="on the CPU, in float32, but got"):
        model.bfloat16()
    with pytest.raises(BadInput, match="cannot be copied; load it again"):
        copy.deepcopy(model)
    model.float().to("cpu")


def measured(monkeypatch, faster):
    """Count the measurements, each of which is answered alike."""
    counted = []
    answer = lambda *_: counted.append(1) or faster  # noqa: E731
    monkeypatch.setattr(fused_model, "_is_faster", answer)
    return counted


@pytest.mark.parametrize("faster", [True, False])
def test_the_fastest_way_is_measured_once_a_machine(faster, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary")})
    counted = measured(monkeypatch, faster)
    kinds, replaced = (1, 2) if faster else (1 + 3, 0)  # of a block, and of its layers
    for _ in range(2):
        assert fuse_(load_packed(tmp_path), compiles=False) == replaced and len(counted) == kinds
    choices_file().write_text("[")  # damaged: measured again
    assert fuse_(load_packed(tmp_path), compiles=False) == replaced and len(counted) == 2 * kinds
    torch.set_num_threads(before + 1 if (before := torch.get_num_threads()) < 3 else before - 1)
    fuse_(load_packed(tmp_path), compiles=False)  # with as many threads it has not been measured
    torch.set_num_threads(before)
    assert len(counted) == 3 * kinds and len(json.loads(choices_file().read_text())) == 2 * kinds


def test_without_a_cache_it_is_measured_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary")})
    counted = measured(monkeypatch, faster=True)
    assert [fuse_(load_packed(tmp_path), compiles=False) for _ in range(2)] == [2, 2] and len(counted) == 2


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"[]", b'{"key": 3}'])
def test_a_damaged_file_of_choices_is_replaced(content, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    choices_file().write_bytes(content)
    assert kept_choice("key") is None
    keep_choice("key", "eager")
    assert kept_choice("key") == "eager"


def test_choices_need_no_cache_folder(monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", "~nobody-of-this-name/cache")
    keep_choice("key", "eager")
    assert kept_choice("key") is None


def test_a_choice_is_of_a_cpu_whatever_gpu_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "cpuinfo")
    keys = set()
    for name in ("one", "other"):
        (tmp_path / "cpuinfo").write_text(f"model name : {name}")
        keys.add(choice_key("kind"))
    assert len(keys) == 2


@pytest.mark.slow
def test_load_packed_takes_the_fast_way(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    exact = packed_vit(tmp_path, {"vit.layers.*": LayerSpec(weights="binary")})
    fast = load_packed(tmp_path, exact=False)
    with torch.inference_mode():
        for n in (1, 3, 2):
            assert near(logits(fast, PIXELS[:n]), logits(exact, PIXELS[:n]))


@pytest.mark.parametrize(
    "family", [name for name in families.FAMILIES if name not in ("DiNAT", "SigLIP 2, NaFlex")]
)
def test_every_family_computes_nearly_the_same(family, tmp_path):
    """Blocks that only look like those of a ViT stay, and their layers are fused one by one."""
    model, pixels = families.quantized(family), families.pixels(family)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "load_packed will need a skeleton")
        pack(model, tmp_path)
    exact, fused = (load_packed(tmp_path, skeleton=families.build(family)) for _ in range(2))
    assert fuse_(fused, always=True, compiles=False) > 0
    with torch.inference_mode():
        assert near(logits(fused, pixels), logits(exact, pixels))
