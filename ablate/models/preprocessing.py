"""What a model's image processor does to an image: resize, crop in the middle, scale and normalise."""

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor

from ablate.errors import BadInput

OUTCOME = (
    "swapped",
    "crop_first",
)  # fields that change the pixels, and came after those of the first digests


@dataclass(frozen=True)
class Preprocess:
    """What the model's own image processor does."""

    size: tuple[int, int]  # (height, width) of what comes out
    resize: int | tuple[int, int] | None  # an int is the shorter side
    interpolation: str  # as torchvision names it
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: tuple[int, int] | None = (
        None  # (height, width) that an image covers first; None: it comes from its own size
    )
    swapped: bool = False  # blue, green, red instead of red, green, blue
    crop: bool = (
        True  # to `size`; without it, images that are not of this size once they are resized are refused
    )
    crop_first: tuple[float, float] | None = (
        None  # before resizing: (height, width) to keep, as parts of the shorter side
    )
    at_decoding: bool = (
        False  # images come in resized and cropped, each from its file's own size; never packed
    )

    def of(self, images: NDArray[np.uint8], at_decoding: bool = False, covered: bool = False) -> "Preprocess":
        """The same, for images like these: (N, H, W, 3). Raises what `check` does.

        at_decoding: they came out of `decoded`. covered: they were made to cover their size, and cropped in the middle, so
        that others must be, too, even where it is the size of what comes out.
        """
        source = (images.shape[1], images.shape[2])
        if not at_decoding:
            self.check(*source)
        return replace(
            self, source=None if source == self.size and not covered else source, at_decoding=at_decoding
        )

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
            images = tv.resize(there, size, tv.InterpolationMode(self.interpolation), antialias=True).to(
                images.device
            )
        return _crop(images, *self.size)

    def check(self, height: int, width: int) -> None:
        """Raises BadInput where images of this size are not brought to the model's, as the processor does not crop."""
        if self.crop:
            return
        resized = (height, width)
        if isinstance(side := self.resize, int):
            resized = (
                (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
            )
        if resized != self.size:
            wanted, given = f"{self.size[1]} x {self.size[0]}", f"{width} x {height}"
            mend = "set do_resize, do_center_crop and crop_size in its preprocessor_config.json"
            raise BadInput(
                f"the model's image processor must bring images to {wanted}, but not those of {given}; {mend}"
            )

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
    top, left = (
        int((has - wanted) / 2) for has, wanted in zip(images.shape[-2:], (height, width), strict=True)
    )
    return tv.crop(images, top, left, height, width)
