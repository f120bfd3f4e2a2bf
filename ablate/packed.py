"""Models as they are stored: 1-bit weights at 8 a byte, ternary at 5 a byte, int4 at 2 a byte; safetensors and JSON."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ablate.bitlinear import BitLinear, quantize_weights

FORMAT = 1  # version of the layout below


def pack(model: nn.Module, directory: str | Path) -> int:
    """Write `model` to a directory as packed.json and model.safetensors; their size in bytes.

    A BitLinear `name` becomes `name.packed` (uint8), `name.beta` (float32: one value, or one a channel) and its
    bias; every other tensor is stored as it is. packed.json has the format version, the checksum of the tensors, the
    precision of each quantized layer and the configuration of the full-precision model.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    for name, layer in layers.items():
        levels, beta = quantize_weights(tensors.pop(f"{name}.weight"), layer.spec)
        tensors[f"{name}.packed"] = pack_levels(levels, layer.spec.weights)
        tensors[f"{name}.beta"] = beta.float().flatten()
    save_file(tensors, directory / "model.safetensors")
    config = getattr(model, "config", None)
    header = {
        "format": FORMAT,
        "sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
        "layers": {name: layer.spec.model_dump() for name, layer in layers.items()},
        "config": config and config.to_diff_dict(),
    }
    (directory / "packed.json").write_text(json.dumps(header, indent=1, sort_keys=True))
    return sum((directory / file).stat().st_size for file in ("model.safetensors", "packed.json"))


def pack_levels(levels: Tensor, weights: str) -> Tensor:
    """Integer weight levels of any shape -> uint8 (bytes,), in row-major order, the last byte filled up with zeros."""
    flat = levels.detach().cpu().numpy().astype(np.int8).ravel()  # (n,)
    return torch.from_numpy({"binary": _binary, "ternary": _ternary, "int4": _int4, "int8": _int8}[weights](flat))


def _binary(signs: NDArray[np.int8]) -> NDArray[np.uint8]:
    return np.packbits(signs > 0, bitorder="little")


def _ternary(trits: NDArray[np.int8]) -> NDArray[np.uint8]:
    digits = _rows(trits + 1, 5)  # (bytes, 5), digits 0, 1, 2
    return (digits @ np.array([1, 3, 9, 27, 81], dtype=np.uint8)).astype(np.uint8)  # 3^5 = 243 values a byte


def _int4(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    low, high = _rows(levels + 8, 2).T  # -7 .. 7 as 1 .. 15
    return low | high << 4


def _int8(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    return levels.view(np.uint8)


def _rows(flat: NDArray[np.int8], width: int) -> NDArray[np.uint8]:
    return np.pad(flat.astype(np.uint8), (0, -len(flat) % width)).reshape(-1, width)
