"""The latency of a model's parts: a table that a search adds up."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import nn

from ablate.config.precisions import Weights
from ablate.config.trial_spec import LayerSpec
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits, sharing_copy
from ablate.models.patch_embedding import patch_convolutions
from ablate.profiling.latency import measure, time_calls
from ablate.quantization.fused_blocks import PARTS, is_fusible, kind_of
from ablate.quantization.fused_model import Ways, faster_block
from ablate.quantization.fused_products import precision_fits
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights

FULL = LayerSpec()
SECONDS = 0.5  # to measure a model for
TimeOf = Callable[[Mapping[str, nn.Module]], float]


@dataclass(frozen=True)
class LatencyTable:
    """The latency of a call at a batch of one, in parts.

    Attributes:
        layers: By layer name and precision, ms of the layer by itself.
        rest_ms: Of what is neither in these layers nor in the blocks.
        blocks: Of blocks that are computed as one, such as `FusedBlock`.
    """

    layers: Mapping[str, Mapping[LayerSpec, float]]
    rest_ms: float
    blocks: Sequence["BlockLatency"] = ()

    def dump(self) -> dict[str, Any]:
        """Return the table as plain data, for JSON."""
        rows = {}
        for name, row in self.layers.items():
            rows[name] = [(spec.model_dump(), ms) for spec, ms in row.items()]
        blocks = [
            (
                block.layers,
                [([spec.model_dump() for spec in specs], ms) for specs, ms in block.fused.items()],
                [[(spec.model_dump(), ms) for spec, ms in row.items()] for row in block.apart],
            )
            for block in self.blocks
        ]
        return {"layers": rows, "rest_ms": self.rest_ms, "blocks": blocks}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Return the table that was dumped."""
        rows = {name: {LayerSpec(**spec): ms for spec, ms in row} for name, row in plain["layers"].items()}
        blocks = [
            BlockLatency(
                tuple(map(tuple, layers)),
                {tuple(LayerSpec(**spec) for spec in specs): ms for specs, ms in fused},
                tuple({LayerSpec(**spec): ms for spec, ms in row} for row in apart),
            )
            for layers, fused, apart in plain.get("blocks", ())
        ]
        return cls(rows, plain["rest_ms"], tuple(blocks))

    def sum(self, precisions: Mapping[str, LayerSpec]) -> float:
        """Add up the latency of a model, in ms.

        Args:
            precisions: By layer name; a layer that is absent is full.
        """
        layers = sum(row[key(precisions.get(name, FULL))] for name, row in self.layers.items())
        return self.rest_ms + layers + sum(block.of(precisions) for block in self.blocks)


@dataclass(frozen=True)
class BlockLatency:
    """The latency of a block that may be computed as one.

    Attributes:
        layers: Names of the layers that share a precision; for each such part of the block.
        fused: By the precision of each part, reduced by `key`: ms where it is computed as one.
        apart: Where it is not, the ms that each part adds at each precision; that of the first part includes
            the rest of the block.
    """

    layers: tuple[tuple[str, ...], ...]
    fused: Mapping[tuple[LayerSpec, ...], float]
    apart: tuple[Mapping[LayerSpec, float], ...]

    def of(self, precisions: Mapping[str, LayerSpec]) -> float:
        """The latency in ms; where the layers of a part differ, the largest that one of them would cause."""
        parts = [{precisions.get(name, FULL) for name in names} for names in self.layers]
        return max(map(self._at, itertools.product(*parts)))

    def _at(self, precisions: tuple[LayerSpec, ...]) -> float:
        specs = tuple(map(key, precisions))
        if specs in self.fused and all(map(precision_fits, precisions)):
            return self.fused[specs]
        return max(0.0, sum(row[spec] for row, spec in zip(self.apart, specs, strict=True)))


def key(spec: LayerSpec) -> LayerSpec:
    """Reduce a precision to what latency depends on.

    Activations of 1 to 8 bits all run on int8, as do weights of 1 to 4 bits.
    """
    if spec.weights == "full":
        return FULL
    bits = None if spec.activation_bits is None else 8
    weights: Weights = "int8" if spec.weights == "int8" else "binary"
    names = ("norm", "activation_scale", "signed") if bits else ("norm",)
    fields = {name: getattr(spec, name) for name in names}
    return LayerSpec(weights=weights, activation_bits=bits, **fields)


def layer_table(
    model: nn.Module, size: tuple[int, int], specs: list[LayerSpec], device: torch.device
) -> LatencyTable:
    """Time every layer of a model at every precision, once a shape, and the whole model for the rest.

    On a CPU, blocks that can be fused are timed as `fuse_` leaves them: fused at every combination of the
    precisions that allow it, else with the layers of one part after the other at each precision.

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
    blocks = [name for name, block in model.named_modules() if device.type == "cpu" and is_fusible(block)]
    layers: dict[str, Any] = {**linear_layers(model), **patch_convolutions(model)}
    layers = {
        name: layer for name, layer in layers.items() if not name.startswith(tuple(f"{b}." for b in blocks))
    }
    by_shape: dict[tuple[object, ...], dict[LayerSpec, float]] = {}
    table: dict[str, dict[LayerSpec, float]] = {}
    for name, x in _inputs(model, size, layers).items():  # a layer that the model never calls takes no time
        layer = layers[name]
        shape = (tuple(x.shape), tuple(layer.weight.shape), layer.bias is not None)
        if shape not in by_shape:
            by_shape[shape] = {spec: _time_layer(_integer(layer, spec), x) for spec in keys}
        table[name] = by_shape[shape]
    rest = _time_with(model, size, dict.fromkeys(blocks, _Skipped())) - LatencyTable(table, 0).sum({})
    return LatencyTable(table, max(0.0, rest), _time_blocks(model, size, blocks, keys))


class _Skipped(nn.Module):
    """In the place of a block."""

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return hidden_states


def _time_with(model: nn.Module, size: tuple[int, int], others: Mapping[str, nn.Module]) -> float:
    """The latency of a model with other modules, in ms."""
    changed = sharing_copy(model)
    for name, module in others.items():
        changed.set_submodule(name, module)
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
    model: nn.Module, size: tuple[int, int], names: Sequence[str], keys: Sequence[LayerSpec]
) -> tuple[BlockLatency, ...]:
    """The latency of blocks, with all blocks of a kind alike.

    They are timed in the model: by itself, a block would find its weights in the processor's cache.
    """
    blocks = {name: model.get_submodule(name) for name in names}
    rows: dict[Any, tuple[Any, Any]] = {}
    for kind in {kind_of(block): None for block in blocks.values()}:
        alike = {name: block for name, block in blocks.items() if kind_of(block) == kind}
        without = _time_with(model, size, dict.fromkeys(alike, _Skipped()))
        time_of = partial(_time_each, model, size, without)
        fused = _time_fused(alike, _inputs(model, size, alike), keys, time_of)
        rows[kind] = fused, _time_apart(alike, keys, time_of)
    parts = {name: tuple(tuple(f"{name}.{layer}" for layer in part) for part in PARTS) for name in names}
    return tuple(BlockLatency(parts[name], *rows[kind_of(block)]) for name, block in blocks.items())


def _time_each(
    model: nn.Module, size: tuple[int, int], without: float, blocks: Mapping[str, nn.Module]
) -> float:
    """The ms of each of some blocks that are alike, in a model that takes `without` ms without them."""
    return max(0.0, _time_with(model, size, blocks) - without) / len(blocks)


def _time_fused(
    blocks: Mapping[str, nn.Module],
    inputs: Mapping[str, torch.Tensor],
    keys: Sequence[LayerSpec],
    time_of: TimeOf,
) -> dict[tuple[LayerSpec, ...], float]:
    """The ms of a block at each combination of precisions at which its fused form is faster."""
    first, ways = next(iter(blocks.values())), Ways()
    times: dict[Any, float | None] = {}  # by what decides a fused block's speed
    fused = {}
    for specs in itertools.product(filter(precision_fits, keys), repeat=len(PARTS)):
        if (kind := kind_of(_at(first, specs))) not in times:
            others = {name: _at(block, specs) for name, block in blocks.items()}
            faster = {name: faster_block(block, inputs[name], ways) for name, block in others.items()}
            is_fused = any(faster[name] is not others[name] for name in blocks)
            times[kind] = time_of(faster) if is_fused else None
        if (ms := times[kind]) is not None:
            fused[specs] = ms
    return fused


def _time_apart(
    blocks: Mapping[str, nn.Module],
    keys: Sequence[LayerSpec],
    time_of: TimeOf,
) -> tuple[dict[LayerSpec, float], ...]:
    """What each part of a block that is not fused adds, in ms: one after the other, at each precision."""
    full = time_of(blocks)
    rows: list[dict[LayerSpec, float]] = []
    for i in range(len(PARTS)):
        row = {FULL: 0.0}
        for spec in keys[1:]:
            specs = [spec if i == j else FULL for j in range(len(PARTS))]
            row[spec] = time_of({name: _at(block, specs) for name, block in blocks.items()}) - full
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


def _time_layer(layer: nn.Module, x: torch.Tensor) -> float:
    return time_calls(lambda: layer(x), 0.1, 1, x.device).median_ms
