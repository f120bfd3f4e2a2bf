"""Augmentation of a batch of images on their device: `Augment` changes each image, `mixing` pairs of them."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

ALPHA = 0.8  # of the Beta distribution of MixUp's and CutMix's weight, one a batch
# What is drawn for an image, each uniform in [0, 1). All at 0.5 leave the image as it is.
DRAWS = ("flipped", "right", "down", "warped", "angle", "width", "height", "shear")
DRAWS += ("recoloured", "brightness", "contrast", "saturation", "grey", "erased", "side", "x", "y")


class Augment(nn.Module):
    """One affine map an image, then colour, normalisation and erasing: a single graph for torch.compile.

    Half of the images are flipped, all shifted by up to 4 pixels. Strong augmentation also rotates, scales
    and shears 60 % of them, changes brightness, contrast and saturation of 60 %, makes 10 % grey, and erases
    a square of 4 to 16 pixels in 25 %.

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
        maps = affine(drawn, images.shape[-1], self.strong)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)  # (B, H, W, 2)
        pixels = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
        if self.strong:
            pixels = recoloured(pixels, {name: u[:, None, None, None] for name, u in drawn.items()})
        pixels = (pixels - self.mean) / self.std
        return pixels.masked_fill(holes(drawn, pixels.shape[-1]), 0) if self.strong else pixels


def affine(drawn: Mapping[str, Tensor], side: int, strong: bool) -> Tensor:
    """Maps from the coordinates of the result, in [-1, 1], to those of the image: (B, 2, 3)."""
    flip = torch.where(drawn["flipped"] < 0.5, -1.0, 1.0)
    right, down = (((drawn[name] * 9).floor() - 4) * 2 / side for name in ("right", "down"))  # -4 .. 4 pixels
    warped = (drawn["warped"] < 0.6) & strong
    angle, width, height, shear = (
        warped * (drawn[name] - 0.5) * span
        for name, span in (("angle", 0.6), ("width", 0.5), ("height", 0.5), ("shear", 0.5))
    )
    cos, sin = angle.cos(), angle.sin()
    x = [cos * (1 + width) * flip, (shear - sin) * (1 + height), right]
    y = [sin * (1 + width) * flip, cos * (1 + height), down]
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


def holes(drawn: Mapping[str, Tensor], size: int) -> Tensor:
    """Where images are erased: a square around a random point, cut off at the edges. bool (B, 1, H, W)."""
    at = torch.arange(size, device=drawn["x"].device)
    half = (2 + 6 * drawn["side"])[:, None]
    across, down = ((at - drawn[name][:, None] * size).abs() < half for name in ("x", "y"))  # (B, size)
    return (down[:, None, :, None] & across[:, None, None, :]) & (drawn["erased"] < 0.25)[:, None, None, None]


def mixing(classes: int) -> nn.Module:
    """MixUp (arXiv 1710.09412) or CutMix (1905.04899), with equal chances.

    Args:
        classes: Their number.

    Returns:
        (B, 3, H, W), (B,) -> (B, 3, H, W), (B, classes): each image with the one before it in the batch.
    """
    return v2.RandomChoice([kind(alpha=ALPHA, num_classes=classes) for kind in (v2.MixUp, v2.CutMix)])
