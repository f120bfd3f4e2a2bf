"""The size of a packed model, known from names and shapes alone."""

import json
import math
from collections.abc import Mapping

import torch
from torch import nn

from ablate.config.trial_spec import LayerSpec
from ablate.models.preprocessing import Preprocess
from ablate.models.unfusing import unfused
from ablate.quantization.attention import attention_bits
from ablate.quantization.packed_header import Dtype, dumps, header_of, to_config
from ablate.quantization.packed_layout import TensorLayout, layout

DTYPES = {  # safetensors' names, in the order in which it stores them
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def packed_bytes(
    model: nn.Module,
    layers: Mapping[str, LayerSpec],
    *,
    preprocess: Preprocess | None = None,
    dtype: Dtype = "float32",
    attention: int | None = None,
) -> int:
    """Count the bytes that `pack` will write, exactly, from shapes and names: before the model is trained.

    Args:
        model: In full precision, or already quantized.
        layers: By name, the precision of the layers that will be BitLinear, their norm decided.
        preprocess: As for `pack`.
        dtype: As for `pack`.
        attention: The bits of the attention products; None: those that the model has.

    Returns:
        The size of both files.
    """
    attention = attention or attention_bits(model)
    model = unfused(model, None if attention else layers)
    names = {id(module): name for name, module in model.named_modules() if name in layers}
    aliases = [(name, names.get(id(module))) for name, module in model.named_modules(remove_duplicate=False)]
    # a shared layer is stored under all its names
    layers = {name: layers[first] for name, first in aliases if first}
    header = header_of(model, layers, preprocess, dtype, attention) | {"sha256": "0" * 64}
    return len(dumps(to_config(header))) + _file_bytes(layout(model, layers, dtype))


def _file_bytes(tensors: TensorLayout) -> int:
    """Count the bytes of a safetensors file: the length of its header, the header, the tensors."""
    order, offset, entries = [*DTYPES], 0, {}
    for name, (kind, shape) in sorted(tensors.items(), key=lambda item: (order.index(item[1][0]), item[0])):
        end = offset + kind.itemsize * math.prod(shape)
        entries[name] = {"dtype": DTYPES[kind], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = len(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-header // 8) * 8 + offset  # the header is filled up with spaces
