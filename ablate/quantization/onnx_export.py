"""The packed model as an ONNX file, for onnxruntime, OpenVINO and other readers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.onnx.ops import symbolic as op
from torch.overrides import TorchFunctionMode

from ablate.errors import BadInput
from ablate.models.loading import Logits
from ablate.paths import local_path
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_files import read
from ablate.quantization.packed_model import load_packed, load_preprocess


def to_onnx(directory: str | Path, path: str | Path) -> None:
    """Write a packed model as an ONNX file.

    Its input is `pixels` (batch, 3, height, width), float32, and its output `logits` (batch, classes).
    Weights take the bits that they have in the packed model. Runtimes unpack them when they load the file.

    Args:
        directory: The folder of the packed model.
        path: Of the ONNX file.

    Raises:
        BadInput: The packages of the extra `onnx` are not installed, or the folder holds no packed model.
    """
    local_path(path).write_bytes(onnx_bytes(directory))


def onnx_bytes(directory: str | Path) -> bytes:
    """The content of the file that `to_onnx` writes. Raises BadInput as it does."""
    try:
        import onnxscript  # noqa: F401  what torch.onnx needs
        from onnx_ir.serde import serialize_model

        from ablate.quantization.onnx_constants import pack_constants, shorten
    except ImportError:
        advice = "pip install onnx onnxruntime onnxscript"
        raise BadInput(f"ONNX needs the extra ablate-vit[onnx]; {advice}") from None

    model = Logits(load_packed(directory)).eval()
    for layer in model.modules():
        if isinstance(layer, IntegerLinear):
            _quantize_in_graph(layer)
    pixels = torch.zeros(2, 3, *load_preprocess(directory).size)
    with warnings.catch_warnings(), torch.no_grad(), _AttentionOfAnyRank():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            model,
            (pixels,),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None  # without a path
    pack_constants(program.model, getattr(torch, read(directory)[0].dtype))
    shorten(program.model)
    proto = serialize_model(program.model)
    proto.graph.ClearField("value_info")  # readers infer the shapes
    return proto.SerializeToString()


class _AttentionOfAnyRank(TorchFunctionMode):
    """Writes out attention of (B, W, heads, N, D) and the like: the exporter takes four dimensions."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args and args[0].ndim != 4:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What scaled_dot_product_attention computes in evaluation: (..., N, D) -> (..., N, D)."""
    if is_causal or enable_gqa:
        raise BadInput("attention that is causal or shares keys between queries cannot be exported")
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)  # (..., N, N)
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if is_bool else scores + attn_mask
    return scores.softmax(-1) @ value


def _quantize_in_graph(layer: IntegerLinear) -> None:
    """Give a layer the product of integers that runtimes recognise: QuantizeLinear, DequantizeLinear, MatMul.

    The levels are integers already, so their scale here is 1 and no value changes. A layer with static scales
    would have its own scale there. MatMulInteger would do for onnxruntime alone: OpenVINO computes it in
    float32. Activations are uint8, since onnxruntime leaves int8 ones in float32 where layers share them.
    int8 weights are the sum of two halves: without VNNI, x86 adds two products in int16, which weights above
    64 overflow.
    """
    layer.levels, layer.halved, layer.floats = layer.integers(), False, False
    if layer.spec.activation_bits is None:
        return
    layer.levels = layer.levels.t().contiguous()  # (in, out)
    one, zero = torch.tensor(1.0), torch.tensor(128 if layer.spec.signed else 0, dtype=torch.uint8)

    def dequantized(integers: Tensor, *zero: Tensor) -> Tensor:
        return op("DequantizeLinear", (integers, one, *zero), dtype=torch.float32, shape=integers.shape)

    def product(levels: Tensor) -> Tensor:
        integers = op("QuantizeLinear", (levels, one, zero), dtype=torch.uint8, shape=levels.shape)
        activations = dequantized(integers, zero)
        if layer.spec.weights != "int8":
            return activations @ dequantized(layer.levels)
        half = (layer.levels.float() / 2).floor()
        rest = layer.levels.float() - half
        first, second = (activations @ dequantized(part.to(torch.int8)) for part in (half, rest))
        return first + second

    layer._product = product  # type: ignore[method-assign]
