"""Latency, measured: of whole models, and layer by layer for a table that a search can add up."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from ablate.config.precisions import Weights
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits
from ablate.models.skeletons import from_config
from ablate.quantization import packed_model
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights

FULL = LayerSpec()


@dataclass(frozen=True)
class Timing:
    """A median over `n` calls after a warm-up, each synchronised; `threads` are those of the CPU."""

    median_ms: float
    n: int
    batch: int
    threads: int
    device: str


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of one call at a batch of one: each layer at each precision by itself, and what is not in layers."""

    layers: Mapping[str, Mapping[LayerSpec, float]]  # layer name -> precision -> ms
    rest_ms: float

    def dump(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        rows = {
            name: [(spec.model_dump(), ms) for spec, ms in row.items()] for name, row in self.layers.items()
        }
        return {"layers": rows, "rest_ms": self.rest_ms}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """The table that was dumped."""
        rows = {name: {LayerSpec(**spec): ms for spec, ms in row} for name, row in plain["layers"].items()}
        return cls(rows, plain["rest_ms"])

    def sum(self, precisions: Mapping[str, LayerSpec]) -> float:
        """The latency of a model whose layers have these precisions, full where absent, by addition."""
        return self.rest_ms + sum(row[key(precisions.get(name, FULL))] for name, row in self.layers.items())


def key(spec: LayerSpec) -> LayerSpec:
    """The part of a precision that latency depends on: b from 1 to 8 all run on int8, as do 1 to 4 bits of weights."""
    if spec.weights == "full":
        return FULL
    bits = None if spec.activation_bits is None else 8
    weights: Weights = "int8" if spec.weights == "int8" else "binary"
    kept = {name: getattr(spec, name) for name in ("norm", *(("activation_scale", "signed") if bits else ()))}
    return LayerSpec(weights=weights, activation_bits=bits, **kept)


def measure(
    model: nn.Module,
    size: tuple[int, int],
    batch: int = 1,
    *,
    seconds: float = 1.0,
    dtype: torch.dtype = torch.float32,
    wait: bool = True,
) -> Timing:
    """The latency of a model in evaluation on `batch` images of `size` (height, width), where its tensors are.

    Without `wait` it is the time until the call returns, on a GPU before its work is done: what not to measure.
    """
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
    pixels = torch.randn(batch, 3, *size, dtype=dtype, device=device)
    return _time(lambda: logits(model, pixels), seconds, batch, device, wait)


def layer_table(
    model: nn.Module, size: tuple[int, int], specs: list[LayerSpec], device: torch.device
) -> LatencyTable:
    """Time every layer of a full-precision model at every precision, once a shape; and the whole, for the rest."""
    model = model.eval().to(device)
    inputs: dict[str, torch.Tensor] = {}
    layers = linear_layers(model)
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        logits(model, torch.randn(1, 3, *size, device=device))
    for handle in handles:
        handle.remove()
    seen: dict[tuple[object, ...], dict[LayerSpec, float]] = {}
    table: dict[str, dict[LayerSpec, float]] = {}
    for name in inputs:  # a layer that the model never calls takes no time
        layer = layers[name]
        shape = (tuple(inputs[name].shape), layer.out_features, layer.bias is not None)
        if shape not in seen:
            seen[shape] = {spec: _time_layer(layer, spec, inputs[name]) for spec in {FULL, *map(key, specs)}}
        table[name] = seen[shape]
    rest = measure(model, size).median_ms - sum(row[FULL] for row in table.values())
    return LatencyTable(table, max(0.0, rest))


def _time_layer(layer: nn.Linear, spec: LayerSpec, x: torch.Tensor) -> float:
    module: nn.Module = layer
    if spec.weights != "full":
        levels, beta = quantize_weights(layer.weight.detach(), spec)
        module = IntegerLinear(
            levels, beta.flatten(), None if layer.bias is None else layer.bias.detach(), spec
        )
    return _time(lambda: module(x), 0.1, 1, x.device).median_ms


def _time(
    call: Callable[[], object], seconds: float, batch: int, device: torch.device, wait: bool = True
) -> Timing:
    synchronise: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: list[float] = []
    with torch.no_grad():
        call()  # what a model keeps from its first call, as BEiT does, must be of use to a training
    with torch.inference_mode():
        for _ in range(2):  # warm-up
            call()
        synchronise()
        limit = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < limit:
            started = time.perf_counter()
            call()
            if wait:
                synchronise()
            times.append(1000 * (time.perf_counter() - started))
            synchronise()  # idle before the next
    return Timing(statistics.median(times), len(times), batch, torch.get_num_threads(), device.type)


def bench(
    directory: str | Path, batches: tuple[int, ...] = (1, 8, 32), seconds: float = 1.0, compiled: bool = False
) -> list[dict[str, Any]]:
    """A packed model beside its twins in full precision, float32 and bfloat16, whose weights are random: rows of a table.

    compiled: a row for each of the three under torch.compile as well. File sizes and bytes in memory (parameters and
    buffers) are counted, latencies are medians in ms. Raises BadInput where the directory holds no packed model, or one
    without architecture or image processing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    header, tensors = packed_model.read(directory)
    size = packed_model.load_preprocess(directory).size
    if header.model is None:
        raise BadInput(
            f"{directory} holds a model that transformers has no class for, so it has no twin to compare with"
        )
    twin = from_config(**header.model.model_dump(), parameters=len(tensors)).to_empty(device=device)
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.02)
    for buffer in twin.buffers():
        buffer.zero_()
    on_disk = sum(
        (Path(directory) / file).stat().st_size for file in (packed_model.JSON, packed_model.TENSORS)
    )
    half = copy.deepcopy(twin.eval()).bfloat16()
    models = {
        "packed": packed_model.load_packed(directory).to(device),
        "full, float32": twin,
        "full, bfloat16": half,
    }
    sizes = {name: held(model) for name, model in models.items()} | {"packed": on_disk}
    if compiled:  # like beside like
        for name, model in [*models.items()]:
            models[f"{name}, compiled"] = (again := copy.deepcopy(model))
            sizes[f"{name}, compiled"] = sizes[name]
            again.compile(dynamic=False, options={"freezing": True})  # the weights are constants
    rows = []
    for name, model in models.items():
        row: dict[str, Any] = {"model": name, "size_bytes": sizes[name], "memory_bytes": held(model)}
        for batch in batches:
            dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
            timing = measure(model, size, batch, seconds=seconds, dtype=dtype)
            row |= {f"latency_ms at batch {batch}": timing.median_ms, f"n at batch {batch}": timing.n}
        rows.append(row | {"threads": timing.threads, "device": timing.device})
    return rows


def held(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers in memory."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
