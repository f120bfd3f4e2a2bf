"""Which tensors a packed model is stored as, and the size of their file, both known from shapes alone."""

import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ablate.config.precisions import PER_BYTE, TABLE
from ablate.config.trial_spec import LayerSpec
from ablate.models.renamed_modules import current_names
from ablate.quantization.packed_header import Header

TensorLayout = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # by name, dtype and shape

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


STATIC = ("static.gamma", "static.offset", "static.gain")
# Of a quantized layer: they are stored as the scales that they make.
UNSTORED = ("gain", "beta", "row_sums", "static", *STATIC)


def layer_and_part(key: str) -> tuple[str, str]:
    """Split the name of a tensor of a model's state into that of its layer and the rest."""
    name, _, part = key.rpartition(".")
    longer = name.removesuffix(".static")
    return (longer, f"static.{part}") if longer != name and f"static.{part}" in STATIC else (name, part)


def layout(model: nn.Module, layers: Mapping[str, LayerSpec], dtype: str) -> TensorLayout:
    """List the tensors that a model is stored as.

    Args:
        model: In full precision, or quantized.
        layers: By name, the precision of the packed layers.
        dtype: Of the other tensors in floating point.

    Returns:
        By name, their dtypes and shapes.
    """
    full = getattr(torch, dtype)
    tensors: TensorLayout = {}
    for key, value in model.state_dict().items():
        name, part = layer_and_part(key)
        if name in layers and part in UNSTORED:
            continue
        if name in layers and part == "weight":
            spec = layers[name]
            channels = value.shape[0] if spec.beta_per == "channel" or not TABLE[spec.weights].has_beta else 1
            tensors[key] = (torch.uint8, (-(-value.numel() // PER_BYTE[spec.weights]),))
            tensors[f"{name}.beta"] = (torch.float32, (channels,))
            if spec.is_static:
                tensors[f"{name}.static"] = (torch.float32, (2,))
        else:
            tensors[key] = (full if value.is_floating_point() else value.dtype, tuple(value.shape))
    return tensors


def renamed(
    model: nn.Module, header: Header, tensors: Mapping[str, Tensor]
) -> tuple[Header, dict[str, Tensor]]:
    """Give a packed model the names of a model that another version of transformers builds.

    Args:
        model: In full precision.
        header: As it was packed.
        tensors: As they were packed.

    Returns:
        Both with the model's names; as they are where no known change of names leads to them.
    """
    scales = {f"{name}.{part}": (name, part) for name in header.layers for part in ("beta", "static")}
    names = current_names(model, [key for key in tensors if key not in scales])

    def layer(name: str) -> str:
        return names.get(f"{name}.weight", f"{name}.weight").removesuffix(".weight")

    def tensor(key: str) -> str:
        return f"{layer(scales[key][0])}.{scales[key][1]}" if key in scales else names[key]

    layers = {layer(name): spec for name, spec in header.layers.items()}
    return header.model_copy(update={"layers": layers}), {tensor(key): tensors[key] for key in tensors}


def file_bytes(tensors: TensorLayout) -> int:
    """Count the bytes of a safetensors file: the length of its header, the header, the tensors.

    Args:
        tensors: By name, their dtypes and shapes.

    Returns:
        The size of the file that safetensors' `save` makes of such tensors.
    """
    order, offset, entries = [*DTYPES], 0, {}
    for name, (kind, shape) in sorted(tensors.items(), key=lambda item: (order.index(item[1][0]), item[0])):
        end = offset + kind.itemsize * math.prod(shape)
        entries[name] = {"dtype": DTYPES[kind], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = len(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-header // 8) * 8 + offset  # the header is filled up with spaces
