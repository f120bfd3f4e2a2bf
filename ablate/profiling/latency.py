"""Measures latency: of whole models, and layer by layer for a table that a search adds up.

torch.utils.benchmark.Timer does not fit: it times blocks of calls with one synchronisation at the end of
each, whereas here each call is synchronised by itself, or on purpose not at all, on the threads that the
process has.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from ablate.config.precisions import Weights
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits
from ablate.models.patch_embedding import patch_convolutions
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights

FULL = LayerSpec()
LONGEST_SECONDS, LARGEST_BATCH = 3600, 4096


@dataclass(frozen=True)
class Timing:
    """The latency of a call.

    Attributes:
        median_ms: Over the calls after a warm-up, each synchronised.
        p95_ms: Their 95th percentile.
        n: Calls.
        batch: Images a call.
        threads: Of the CPU.
        device: "cpu" or "cuda".
    """

    median_ms: float
    p95_ms: float
    n: int
    batch: int
    threads: int
    device: str


@dataclass(frozen=True)
class LatencyTable:
    """The latency of a call at a batch of one, in parts.

    Attributes:
        layers: By layer name and precision, ms of the layer by itself.
        rest_ms: Of what is not in these layers.
    """

    layers: Mapping[str, Mapping[LayerSpec, float]]
    rest_ms: float

    def dump(self) -> dict[str, Any]:
        """Return the table as plain data, for JSON."""
        rows = {}
        for name, row in self.layers.items():
            rows[name] = [(spec.model_dump(), ms) for spec, ms in row.items()]
        return {"layers": rows, "rest_ms": self.rest_ms}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Return the table that was dumped."""
        rows = {name: {LayerSpec(**spec): ms for spec, ms in row} for name, row in plain["layers"].items()}
        return cls(rows, plain["rest_ms"])

    def sum(self, precisions: Mapping[str, LayerSpec]) -> float:
        """Add up the latency of a model, in ms.

        Args:
            precisions: By layer name; a layer that is absent is full.
        """
        return self.rest_ms + sum(row[key(precisions.get(name, FULL))] for name, row in self.layers.items())


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


def check_timing(seconds: float, *batches: int) -> None:
    """Raise BadInput where a measurement would not end, or its images would not fit into memory.

    Args:
        seconds: To measure for.
        *batches: Images a call.
    """
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise BadInput(f"seconds must be from 0 to {LONGEST_SECONDS}, but got {seconds}; 1 is usual")
    for batch in batches:
        if not (1 <= batch <= LARGEST_BATCH and batch == int(batch)):
            raise BadInput(f"batch must be from 1 to {LARGEST_BATCH} images, but got {batch}; 1 is usual")


def measure(
    model: nn.Module,
    size: tuple[int, int],
    batch: int = 1,
    *,
    seconds: float = 1.0,
    dtype: torch.dtype = torch.float32,
    wait: bool = True,
) -> Timing:
    """Measure the latency of a model in evaluation, on the device of its tensors.

    Args:
        model: A classifier.
        size: Of the images, (height, width).
        batch: Images a call.
        seconds: To measure for; at least five calls are made.
        dtype: Of the images.
        wait: False measures until the call returns, on a GPU before the work is done: to show that this is
            wrong.

    Returns:
        The median, and how it was measured.

    Raises:
        BadInput: `seconds` or `batch` is out of range.
    """
    check_timing(seconds, batch)
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
    pixels = torch.randn(batch, 3, *size, dtype=dtype, device=device)
    return _time(lambda: logits(model, pixels), seconds, batch, device, wait)


def layer_table(
    model: nn.Module, size: tuple[int, int], specs: list[LayerSpec], device: torch.device
) -> LatencyTable:
    """Time every layer of a model at every precision, once a shape, and the whole model for the rest.

    Args:
        model: In full precision; it is moved to the device.
        size: Of the images, (height, width).
        specs: The precisions, beside full.
        device: To measure on.

    Returns:
        A table of the layers that the model calls.
    """
    model = model.eval().to(device)
    inputs: dict[str, torch.Tensor] = {}
    layers: dict[str, Any] = {**linear_layers(model), **patch_convolutions(model)}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        logits(model, torch.randn(1, 3, *size, device=device))
    for handle in handles:
        handle.remove()
    by_shape: dict[tuple[object, ...], dict[LayerSpec, float]] = {}
    table: dict[str, dict[LayerSpec, float]] = {}
    for name, x in inputs.items():  # a layer that the model never calls takes no time
        layer = layers[name]
        shape = (tuple(x.shape), tuple(layer.weight.shape), layer.bias is not None)
        if shape not in by_shape:
            by_shape[shape] = {spec: _time_layer(layer, spec, x) for spec in {FULL, *map(key, specs)}}
        table[name] = by_shape[shape]
    rest = measure(model, size).median_ms - sum(row[FULL] for row in table.values())
    return LatencyTable(table, max(0.0, rest))


def _time_layer(layer: Any, spec: LayerSpec, x: torch.Tensor) -> float:
    module: nn.Module = layer
    if spec.weights != "full":
        levels, beta = quantize_weights(layer.weight.detach().flatten(1), spec)
        bias = None if layer.bias is None else layer.bias.detach()
        static = torch.tensor([1.0, 0.0], device=x.device) if spec.is_static else None
        patch = tuple(layer.weight.shape[2:]) or None
        module = IntegerLinear(levels, beta.flatten(), bias, spec, static, patch)
    return _time(lambda: module(x), 0.1, 1, x.device).median_ms


def _time(
    call: Callable[[], object], seconds: float, batch: int, device: torch.device, wait: bool = True
) -> Timing:
    synchronise: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: list[float] = []
    with torch.no_grad():
        # a tensor that a model caches in its first call, as BEiT does, must be usable in training: no
        # inference mode
        call()
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
    p95 = statistics.quantiles(times, n=20)[-1]
    return Timing(statistics.median(times), p95, len(times), batch, torch.get_num_threads(), device.type)
