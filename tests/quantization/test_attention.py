"""Attention products of b-bit integers: the arithmetic, and what keeps it through files and other code."""

import copy
import json
import pickle
import warnings
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, build
from pydantic import ValidationError
from torch import Tensor
from transformers import ViTForImageClassification

from ablate import BadInput, LayerSpec, Recipe, load_packed, pack, quantize_, recorded_precisions, run_trial
from ablate.config.canonical import asked
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.engine.plan import plan
from ablate.formatting import describe_layers
from ablate.integrations.transformers import AblateConfig
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.profiling.macs import bitops, count, macs
from ablate.quantization.attention import attention, attention_bits, quantized_product
from ablate.quantization.fused_blocks import FusedBlock
from ablate.quantization.onnx_export import to_onnx
from ablate.quantization.packed_size import packed_bytes
from ablate.training.trial import build as build_trial
from ablate.training.trial import teacher_spec, trial_id


def integers(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A row's levels as int64 and its scale, by figure 4 of the paper."""
    q_b = 2 ** (bits - 1)
    scale = x.abs().amax(-1, keepdim=True) / q_b
    return (x / scale).round().clamp(1 - q_b, q_b - 1).long(), scale


def product_of_integers(a: Tensor, b: Tensor, bits: int) -> Tensor:
    (rows, scale), (columns, other) = integers(a, bits), integers(b.mT, bits)
    return (rows @ columns.mT) * scale * other.mT


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bits: int) -> Tensor:
    scores = product_of_integers(q, k.mT, bits) * q.shape[-1] ** -0.5 + mask
    return product_of_integers(scores.softmax(-1), v, bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("training", [False, True])
def test_a_masked_attention_is_a_product_of_integers(bits: int, training: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 17, 8) * torch.rand(2, 3, 17, 1) for _ in range(3))
    mask = torch.zeros(17, 17).masked_fill(torch.rand(17, 17) < 0.2, -torch.inf).fill_diagonal_(0)
    expected = reference(q, k, v, mask, bits)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return quantized_product(a, b, bits, training)

    torch.testing.assert_close(attention(product, q, k, v, mask), expected, atol=1e-5, rtol=1e-5)
    out = attention(product, q, k, v, mask == 0)  # a mask of booleans
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    plain = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attention(torch.matmul, q, k, v, mask), plain, atol=1e-5, rtol=1e-5)
    error = (expected - plain).norm() / plain.norm()
    assert error < {2: 1.5, 4: 0.3, 8: 0.02}[bits]


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_row_that_may_attend_to_nothing_is_zero_as_in_torch(kind: torch.dtype) -> None:
    q, k, v = (torch.randn(1, 2, 5, 8, requires_grad=True) for _ in range(3))
    allowed = torch.ones(5, 5, dtype=torch.bool)
    allowed[2] = False
    mask = allowed if kind == torch.bool else torch.zeros(5, 5).masked_fill(~allowed, -torch.inf)
    plain = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attention(torch.matmul, q, k, v, mask), plain)
    out = attention(lambda a, b: quantized_product(a, b, 8, training=True), q, k, v, mask)
    assert not out[..., 2, :].any()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


def test_gradients_go_straight_through() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(2, 3, 5, 7, requires_grad=True), torch.randn(2, 3, 7, 4, requires_grad=True))
    ones = torch.ones(2, 3, 5, 4)
    (levels, scale), (others, other) = integers(a, 4), integers(b.mT, 4)
    wanted = ones @ (others * other), (levels * scale).mT @ ones  # those of the product of rounded values
    for training in (True, False):
        got = torch.autograd.grad(quantized_product(a, b, 4, training).sum(), (a, b))
        torch.testing.assert_close(got, wanted)


def test_sums_beyond_float32_are_exact_and_zeros_stay() -> None:
    a, b = torch.ones(1, 1, 2, 4000), torch.ones(1, 1, 4000, 2)
    b[..., 0] *= -1
    a[..., 1, :] = 0
    out = quantized_product(a, b, 8)
    n = 4000 * 127 * 127 / 128**2
    assert torch.equal(out, torch.tensor([[[[-n, n], [0.0, 0.0]]]]))
    assert quantized_product(a.bfloat16(), b.bfloat16(), 8).dtype == torch.bfloat16
    a.requires_grad_()
    (grad,) = torch.autograd.grad(quantized_product(a, b, 8, training=True).sum(), a)
    assert grad.isfinite().all()


def quantized(family: str, bits: int | None = 8) -> torch.nn.Module:
    model = build(family)
    quantize_(model, {"*": LayerSpec(weights="ternary")}, attention_bits=bits)
    return model


# One of each way to attend: an interface of transformers, its own matmul, torch's, torchvision's, timm's.
WAYS = ["ViT", "SwinV2", "torchvision's ViT", "torchvision's Swin", "timm's Swin", "timm's EVA-02"]


@pytest.mark.parametrize("family", WAYS)
def test_every_way_to_attend_is_quantized_trained_and_packed(family: str, tmp_path) -> None:
    model, size = quantized(family), FAMILIES[family][1]
    pixels = torch.randn(2, 3, size, size)
    out = logits(model, pixels).detach()
    assert attention_bits(model) == 8 and not torch.equal(out, logits(quantized(family, None), pixels))
    torch.testing.assert_close(out, logits(quantized(family, None), pixels), atol=0.3, rtol=0.1)
    model.train()
    logits(model, pixels).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.ndim > 1)
    model.eval()
    if family.startswith("torchvision"):
        with pytest.warns(UserWarning, match="skeleton"):
            pack(model, tmp_path)
        loaded = load_packed(tmp_path, skeleton=build(family))
    else:
        pack(model, tmp_path)
        loaded = load_packed(tmp_path)
    assert attention_bits(loaded) == 8
    torch.testing.assert_close(logits(loaded, pixels), out, atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_a_quantized_attention_is_used_as_others_are() -> None:
    model, pixels = quantized("ViT"), torch.randn(2, 3, 32, 32)
    out = logits(model, pixels)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, pixels), out) and attention_bits(copied.vit.layers[0].attention) == 8
    assert torch.equal(logits(pickle.loads(pickle.dumps(model)), pixels), out)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(model, pixels).float(), out, atol=0.1, rtol=0.1)
    compiled = torch.compile(copied, backend="eager", fullgraph=True)
    torch.testing.assert_close(logits(compiled, pixels), out)
    grads = [gradient(model.train(), pixels), gradient(copied.train(), pixels, compiled)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of its name
        model.gradient_checkpointing_enable()
    grads.append(gradient(model, pixels))
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0])


def test_a_replica_on_another_gpu_calls_its_own_layers() -> None:
    attention = quantized("ViT").vit.layers[0].attention
    tokens = torch.randn(2, 17, 32)
    replica = attention._replicate_for_data_parallel()  # as nn.DataParallel calls it, which needs GPUs
    torch.testing.assert_close(replica(tokens)[0], attention(tokens)[0])
    replica._modules["v_proj"] = torch.nn.Linear(32, 32)
    assert not torch.allclose(replica(tokens)[0], attention(tokens)[0])


def gradient(model: torch.nn.Module, pixels: Tensor, called: torch.nn.Module | None = None) -> Tensor:
    model.zero_grad()
    logits(model if called is None else called, pixels).sum().backward()
    return model.vit.layers[0].attention.q_proj.weight.grad.clone()


def test_transformers_keeps_it_in_training_and_packed(tmp_path) -> None:
    model, pixels = quantized("ViT"), torch.randn(2, 3, 32, 32)
    out = logits(model, pixels)
    model.save_pretrained(tmp_path / "trained")
    pack(model, tmp_path / "packed")
    for folder in ("trained", "packed"):
        again = ViTForImageClassification.from_pretrained(tmp_path / folder).eval()
        assert attention_bits(again) == 8
        torch.testing.assert_close(logits(again, pixels), out, atol=1e-4, rtol=1e-4)
    again.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy/config.json").read_bytes() == (tmp_path / "packed/config.json").read_bytes()
    full = build("ViT")
    full.config = ViTForImageClassification.config_class.from_pretrained(tmp_path / "trained")
    with pytest.raises(BadInput, match="records quantized layers, but none of them is"):
        pack(full, tmp_path / "none")
    quantize_(full, recorded_precisions(full))
    assert attention_bits(full) == 8  # as the configuration says
    build("ViT").save_pretrained(tmp_path / "full")
    config = AblateConfig({"*": LayerSpec(weights="ternary")}, attention_bits=8)
    while_loaded = ViTForImageClassification.from_pretrained(tmp_path / "full", quantization_config=config)
    torch.testing.assert_close(logits(while_loaded.eval(), pixels), out)


def test_a_model_that_is_quantized_in_part_is_refused(tmp_path) -> None:
    model = quantized("ViT", None)
    quantize_(model.vit.layers[0], {}, attention_bits=4)
    assert attention_bits(model.vit.layers[0]) == 4 and attention_bits(model.vit.layers[1]) is None
    ternary = {"vit.layers.*": LayerSpec(weights="ternary")}
    for use in (
        lambda: pack(model, tmp_path),
        lambda: count(model, (32, 32)),
        lambda: quantize_(model, ternary),
    ):
        with pytest.raises(
            BadInput, match=r"of all attention .* 4 in 'vit.layers.0.attention', none in .*1.att"
        ):
            use()
    quantize_(model, {}, attention_bits=8)
    pixels = torch.randn(2, 3, 32, 32)
    pack(model, tmp_path)
    assert torch.equal(logits(load_packed(tmp_path), pixels), logits(model, pixels))


def test_packed_sizes_bit_operations_and_fused_blocks_know_it(tmp_path) -> None:
    full, model = build("ViT"), quantized("ViT")
    counted = macs(full, (32, 32))
    assert (
        counted.attention == 2 * 2 * 2 * 17 * 17 * 16 and not counted.other_products
    )  # blocks, products, heads
    specs = {name: layer.spec for name, layer in model.named_modules() if hasattr(layer, "spec")}
    assert count(model, (32, 32)).bitops == bitops(counted, specs, 8)
    assert bitops(counted, specs) - bitops(counted, specs, 8) == counted.attention * (32 * 32 - 8 * 8)
    assert pack(model, tmp_path) == packed_bytes(full, specs, attention=8) == packed_bytes(model, specs)
    assert pack(quantized("ViT", None), tmp_path / "plain") == packed_bytes(full, specs)
    assert "attention_bits" not in (tmp_path / "plain/config.json").read_text()
    loaded = load_packed(tmp_path, exact=False)
    assert not any(isinstance(module, FusedBlock) for module in loaded.modules())
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(logits(loaded, pixels), logits(model, pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "bits", "match"),
    [
        ("ViT", 1, "2 <= attention_bits <= 8 must hold, but got 1"),
        ("ViT", 9, "2 <= attention_bits <= 8 must hold, but got 9"),
        ("ViT", "8", "2 <= attention_bits <= 8 must hold, but got '8'"),
        ("ConvNeXt", 8, "needs a model with attention, but ConvNextForImageClassification has none"),
        ("CvT", 8, "multiplies by matmul or scaled_dot_product_attention, but CvtAttention does not"),
    ],
)
def test_what_cannot_be_quantized_is_refused(family: str, bits: Any, match: str) -> None:
    model = build(family)
    with pytest.raises(BadInput, match=match):
        quantize_(model, {"*": LayerSpec(weights="binary")}, attention_bits=bits)
        logits(model, torch.randn(1, 3, *2 * [FAMILIES[family][1]]))
    assert family == "CvT" or not any(hasattr(module, "spec") for module in model.modules())


def test_attention_that_reads_its_weights_and_causal_attention_are_refused() -> None:
    fused = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.MultiheadAttention(4, 2, add_zero_attn=True))
    with pytest.raises(BadInput, match="that calls its layers, but MultiheadAttention reads their weights"):
        quantize_(fused, {}, attention_bits=8)
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(BadInput, match="neither causal nor grouped"):
        attention(torch.matmul, q, q, q, is_causal=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"recipe": {"attention_bits": 1}}, "greater than or equal to 2"),
        ({"recipe": {"attention_bits": 8}, "objectives": ["accuracy", "latency_ms"]}, "does not change with"),
        (
            {"space": {"recipe": {"attention_bits": ["none", 8]}}, "max_latency_ms": 3.0},
            "does not change with",
        ),
    ],
)
def test_a_study_that_does_not_fit_is_refused(change: dict, match: str) -> None:
    study = load_study("default").model_dump()
    for key, value in change.items():
        study[key] = study[key] | value if isinstance(value, dict) else value
    with pytest.raises(ValidationError, match=match):
        StudySpec(**study)
    plain = {**load_study("default").model_dump(), "objectives": ["accuracy", "latency_ms"]}
    plain["space"]["recipe"] = {"attention_bits": "none"}
    assert StudySpec(**plain).timed
    with pytest.raises(BadInput, match=r"attention_bits needs attention .* 'resnet18:random' has none"):
        plan(
            load_study("default").model_copy(
                update={"model": "resnet18:random", "recipe": Recipe(attention_bits=8)}
            )
        )


@pytest.mark.long
def test_onnxruntime_multiplies_integers(tmp_path) -> None:
    model = build("ViT")
    quantize_(model, {"vit.layers.0.*": LayerSpec(weights="binary")}, attention_bits=8)
    size = (32, 32)
    pack(model, tmp_path, preprocess=Preprocess(size, size, "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3))
    to_onnx(tmp_path, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options, ["CPUExecutionProvider"])
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
    with torch.no_grad():
        ours = logits(load_packed(tmp_path), pixels)
    assert (theirs - ours).norm() < 0.02 * ours.norm()
    operators = [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node]
    assert operators.count("MatMulIntegerToFloat") == 6 + 2 * 2  # layers of a block, products of both blocks


@pytest.mark.long
def test_a_trial_trains_and_packs_it() -> None:
    layers = {"block0.fc1": LayerSpec(weights="binary")}
    recipe = Recipe(image_views=64, batch_size=32, attention_bits=8)
    spec = TrialSpec(data="cifar10-1k", layers=layers, fraction=0.1, recipe=recipe)
    record = run_trial(spec)
    assert record["status"] == "complete", record["error"]
    plain = spec.model_copy(update={"recipe": recipe.model_copy(update={"attention_bits": None})})
    assert trial_id(plain) != record["trial_id"] == trial_id(spec)
    assert "attention_bits" not in json.dumps(asked(plain, exclude=set()))  # as before there was such a field
    assert teacher_spec(spec).recipe.attention_bits is None
    assert describe_layers(record["spec"]) == "1 binary; activations 8 bit; attention products 8 bit"
    model = build_trial(spec, datasets.CIFAR10)
    assert attention_bits(model) == 8 and record["bitops"] == count(model, (32, 32)).bitops
