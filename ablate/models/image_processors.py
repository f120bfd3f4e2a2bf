"""A checkpoint's image processor -> `Preprocess`, which does the same on batches.

The fields of the processor are read, and the result is compared with the processor itself on generated
images. A difference beyond rounding is refused.
"""

from typing import Any

import numpy as np
import torch

from ablate.models import timm_models
from ablate.models.families import Resize, Size, processor_rule, size_of
from ablate.models.preprocessing import Preprocess

# What rounding may change: steps of an 8-bit pixel, 1/255 of its range before normalisation.
TOLERANCE = 1
# timm resizes with Pillow, which rounds and clips between two passes; their order depends on its version.
# So its pixels are compared on images without extreme values, where nothing is clipped.
PILLOW_TOLERANCE, PILLOW_RANGE = 2, (64, 192)
# Numbers of PIL -> names of torchvision.
RESAMPLE = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_image_processor(source: str) -> Preprocess:
    """Read a checkpoint's image processor, and compare the result with the processor itself.

    Args:
        source: A folder with a preprocessor_config.json, or a name on the hub; or `timm/NAME:random`.

    Returns:
        The same processing. On generated images of several shapes its pixels differ by TOLERANCE/255 at most,
        or by PILLOW_TOLERANCE/255 from timm's.

    Raises:
        Exception: The processor is missing or cannot be reproduced. transformers raises many types, this
            module ValueError.
    """
    from transformers import AutoImageProcessor  # takes seconds

    if timm_models.is_random(source):
        from transformers import TimmWrapperImageProcessor

        processor = TimmWrapperImageProcessor(**timm_models.random_config(source))
    else:
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    preprocess = _read(processor)
    _check(processor, preprocess)
    return preprocess


def _read(processor: Any) -> Preprocess:
    """The processing that the fields describe; `_check` tells whether that is all."""
    if hasattr(processor, "data_config"):  # timm's
        return timm_models.read_data_config(processor.data_config)
    if not hasattr(processor, "do_resize"):
        raise ValueError(f"{type(processor).__name__} has no fields that say what it does")
    rule = processor_rule(processor)
    resize: Resize | None = None
    crop: Size | None = None
    crop_first: tuple[float, float] | None = None
    if processor.do_resize:
        resize, crop = rule.resize(processor)
    if getattr(processor, "do_center_crop", False) and (kept := processor.crop_size):
        if rule.crops_first:
            size = processor.size
            crop_first = (size["height"] / kept["height"], size["width"] / kept["width"])
        else:
            crop = (kept["height"], kept["width"])
    target = resize or size_of(processor)
    mean, std = rule.normalisation(processor)
    return Preprocess(
        size=crop or ((target, target) if isinstance(target, int) else target),
        resize=resize,
        interpolation=_interpolation(processor),
        scale=processor.rescale_factor if processor.do_rescale else 1.0,
        mean=mean,
        std=std,
        swapped=rule.may_flip_channels and bool(processor.do_flip_channel_order),
        crop=crop is not None or isinstance(resize, tuple),
        crop_first=crop_first,
    )


def _interpolation(processor: Any) -> str:
    number = int(2 if processor.resample is None else processor.resample)
    if number not in RESAMPLE:
        raise ValueError(f"its resample must be one of {RESAMPLE}, but is {number}")
    return RESAMPLE[number]


def _check(processor: Any, preprocess: Preprocess) -> None:
    """Compare with the processor on generated images. Raises ValueError that says where they differ."""
    from PIL import Image

    rng, kind = np.random.default_rng(0), type(processor).__name__
    tolerance, levels = TOLERANCE, (0, 256)
    if hasattr(processor, "data_config"):
        tolerance, levels = PILLOW_TOLERANCE, PILLOW_RANGE
    std = torch.tensor(preprocess.std)[:, None, None]
    for height, width in _shapes(preprocess):
        image = rng.integers(*levels, (height, width, 3), np.uint8)
        theirs = processor(Image.fromarray(image), return_tensors="pt").get("pixel_values")
        pixels = preprocess(torch.from_numpy(image).permute(2, 0, 1)[None])[0]  # (3, *size)
        where = f"an image of {width} x {height}"
        if theirs is None or tuple(theirs.shape[1:]) != tuple(pixels.shape):
            shape = "no pixel_values" if theirs is None else f"pixels of shape {tuple(theirs.shape[1:])}"
            raise ValueError(f"{kind} makes {shape} of {where}, where {tuple(pixels.shape)} are expected")
        steps = (pixels - theirs[0]).abs() * std / abs(preprocess.scale)
        if not (largest := steps.max().item()) <= tolerance + 0.01:
            rule = f"be followed to {tolerance}/255"
            raise ValueError(f"{kind} must {rule}, but differs by {largest:.0f}/255 on {where}")


def _shapes(preprocess: Preprocess) -> list[Size]:
    """(height, width) of images to compare.

    Of the model's size, wide, tall, odd, smaller and square; without a crop, those that it accepts.
    """
    height, width = preprocess.size
    if not preprocess.crop:
        if preprocess.resize is None:
            return [preprocess.size]
        return [(side, side) for side in (height, height // 2 + 3, 2 * height - 1)]
    wide, tall, near = (height + 7, 2 * width + 15), (2 * height - 3, width + 4), (height + 2, width + 1)
    small, square = (height // 2 + 1, width // 3 + 2), (max(height, width) + 16,) * 2
    return [preprocess.size, wide, tall, near, small, square]
