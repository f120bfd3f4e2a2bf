"""Random flips and shifts of training images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def augment(pixels: Tensor, rng: np.random.Generator, parts: bool | str = True) -> Tensor:
    """Flip half of the images; shift each by up to an eighth of its side, reflecting at the edges.

    Args:
        pixels: uint8 (B, 3, H, W).
        rng: The source of all draws. Their number depends on B alone.
        parts: "shift" or "flip" does only that, with the same draws; any other value does both.

    Returns:
        uint8 (B, 3, H, W).
    """
    b, _, h, w = pixels.shape
    rows = np.arange(h) + rng.integers(-(h // 8), h // 8 + 1, (b, 1))  # (B, H)
    columns = np.arange(w) + rng.integers(-(w // 8), w // 8 + 1, (b, 1))  # (B, W)
    flipped = rng.random((b, 1)) < 0.5
    if parts == "flip":
        rows, columns = np.arange(h)[None], np.arange(w)[None]
    if parts != "shift":
        columns = np.where(flipped, columns[:, ::-1], columns)
    y, x = torch.from_numpy(_reflect(rows, h)), torch.from_numpy(_reflect(columns, w))
    image = torch.arange(b)[:, None, None]
    return pixels.permute(0, 2, 3, 1)[image, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)  # (B, 3, H, W)


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return size - 1 - np.abs(size - 1 - np.abs(index))
