"""What a model's image processor does to an image: resize, crop in the middle, scale and normalise.

It is read from the processor's fields, and then held against the processor itself on generated images: what differs by more
than rounding is refused.
"""

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor

from ablate.errors import BadInput

TOLERANCE = 1  # in steps of a pixel of 8 bits, 1/255 of its range before normalisation: what rounding may change
RESAMPLE = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers and torchvision's names
OUTCOME = ("swapped", "crop_first")  # fields that change the pixels, and came after those of the first digests


@dataclass(frozen=True)
class Preprocess:
    """What the model's own image processor does."""

    size: tuple[int, int]  # (height, width) of what comes out
    resize: int | tuple[int, int] | None  # an int is the shorter side
    interpolation: str  # as torchvision names it
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: tuple[int, int] | None = None  # (height, width) that an image covers first; None: it comes from its own size
    swapped: bool = False  # blue, green, red instead of red, green, blue
    crop: bool = True  # to `size`; without it, images that are not of this size once they are resized are refused
    crop_first: tuple[float, float] | None = None  # before resizing: (height, width) to keep, as parts of the shorter side
    at_decoding: bool = False  # images come in resized and cropped, each from its file's own size; never packed

    def of(self, images: NDArray[np.uint8], at_decoding: bool = False, covered: bool = False) -> "Preprocess":
        """The same, for images like these: (N, H, W, 3). Raises what `check` does.

        at_decoding: they came out of `decoded`. covered: they were made to cover their size, and cropped in the middle, so
        that others must be, too, even where it is the size of what comes out.
        """
        source = (images.shape[1], images.shape[2])
        if not at_decoding:
            self.check(*source)
        return replace(self, source=None if source == self.size and not covered else source, at_decoding=at_decoding)

    def __call__(self, images: Tensor) -> Tensor:
        """images: uint8 (B, 3, H, W) at their native size -> float32 (B, 3, *size). Raises what `check` does."""
        if not self.at_decoding or tuple(images.shape[-2:]) != self.size:
            images = self.geometry(images)
        images = images.flip(1) if self.swapped else images
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return images.float().mul_(self.scale).sub_(mean).div_(std)

    def decoded(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One image, resized and cropped: (H, W, 3) -> (*size, 3). Raises what `check` does."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()  # (1, 3, H, W)
        return self.geometry(pixels)[0].permute(1, 2, 0).contiguous().numpy()

    def geometry(self, images: Tensor) -> Tensor:
        """Resized and cropped: uint8 (B, 3, H, W) -> uint8 (B, 3, *size). Raises what `check` does."""
        height, width = images.shape[-2:]
        self.check(height, width)
        if self.crop_first:
            images = _crop(images, *self._kept(height, width))
        if self.resize is not None and tuple(images.shape[-2:]) != self.resize:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            # torchvision has no lanczos for CUDA tensors
            there = images.cpu() if self.interpolation == "lanczos" else images
            images = tv.resize(there, size, tv.InterpolationMode(self.interpolation), antialias=True).to(images.device)
        return _crop(images, *self.size)

    def check(self, height: int, width: int) -> None:
        """Raises BadInput where images of this size are not brought to the model's, as the processor does not crop."""
        if self.crop:
            return
        resized = (height, width)
        if isinstance(side := self.resize, int):
            resized = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
        if resized != self.size:
            wanted, given = f"{self.size[1]} x {self.size[0]}", f"{width} x {height}"
            mend = "set do_resize, do_center_crop and crop_size in its preprocessor_config.json"
            raise BadInput(f"the model's image processor must bring images to {wanted}, but not those of {given}; {mend}")

    def enlarges(self, height: int, width: int) -> bool:
        """Whether images of this size are scaled up."""
        height, width = self._kept(height, width)
        if self.resize is None:
            return False
        return (
            min(height, width) < self.resize
            if isinstance(self.resize, int)
            else height < self.resize[0] or width < self.resize[1]
        )

    def _kept(self, height: int, width: int) -> tuple[int, int]:
        """What is kept of an image before it is resized."""
        if not self.crop_first:
            return height, width
        down, across = (int(part * min(height, width)) for part in self.crop_first)
        return down, across

    @property
    def identity(self) -> list[Any]:
        """What changes the pixels, for a digest: a field that came later counts only where it is not at its default."""
        later = {key: getattr(self, key) for key in OUTCOME if getattr(self, key)}
        return [*astuple(self)[:6], *([later] if later else [])]


def _crop(images: Tensor, height: int, width: int) -> Tensor:
    """The middle, rounded as transformers does it; black where it is larger than the image."""
    top, left = (int((has - wanted) / 2) for has, wanted in zip(images.shape[-2:], (height, width), strict=True))
    return tv.crop(images, top, left, height, width)


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


_SIZES = {"ConvNext": _convnext, "PoolFormer": _poolformer, "Levit": _levit}  # what to resize to, and what to crop to


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
            raise ValueError(f"{kind} must {rule}, but differs by {most:.0f}/255 on an image of {width} x {height}")


def _shapes(ours: Preprocess) -> list[tuple[int, int]]:
    """(height, width) of images to try: as the model takes them, wide, tall, odd, smaller, square; all that it can crop."""
    height, width = ours.size
    if not ours.crop:
        sides = [ours.size] if ours.resize is None else [(side, side) for side in (height, height // 2 + 3, 2 * height - 1)]
        return sides
    wide, tall, near = (height + 7, 2 * width + 15), (2 * height - 3, width + 4), (height + 2, width + 1)
    return [ours.size, wide, tall, near, (height // 2 + 1, width // 3 + 2), (max(height, width) + 16,) * 2]
