"""Validation accuracy under common corruptions, after Hendrycks & Dietterich 2019, arXiv 1903.12261.

Five kinds of CIFAR-10-C at three of its severities, on the validation images. Noise, contrast, brightness and
JPEG are among the 15 of its benchmark, Gaussian blur is one of its 4 extra kinds. Ours round where theirs cut
off decimals; blur reflects at the borders and grows with the image.
"""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from ablate.data.datasets import Split
from ablate.models.preprocessing import Preprocess
from ablate.training.evaluation import evaluate


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _noise(pixels: Tensor, std: float, first: int) -> Tensor:
    """Gaussian noise drawn by the image's number, whatever the batch. pixels: (B, 3, H, W), uint8."""
    seeds = (torch.Generator().manual_seed(first + i) for i in range(len(pixels)))
    drawn = torch.stack([torch.randn(pixels.shape[1:], generator=seed) for seed in seeds])
    return _bytes(pixels + 255 * std * drawn)


def _blur(pixels: Tensor, sigma: float, first: int) -> Tensor:
    sigma *= min(pixels.shape[-2:]) / 32  # alike on images of all sizes
    side = min(2 * int(np.ceil(3 * sigma)) + 1, 2 * min(pixels.shape[-2:]) - 1)  # what reflection can pad
    return functional.gaussian_blur(pixels, [side, side], [sigma, sigma])


def _contrast(pixels: Tensor, share: float, first: int) -> Tensor:
    """Towards the mean of each channel of each image."""
    means = pixels.float().mean((2, 3), keepdim=True)  # (B, 3, 1, 1)
    return _bytes((pixels - means) * share + means)


def _brightness(pixels: Tensor, added: float, first: int) -> Tensor:
    """Adds to V of HSV. R, G and B are V times what hue and saturation say, so the three grow alike."""
    value = pixels.amax(1, keepdim=True).float()  # (B, 1, H, W)
    brighter = (value + 255 * added).clamp(max=255)
    return _bytes(torch.where(value > 0, pixels * brighter / value, brighter))  # black becomes grey


def _jpeg(pixels: Tensor, quality: float, first: int) -> Tensor:
    return torch.stack([functional.pil_to_tensor(_recoded(image, int(quality))) for image in pixels])


def _recoded(image: Tensor, quality: int) -> Image.Image:
    """By Pillow: torchvision's own codec is deprecated. image: (3, H, W), uint8."""
    file = BytesIO()
    functional.to_pil_image(image).save(file, "JPEG", quality=quality)
    return Image.open(file)


Corruption = Callable[[Tensor, float, int], Tensor]
# Severities 1, 3 and 5 of CIFAR-10-C (github.com/hendrycks/robustness, make_cifar_c.py).
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.08, 0.10)),
    "blur": (_blur, (0.4, 0.7, 1.0)),
    "contrast": (_contrast, (0.75, 0.4, 0.15)),
    "brightness": (_brightness, (0.05, 0.15, 0.3)),
    "jpeg": (_jpeg, (80, 58, 40)),
}


class _Corrupted:
    """Images that are corrupted as they are read: slices of (N, H, W, 3), uint8."""

    def __init__(self, images: Any, corruption: Corruption, severity: float) -> None:
        self.images, self.corruption, self.severity = images, corruption, severity

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(self.images[rows].transpose(0, 3, 1, 2).copy())  # (B, 3, H, W)
        corrupted = self.corruption(pixels, self.severity, rows.start or 0)
        return corrupted.numpy().transpose(0, 2, 3, 1)  # (B, H, W, 3)


def robust_accuracy(model: nn.Module, split: Split, preprocess: Preprocess) -> float:
    """Return the mean accuracy over CORRUPTIONS, all kinds and severities alike, 0 to 1.

    Args:
        model: A classifier; in evaluation mode afterwards.
        split: The images and labels.
        preprocess: The model's image processing.

    Raises:
        NonFinite: The loss is NaN or infinite.
    """
    accuracies = []
    for corruption, severities in CORRUPTIONS.values():
        for severity in severities:
            images: Any = _Corrupted(split.images, corruption, severity)
            accuracies.append(evaluate(model, replace(split, images=images), preprocess).accuracy)
    return float(np.mean(accuracies))
