"""Resizing and cropping of images, bit for bit as torchvision does it, which a packed model runs without."""

import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.errors import BadInput

LANCZOS_SINCE = (2, 12)  # release of torch
SMOOTH = ("bilinear", "bicubic", "lanczos")  # they filter what they make smaller


def resized(images: Tensor, size: int | tuple[int, int], interpolation: str) -> Tensor:
    """Resize images, with antialiasing.

    Args:
        images: uint8 (B, 3, H, W).
        size: (height, width), or the shorter side.
        interpolation: A mode of torch's `interpolate`.

    Returns:
        uint8 (B, 3, height, width), on the device of the images.

    Raises:
        BadInput: This torch has no lanczos.
    """
    height, width = images.shape[-2:]
    if isinstance(side := size, int):
        long = int(side * max(height, width) / min(height, width))
        size = (side, long) if height <= width else (long, side)
    if (height, width) == size:
        return images
    # torch has no lanczos on CUDA.
    source = _checked(images).cpu() if interpolation == "lanczos" else images
    pixels = source if _takes_integers(source, interpolation) else source.float()
    smooth = {"align_corners": False, "antialias": True} if interpolation in SMOOTH else {}
    result = F.interpolate(pixels, size=list(size), mode=interpolation, **smooth)  # type: ignore[arg-type]
    if result.is_floating_point():
        result = result.clamp_(0, 255).round_().to(torch.uint8)
    return result.to(images.device)


def _takes_integers(images: Tensor, interpolation: str) -> bool:
    """Whether torch resizes uint8 as such, whose rounding differs from that of floats."""
    if interpolation not in SMOOTH:
        return True
    if images.device.type != "cpu":
        return False
    capability = torch.backends.cpu.get_cpu_capability()
    fast = capability in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    return interpolation != "bilinear" or fast or torch.compiler.is_compiling()


def _checked(images: Tensor) -> Tensor:
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release < LANCZOS_SINCE:
        needed, got = ".".join(map(str, LANCZOS_SINCE)), torch.__version__
        raise BadInput(f"resizing by lanczos needs torch {needed}, but this is {got}; upgrade it")
    return images


def cropped(images: Tensor, height: int, width: int, rounded: bool = False) -> Tensor:
    """The middle, rounded down as by transformers; black where it is larger than the image.

    Args:
        images: (B, 3, H, W).
        height: Of the result, in pixels.
        width: The same.
        rounded: Its corner is rounded to the nearest pixel.

    Returns:
        (B, 3, height, width).
    """
    whole: Callable[[float], int] = round if rounded else int
    (has_height, has_width) = images.shape[-2:]
    if (has_height, has_width) == (height, width):
        return images
    top, left = whole((has_height - height) / 2), whole((has_width - width) / 2)
    return F.pad(images, (-left, left + width - has_width, -top, top + height - has_height))
