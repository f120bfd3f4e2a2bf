"""Measures the latencies of a model's parts, for a table that a search adds up."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ablate.config.trial_spec import LayerSpec
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits, sharing_copy
from ablate.models.patch_embedding import patch_convolutions
from ablate.profiling.latency import measure, time_calls
from ablate.profiling.latency_table import FULL, BlockLatency, LatencyTable, key
from ablate.quantization.fused_blocks import PARTS, kind_of
from ablate.quantization.fused_linear import is_fusible_layer
from ablate.quantization.fused_model import (
    Ways,
    faster_form,
    fuse_,
    fuse_layers_,
    fusible_blocks,
    tokens_for,
)
from ablate.quantization.fused_products import precision_fits
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights

SECONDS = 0.5  # to measure a model for
Fuse = Callable[[nn.Module], object]
TimeOf = Callable[[Mapping[str, nn.Module]], float]


def layer_table(
    model: nn.Module, size: tuple[int, int], specs: list[LayerSpec], device: torch.device
) -> LatencyTable:
    """Time every layer of a model at every precision, once a shape, and the whole model for the rest.

    On a CPU they are timed as `fuse_` leaves them. A block that can be fused is timed as one at every
    combination of the precisions that allow it, and with its layers apart at each of the others.

    Args:
        model: In full precision; it is moved to the device.
        size: Of the images, (height, width).
        specs: The precisions, beside full.
        device: To measure on.

    Returns:
        A table of the layers that the model calls.
    """
    model = model.eval().to(device)
    keys = list(dict.fromkeys([FULL, *map(key, specs)]))
    blocks = fusible_blocks(model) if device.type == "cpu" else []
    inside = tuple(f"{name}." for name in blocks)
    found: dict[str, Any] = {**linear_layers(model), **patch_convolutions(model)}
    layers = {name: layer for name, layer in found.items() if not name.startswith(inside)}
    ways: Ways = {}
    by_shape: dict[tuple[object, ...], dict[LayerSpec, float]] = {}
    table: dict[str, dict[LayerSpec, float]] = {}
    for name, x in _inputs(model, size, layers).items():  # a layer that the model never calls takes no time
        layer = layers[name]
        shape = (tuple(x.shape), tuple(layer.weight.shape), layer.bias is not None)
        if shape not in by_shape:
            by_shape[shape] = {spec: _time_layer(model, _integer(layer, spec), x, ways) for spec in keys}
        table[name] = by_shape[shape]
    whole = _time_with(model, size, partial(fuse_, ways=ways), dict.fromkeys(blocks, _Skipped()))
    rest = max(0.0, whole - LatencyTable(table, 0).sum({}))
    return LatencyTable(table, rest, _time_blocks(model, size, blocks, keys, ways))


class _Skipped(nn.Module):
    """In the place of a block."""

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return hidden_states


def _time_with(model: nn.Module, size: tuple[int, int], fuse: Fuse, others: Mapping[str, nn.Module]) -> float:
    """The latency of a model with other modules, in ms; on a CPU as `fuse` leaves it."""
    changed = sharing_copy(model)
    for name, module in others.items():
        changed.set_submodule(name, module)
    if next(model.parameters()).device.type == "cpu":
        fuse(changed)
    return measure(changed, size, seconds=SECONDS).median_ms


def _inputs(
    model: nn.Module, size: tuple[int, int], modules: Mapping[str, nn.Module]
) -> dict[str, torch.Tensor]:
    """What each of some modules of a model is called with; none where it is not called."""
    inputs: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        logits(model, torch.randn(1, 3, *size, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return inputs


def _time_blocks(
    model: nn.Module, size: tuple[int, int], names: Sequence[str], keys: Sequence[LayerSpec], ways: Ways
) -> tuple[BlockLatency, ...]:
    """The latency of blocks, with all blocks of a kind alike.

    They are timed in the model: by itself, a block would find its weights in the processor's cache.
    """
    blocks = {name: model.get_submodule(name) for name in names}
    rows: dict[Any, tuple[Any, Any]] = {}
    for kind in {kind_of(block): None for block in blocks.values()}:
        alike = {name: block for name, block in blocks.items() if kind_of(block) == kind}
        as_one, apart = (
            partial(_time_with, model, size, partial(f, ways=ways)) for f in (fuse_, fuse_layers_)
        )
        rows[kind] = _time_fused(alike, keys, as_one), _time_apart(alike, keys, apart)
    parts = {name: tuple(tuple(f"{name}.{layer}" for layer in part) for part in PARTS) for name in names}
    return tuple(BlockLatency(parts[name], *rows[kind_of(block)]) for name, block in blocks.items())


def _time_each(
    time_of: TimeOf, blocks: Mapping[str, nn.Module], specs: Sequence[LayerSpec], rest: float
) -> float:
    """The ms of each of some blocks that are alike, in a model whose rest takes `rest` ms."""
    others = {name: _at(block, specs) for name, block in blocks.items()}
    return max(0.0, time_of(others) - rest) / len(blocks)


def _time_fused(
    blocks: Mapping[str, nn.Module], keys: Sequence[LayerSpec], time_of: TimeOf
) -> dict[tuple[LayerSpec, ...], float]:
    """The ms of a block at each combination of the precisions at which it can be fused."""
    first, rest = next(iter(blocks.values())), time_of(dict.fromkeys(blocks, _Skipped()))
    times: dict[Any, float] = {}  # by what decides a fused block's speed
    fused = {}
    for specs in itertools.product(filter(precision_fits, keys), repeat=len(PARTS)):
        if (kind := kind_of(_at(first, specs))) not in times:
            times[kind] = _time_each(time_of, blocks, specs, rest)
        fused[specs] = times[kind]
    return fused


def _time_apart(
    blocks: Mapping[str, nn.Module], keys: Sequence[LayerSpec], time_of: TimeOf
) -> tuple[dict[LayerSpec, float], ...]:
    """What each part of a block that is not fused adds, in ms: one after the other, at each precision."""
    if all(map(precision_fits, keys)):
        return ({}, {}, {})
    rest = time_of(dict.fromkeys(blocks, _Skipped()))
    full = _time_each(time_of, blocks, [FULL] * len(PARTS), rest)
    rows: list[dict[LayerSpec, float]] = []
    for i in range(len(PARTS)):
        row = {FULL: 0.0}
        for spec in keys[1:]:
            specs = [FULL] * i + [spec] + [FULL] * (len(PARTS) - 1 - i)
            row[spec] = _time_each(time_of, blocks, specs, rest) - full
        rows.append(row)
    rows[0] = {spec: full + ms for spec, ms in rows[0].items()}
    return tuple(rows)


def _at(block: nn.Module, specs: Sequence[LayerSpec]) -> nn.Module:
    """A block with the layers of its parts packed at their precisions."""
    other = sharing_copy(block)
    for names, spec in zip(PARTS, specs, strict=True):
        for name in names:
            other.set_submodule(name, _integer(block.get_submodule(name), spec))
    return other


def _integer(layer: Any, spec: LayerSpec) -> nn.Module:
    """A layer packed at a precision, or itself."""
    if spec.weights == "full":
        return cast("nn.Module", layer)
    levels, beta = quantize_weights(layer.weight.detach().flatten(1), spec)
    bias = None if layer.bias is None else layer.bias.detach()
    static = torch.tensor([1.0, 0.0], device=layer.weight.device) if spec.is_static else None
    patch = tuple(layer.weight.shape[2:]) or None
    return IntegerLinear(levels, beta.flatten(), bias, spec, static, patch)


def _time_layer(model: nn.Module, layer: nn.Module, x: torch.Tensor, ways: Ways) -> float:
    if x.device.type == "cpu" and is_fusible_layer(layer):
        layer = faster_form(layer, tokens_for(model, layer), ways)
    return time_calls(lambda: layer(x), 0.1, 1, x.device).median_ms
