"""What users do with an nn.Module by torch alone."""

import copy
import io
import pickle
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, prune
from use_table import is_packed, layers, make, pixels, same, step, use

from ablate import load_packed, pack
from ablate.models.loading import logits

UNTRAINED = "the packed layer has no weights to train"
EXACT = "the same numbers"


@use("training", UNTRAINED)
def training(model: Any, folder: Path) -> None:
    step(model)


@use("gradients in evaluation", "straight through, as in training")
def gradients_in_evaluation(model: Any, folder: Path) -> None:
    """They are those of training: rounding has none."""
    x = pixels().requires_grad_()
    logits(model.eval(), x).square().sum().backward()
    found, reference, y = x.grad, make("BitLinear"), pixels().requires_grad_()
    logits(reference, y).square().sum().backward()
    assert found is not None and y.grad is not None
    assert torch.cosine_similarity(found.flatten(), y.grad.flatten(), 0) > 0.99
    step(reference)


@use("in-place operations on a layer's output", EXACT)
def in_place_operations(model: Any, folder: Path) -> None:
    """As of nn.ReLU(inplace=True) in evaluation, also where gradients are recorded."""
    layer = next(iter(layers(model)))
    x = torch.randn(2, layer.in_features, requires_grad=True)
    out = layer.eval()(x)
    assert torch.equal(out.clone().relu_(), layer(x).relu_())


def floating_point(name: str, model: Any, folder: Path) -> None:
    """Packed in that precision, and loaded again: the same numbers (in double the file rounds to float32)."""
    dtype, expected = getattr(torch, name), logits(model, pixels())
    out = logits(model.to(dtype), pixels().to(dtype))
    assert out.dtype == dtype and (out - expected).norm() < 0.1 * expected.norm()
    if not is_packed(model):
        pack(model, folder)
        both = (load_packed(folder).to(dtype), model)
        with torch.no_grad():
            loaded, expected = (logits(each, pixels().to(dtype)) for each in both)
        torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-6 if name == "double" else 0)
        step(model, pixels().to(dtype))


for name in ("half", "bfloat16", "double"):
    use(f"`.{name}()`", "levels and scales keep their dtype")(partial(floating_point, name))


@use("`torch.autocast`")
def autocast(model: Any, folder: Path) -> None:
    expected = logits(model, pixels())
    with torch.autocast("cpu", torch.bfloat16):
        assert (logits(model, pixels()) - expected).norm() < 0.1 * expected.norm()
        if not is_packed(model):
            step(model)


@use("`torch.amp.GradScaler`", UNTRAINED)
def scaled_gradients(model: Any, folder: Path) -> None:
    scaler, optimizer = (
        torch.amp.GradScaler("cpu", init_scale=64.0),
        torch.optim.SGD(model.parameters(), lr=0.1),
    )
    with torch.autocast("cpu", torch.float16):
        loss = logits(model.train(), pixels()).square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert all(layer.weight.grad.isfinite().all() for layer in layers(model))


@use('`.to("meta")`, `to_empty`', "then `load_state_dict`")
def meta(model: Any, folder: Path) -> None:
    """To the meta device, back as empty memory, and filled."""
    filled, out = copy.deepcopy(model), logits(model.to("meta"), pixels().to("meta"))
    assert out.is_meta and out.shape == (4, 3)
    model.to_empty(device="cpu").load_state_dict(filled.state_dict())
    same(filled, model)


@use("`copy.deepcopy`", EXACT)
def copied(model: Any, folder: Path) -> None:
    same(model, copy.deepcopy(model))


@use("`pickle`, `torch.save(model)`", EXACT)
def pickled(model: Any, folder: Path) -> None:
    same(model, pickle.loads(pickle.dumps(model)))
    torch.save(model, buffer := io.BytesIO())
    buffer.seek(0)
    same(model, torch.load(buffer, weights_only=False))


@use("`share_memory`", EXACT)
def shared_memory(model: Any, folder: Path) -> None:
    same(copy.deepcopy(model), model.share_memory())


@use(
    "`state_dict`, `load_state_dict`",
    "into a model that is quantized alike: a state dict holds no precisions",
)
def state(model: Any, folder: Path) -> None:
    torch.save(model.state_dict(), folder / "state.pt")
    other = copy.deepcopy(model)
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.data.zero_()
    other.load_state_dict(torch.load(folder / "state.pt"))
    same(model, other)


@use("`torch.compile`")
def compiles(model: Any, folder: Path) -> None:
    """In one graph, with its gradients where it has some."""
    expected = logits(model, pixels())
    whole = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(logits(whole, pixels()), expected)
    part, x = model.vit.layers[0].mlp.train(), torch.randn(2, 5, 16).requires_grad_()
    leaves = [x, *(parameter for parameter in part.parameters() if parameter.requires_grad)]
    runs = (part(x), torch.compile(part, backend="aot_eager", fullgraph=True)(x))
    plain, compiled = ([y, *torch.autograd.grad(y.square().sum(), leaves)] for y in runs)
    torch.testing.assert_close(compiled, plain)


@use("`torch.export`")
def exported(model: Any, folder: Path) -> None:
    expected = logits(model, pixels())
    program = torch.export.export(model, (pixels(2),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(pixels()).logits, expected)


@use("`torch.jit.trace`")
def traced(model: Any, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and sizes become constants
        trace = torch.jit.trace(model, (pixels(),), strict=False)
        torch.jit.save(trace, folder / "trace.pt")
        out = torch.jit.load(folder / "trace.pt")(pixels())
    torch.testing.assert_close(out["logits"], logits(model, pixels()))


@use("`torch.func`: `vmap(grad)`", UNTRAINED)
def per_sample_gradients(model: Any, folder: Path) -> None:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x[None],)).logits.square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, pixels())
    for i, x in enumerate(pixels()):
        expected = torch.autograd.grad(loss(parameters, x), [*parameters.values()])
        for name, value in zip(parameters, expected, strict=True):
            torch.testing.assert_close(found[name][i], value, rtol=1e-3, atol=1e-5)


@use("`torch.func`: `vmap`")
def vectorised(model: Any, folder: Path) -> None:
    out = vmap(lambda x: logits(model, x[None])[0])(pixels())
    torch.testing.assert_close(out, logits(model, pixels()))


@use("`torch.func`: `jvp`", "no forward-mode gradients")
def forward_mode(model: Any, folder: Path) -> None:
    jvp(lambda x: logits(model.train(), x), (pixels(),), (pixels(),))


def pruned(weights: str, model: Any, folder: Path) -> None:
    layer = next(each for each in layers(model) if each.spec.weights == weights)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    logits(model, pixels())


use("`prune`, ternary")(partial(pruned, "ternary"))
use("`prune`, binary", "a binary weight is never 0")(partial(pruned, "binary"))


@use("`prune`, then `pack`", "`prune.remove` first")
def pruned_and_packed(model: Any, folder: Path) -> None:
    prune.l1_unstructured(layers(model)[0], "weight", amount=0.5)
    pack(model, folder / "out")


@use("`parametrizations.weight_norm`")
def parametrized(model: Any, folder: Path) -> None:
    parametrizations.weight_norm(layers(model)[0])
    logits(model.train(), pixels()).sum().backward()
    assert layers(model)[0].parametrizations.weight.original1.grad.any()


@use("`weight_norm`, then `pack`", "`remove_parametrizations` first")
def parametrized_and_packed(model: Any, folder: Path) -> None:
    parametrizations.weight_norm(layers(model)[0])
    pack(model, folder / "out")


@use("`channels_last`", EXACT)
def channels_last(model: Any, folder: Path) -> None:
    same(model, copy.deepcopy(model).to(memory_format=torch.channels_last))


@use("tied weights", "packed once for each name")
def tied(model: Any, folder: Path) -> None:
    attention = model.vit.layers[0].attention
    attention.q_proj.weight = attention.k_proj.weight
    step(model)
    assert attention.q_proj.weight is attention.k_proj.weight
    pack(model.eval(), folder / "out")
    same(model, load_packed(folder / "out"))


@use("gradient checkpointing", EXACT)
def checkpointed(model: Any, folder: Path) -> None:
    plain = copy.deepcopy(model)
    model.gradient_checkpointing_enable()
    step(model)
    step(plain)
    for one, other in zip(layers(model), layers(plain), strict=True):
        assert one.weight.grad.equal(other.weight.grad)


@use("`quantize_dynamic`", "leaves the quantized layers alone")
def dynamically_quantized(model: Any, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        same(model, quantize_dynamic(copy.deepcopy(model), {nn.Linear}))
