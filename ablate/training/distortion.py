"""Strong augmentation of a batch on its device: `Augment` changes each image, `mixing` pairs of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

# What is drawn for an image, each uniform in [0, 1). All at 0.5 leave the image as it is.
AFFINE = ("flipped", "right", "down", "warped", "angle", "width", "height", "shear")
COLOUR = ("recoloured", "brightness", "contrast", "saturation", "grey")
DRAWS = (*AFFINE, *COLOUR, "erased", "side", "x", "y")
UNMOVED = [DRAWS.index(name) for name in ("flipped", "right", "down")]  # at 0.5: neither flipped nor shifted


class Augment(nn.Module):
    """One affine map an image, then colour, normalisation and erasing: a single graph for torch.compile.

    Half of the images are flipped, all shifted by up to 4 pixels. Strong augmentation also rotates, scales
    and shears 60 % of them, changes brightness, contrast and saturation of 60 %, makes 10 % grey, and erases
    a square in 25 %, whose side is an eighth to a half of the image's.

    Args:
        mean: Of each channel, subtracted from pixels in [0, 1]; erased pixels have it.
        std: By which each channel is divided.
        strong: Else only flips and shifts, by the same draws.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], strong: bool = True) -> None:
        super().__init__()
        self.strong = strong
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) and draws (len(DRAWS), B) -> float32 (B, 3, H, W), normalised."""
        drawn = dict(zip(DRAWS, draws.unbind(), strict=True))
        maps = affine(drawn, images.shape[-2:], self.strong)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)  # (B, H, W, 2)
        pixels = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
        if self.strong:
            pixels = recoloured(pixels, {name: u[:, None, None, None] for name, u in drawn.items()})
        pixels = (pixels - self.mean) / self.std
        return pixels.masked_fill(holes(drawn, pixels.shape[-2:]), 0) if self.strong else pixels


def affine(drawn: Mapping[str, Tensor], size: Sequence[int], strong: bool) -> Tensor:
    """Maps from the coordinates of the result, in [-1, 1], to those of the image: (B, 2, 3)."""
    flip = torch.where(drawn["flipped"] < 0.5, -1.0, 1.0)
    height_px, width_px = size
    pixels = {name: (drawn[name] * 9).floor() - 4 for name in ("right", "down")}  # -4 .. 4
    right, down, aspect = pixels["right"] * 2 / width_px, pixels["down"] * 2 / height_px, height_px / width_px
    warped = (drawn["warped"] < 0.6) & strong
    angle, width, height, shear = (
        warped * (drawn[name] - 0.5) * span
        for name, span in (("angle", 0.6), ("width", 0.5), ("height", 0.5), ("shear", 0.5))
    )
    cos, sin = angle.cos(), angle.sin()
    x = [cos * (1 + width) * flip, (shear - sin) * (1 + height) * aspect, right]
    y = [sin * (1 + width) * flip / aspect, cos * (1 + height), down]
    return torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)


def recoloured(pixels: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """Pixels in [0, 1] with other brightness, contrast and saturation. Drawn: (B, 1, 1, 1) each."""
    brightness, contrast, saturation = (
        1 + (drawn["recoloured"] < 0.6) * (drawn[name] - 0.5) * 0.8
        for name in ("brightness", "contrast", "saturation")
    )
    pixels = pixels * brightness
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * contrast + mean
    grey = pixels.mean(1, keepdim=True)
    saturation = torch.where(drawn["grey"] < 0.1, 0.0, saturation)
    return ((pixels - grey) * saturation + grey).clamp(0, 1)


def holes(drawn: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
    """Where images are erased (arXiv 1708.04896): a square around a random point. bool (B, 1, H, W)."""
    half = (1 + 3 * drawn["side"])[:, None] * min(size) / 16
    down, across = (
        (torch.arange(side, device=half.device) - drawn[name][:, None] * side).abs() < half  # (B, side)
        for name, side in zip(("y", "x"), size, strict=True)
    )
    return (down[:, None, :, None] & across[:, None, None, :]) & (drawn["erased"] < 0.25)[:, None, None, None]


def distorted(images: Tensor, rng: np.random.Generator, colour: Sequence[float]) -> Tensor:
    """Images with strong augmentation, neither flipped nor shifted. uint8 (B, 3, H, W) -> uint8 (B, 3, H, W).

    Args:
        images: Of the batch.
        rng: The source of all draws.
        colour: Of what is erased, each channel in [0, 1].
    """
    draws = torch.from_numpy(rng.random((len(DRAWS), len(images)), dtype=np.float32))
    draws[UNMOVED] = 0.5
    augment = Augment(colour, (1.0,) * len(colour)).to(images.device)
    pixels = augment(images, draws.to(images.device)) + augment.mean
    return pixels.mul(255).round().clamp(0, 255).byte()


def mixing(classes: int, alpha: float) -> nn.Module:
    """MixUp (arXiv 1710.09412) or CutMix (1905.04899), with equal chances.

    Args:
        classes: Their number.
        alpha: Of the Beta distribution of the weight, one a batch.

    Returns:
        (B, 3, H, W), (B,) -> (B, 3, H, W), (B, classes): each image with the one before it in the batch.
    """
    return v2.RandomChoice([kind(alpha=alpha, num_classes=classes) for kind in (v2.MixUp, v2.CutMix)])
