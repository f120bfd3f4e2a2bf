"""A checkpoint's image processor -> `Preprocess`, which does the same on batches.

It is read from the processor's fields, and then held against the processor itself on generated images: what differs by more
than rounding is refused.
"""

from typing import Any

import numpy as np
import torch

from ablate.models.preprocessing import Preprocess

TOLERANCE = (
    1  # in steps of a pixel of 8 bits, 1/255 of its range before normalisation: what rounding may change
)
RESAMPLE = {
    0: "nearest-exact",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}  # PIL's numbers and torchvision's names


def followed(source: str) -> Preprocess:
    """Read what a checkpoint's image processor does, and hold it against the processor itself.

    Args:
        source: A folder with a preprocessor_config.json, or a name on the hub.

    Returns:
        The same processing, of which pixels differ by TOLERANCE/255 at most on generated images of several shapes.

    Raises:
        Exception: The processor is missing, or can't be followed. transformers raises many kinds; ours are ValueErrors.
    """
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    ours = _read(processor)
    _check(processor, ours)
    return ours


def _read(processor: Any) -> Preprocess:
    """The processor's fields, as they say what it does; `_check` tells whether that is all."""
    if not hasattr(processor, "do_resize"):
        raise ValueError(f"{type(processor).__name__} has no fields that say what it does")
    kind = _kind(processor)
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    crop_first = None
    if processor.do_resize:
        rule = _SIZES.get(kind)
        resize, crop = rule(processor) if rule else (_size(processor), None)
    if getattr(processor, "do_center_crop", False) and (kept := processor.crop_size):
        if kind == "Perceiver":
            size = processor.size
            crop_first = (size["height"] / kept["height"], size["width"] / kept["width"])
        else:
            crop = (kept["height"], kept["width"])
    asked = resize or _size(processor)
    size = crop or ((asked, asked) if isinstance(asked, int) else asked)
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = _normalisation(processor)
    return Preprocess(
        size,
        resize,
        _interpolation(processor),
        scale,
        mean,
        std,
        swapped=kind == "MobileViT" and bool(processor.do_flip_channel_order),
        crop=crop is not None or isinstance(resize, tuple),
        crop_first=crop_first,
    )


def _kind(processor: Any) -> str:
    return type(processor).__name__.removesuffix("Pil").removesuffix("ImageProcessor")


def _size(processor: Any) -> int | tuple[int, int]:
    """The shorter side, or (height, width)."""
    size = dict(processor.size or {})
    if size.get("shortest_edge"):
        return int(size["shortest_edge"])
    if not (size.get("height") and size.get("width")):
        raise ValueError(f"its size must be a height and a width, or a shortest_edge, but is {size}")
    return int(size["height"]), int(size["width"])


def _interpolation(processor: Any) -> str:
    number = int(2 if processor.resample is None else processor.resample)
    if number not in RESAMPLE:
        raise ValueError(f"its resample must be one of {RESAMPLE}, but is {number}")
    return RESAMPLE[number]


def _normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of three channels, with what else is subtracted and divided by."""
    kind = _kind(processor)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    if processor.do_normalize and kind != "MobileViT":  # which never normalises
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    if kind == "EfficientNet":
        if processor.do_rescale and processor.rescale_offset:
            mean = tuple(value + 1 for value in mean)
        if processor.include_top:
            std = tuple(a * b for a, b in zip(std, _three(processor.image_std), strict=True))
    return mean, std


def _three(values: Any) -> tuple[float, ...]:
    """A value a channel, where there may be one for all."""
    given = (values,) if isinstance(values, int | float) else tuple(values)
    return given * 3 if len(given) == 1 else given


def _convnext(processor: Any) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    side = _edge(processor)
    return (int(side / processor.crop_pct), (side, side)) if side < 384 else ((side, side), None)


def _poolformer(processor: Any) -> tuple[int | tuple[int, int], None]:
    size, part = _size(processor), processor.crop_pct
    if part is None:
        return size, None
    if isinstance(size, int) or size[0] == size[1]:
        return int((size if isinstance(size, int) else size[0]) / part), None
    return (int(size[0] / part), int(size[1] / part)), None


def _levit(processor: Any) -> tuple[int | tuple[int, int], None]:
    size = _size(processor)
    return (int(256 / 224 * size) if isinstance(size, int) else size), None


def _edge(processor: Any) -> int:
    if not isinstance(side := _size(processor), int):
        raise ValueError(f"its size must be a shortest_edge, but is {side}")
    return side


_SIZES = {
    "ConvNext": _convnext,
    "PoolFormer": _poolformer,
    "Levit": _levit,
}  # what to resize to, and what to crop to


def _check(processor: Any, ours: Preprocess) -> None:
    """Hold `ours` against the processor, on generated images. Raises ValueError that says where they differ."""
    from PIL import Image

    rng, kind = np.random.default_rng(0), type(processor).__name__
    for height, width in _shapes(ours):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        theirs = processor(Image.fromarray(image), return_tensors="pt").get("pixel_values")
        pixels = ours(torch.from_numpy(image).permute(2, 0, 1)[None])[0]  # (3, *size)
        if theirs is None or tuple(theirs.shape[1:]) != tuple(pixels.shape):
            shape = "no pixel_values" if theirs is None else f"pixels of shape {tuple(theirs.shape[1:])}"
            raise ValueError(
                f"{kind} makes {shape} of an image of {width} x {height}, where {tuple(pixels.shape)} are expected"
            )
        steps = (pixels - theirs[0]).abs() * torch.tensor(ours.std)[:, None, None] / abs(ours.scale)
        if not (most := steps.max().item()) <= TOLERANCE + 0.01:
            rule = f"be followed to {TOLERANCE}/255"
            raise ValueError(
                f"{kind} must {rule}, but differs by {most:.0f}/255 on an image of {width} x {height}"
            )


def _shapes(ours: Preprocess) -> list[tuple[int, int]]:
    """(height, width) of images to try: as the model takes them, wide, tall, odd, smaller, square; all that it can crop."""
    height, width = ours.size
    if not ours.crop:
        sides = (
            [ours.size]
            if ours.resize is None
            else [(side, side) for side in (height, height // 2 + 3, 2 * height - 1)]
        )
        return sides
    wide, tall, near = (height + 7, 2 * width + 15), (2 * height - 3, width + 4), (height + 2, width + 1)
    return [ours.size, wide, tall, near, (height // 2 + 1, width // 3 + 2), (max(height, width) + 16,) * 2]
