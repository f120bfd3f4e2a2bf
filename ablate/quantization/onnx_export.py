"""The packed model as an ONNX file, for onnxruntime, OpenVINO and other readers."""

import warnings
from contextlib import suppress
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
from ablate.quantization.attention import attention, integer_product
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_files import read
from ablate.quantization.packed_loading import load_packed, load_preprocess


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
    with warnings.catch_warnings(), torch.no_grad(), _PlainAttention():
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


class _PlainAttention(TorchFunctionMode):
    """Computes attention as two products and a softmax, which runtimes fuse.

    The exporter's own graph also looks for rows that a mask leaves empty, and takes four dimensions only.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with suppress(BadInput):  # the exporter knows causal and grouped attention
                return attention(torch.matmul, *args, **kwargs)
        if func is integer_product:
            return _dequantized(args[0]) @ _dequantized(args[1])
        return func(*args, **kwargs)


def _dequantized(levels: Tensor) -> Tensor:
    """Integers of -127 to 127 through uint8, so that runtimes multiply them in 8 bits."""
    one, zero = torch.tensor(1.0), torch.tensor(128, dtype=torch.uint8)
    integers = op("QuantizeLinear", (levels, one, zero), dtype=torch.uint8, shape=levels.shape)
    return op("DequantizeLinear", (integers, one, zero), dtype=torch.float32, shape=levels.shape)


def _quantize_in_graph(layer: IntegerLinear) -> None:
    """Give a layer the product of integers that runtimes recognise: QuantizeLinear, DequantizeLinear, MatMul.

    A static scale and the weights' are those of these nodes, so that a runtime fuses them with the product
    and the bias. Other levels are integers already: their scale here is 1 and no value changes. MatMulInteger
    would do for onnxruntime alone: OpenVINO computes it in float32. Activations are uint8, since onnxruntime
    leaves int8 ones in float32 where layers share them. int8 weights are the sum of two halves: without VNNI,
    x86 adds two products in int16, which weights above 64 overflow.
    """
    layer.levels, layer.halved, layer.floats = layer.integers(), False, False
    bits, signed = layer.spec.activation_bits, layer.spec.signed
    if bits is None:
        return
    layer.levels = layer.levels.t().contiguous()  # (in, out)
    one, zero = torch.tensor(1.0), torch.tensor(128 if signed else 0, dtype=torch.uint8)

    def dequantized(integers: Tensor, scale: Tensor, *zero: Tensor) -> Tensor:  # a scale, or one a column
        return op("DequantizeLinear", (integers, scale, *zero), dtype=torch.float32, shape=integers.shape)

    def product(x: Tensor, step: Tensor, beta: Tensor) -> Tensor:
        integers = op("QuantizeLinear", (x, step, zero), dtype=torch.uint8, shape=x.shape)
        activations = dequantized(integers, step, zero)
        if layer.spec.weights != "int8":
            return activations @ dequantized(layer.levels, beta)
        half = (layer.levels.float() / 2).floor()
        rest = layer.levels.float() - half
        first, second = (activations @ dequantized(part.to(torch.int8), beta) for part in (half, rest))
        return first + second

    if layer.static is None or bits == 1:
        layer._product = lambda levels: product(levels, one, one)  # type: ignore[method-assign]
        return
    step, offset = layer.static  # ()
    q_b = 2 ** (bits - 1)  # Fig. 4
    low, high = float((1 - q_b) * step if signed else 0), float((q_b - 1) * step)
    beta = layer.beta.squeeze() if len(layer.beta) == 1 else layer.beta

    def exact(x: Tensor) -> Tensor:
        x = layer._normed(x)
        y = product((x if signed else x - offset).clamp(low, high), step, beta)
        if not signed:
            y = y + offset * layer.row_sums  # undoes Fig. 5
        return y if layer.bias is None else y + layer.bias

    layer._exact = exact  # type: ignore[method-assign]
