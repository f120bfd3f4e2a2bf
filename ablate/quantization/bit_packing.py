"""Integer weight levels as bytes, row-major, filled with zeros.

A byte holds 8 binary levels, 5 ternary ones (3^5 = 243), 2 of int4 or 1 of int8.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.config.precisions import TOP
from ablate.errors import BadInput

POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)


def pack_levels(levels: Tensor, weights: str) -> Tensor:
    """Pack weight levels.

    Args:
        levels: Integers of any shape and dtype.
        weights: The precision: "binary", "ternary", "int4" or "int8".

    Returns:
        uint8 (bytes,).
    """
    flat = levels.detach().cpu().numpy().astype(np.int8).ravel()  # (n,)
    packers = {"binary": _binary, "ternary": _ternary, "int4": _int4, "int8": _int8}
    return torch.from_numpy(packers[weights](flat))


def unpack_levels(packed: Tensor, weights: str, shape: tuple[int, int]) -> Tensor:
    """Undo `pack_levels`.

    Args:
        packed: uint8 (bytes,).
        weights: The precision.
        shape: Of the weights, (out, in).

    Returns:
        int8 levels of that shape.
    """
    data, n = packed.numpy(), shape[0] * shape[1]
    if weights == "binary":
        flat = np.unpackbits(data, bitorder="little")[:n].view(np.int8) * np.int8(2) - np.int8(1)
    elif weights == "ternary":
        flat = (data[:, None] // POWERS % np.uint8(3)).ravel()[:n].view(np.int8) - np.int8(1)
    elif weights == "int4":
        flat = np.stack([data & 15, data >> 4], axis=1).ravel()[:n].view(np.int8) - np.int8(8)
    else:
        flat = data.view(np.int8)
    return torch.from_numpy(flat.reshape(shape))


def checked_levels(packed: Tensor, weights: str, shape: tuple[int, int]) -> Tensor:
    """Do as `unpack_levels`, with a check.

    Raises:
        BadInput: `pack_levels` does not write such bytes.
    """
    levels = unpack_levels(packed, weights, shape)
    if (levels < -TOP[weights]).any() or not pack_levels(levels, weights).equal(packed):
        rule = f"bytes of {weights} weights must be as `pack` writes them"
        raise BadInput(f"{rule}, and are not; pack the model again")
    return levels


def _binary(signs: NDArray[np.int8]) -> NDArray[np.uint8]:
    return np.packbits(signs > 0, bitorder="little")


def _ternary(trits: NDArray[np.int8]) -> NDArray[np.uint8]:
    digits = _rows(trits + 1, 5)  # (bytes, 5), digits 0, 1, 2
    return (digits @ POWERS).astype(np.uint8)


def _int4(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    low, high = _rows(levels + 8, 2).T  # -7 .. 7 as 1 .. 15
    return low | high << 4


def _int8(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    return levels.view(np.uint8)


def _rows(flat: NDArray[np.int8], width: int) -> NDArray[np.uint8]:
    return np.pad(flat.astype(np.uint8), (0, -len(flat) % width)).reshape(-1, width)
