"""What a model's image processor does to an image: resize, center crop, rescale and normalise."""

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.errors import BadInput
from ablate.models.resizing import cropped, resized

LATER_FIELDS = ("swapped", "crop_first", "rounded")  # change the pixels; younger than the first digests


@dataclass(frozen=True)
class Preprocess:
    """The processing of a model's own image processor.

    Attributes:
        size: (height, width) of the result.
        resize: (height, width), or the shorter side; None without resizing.
        interpolation: Of resizing, as torchvision names it.
        scale: By which pixels of 0 to 255 are multiplied.
        mean: Subtracted from each channel after that.
        std: By which each channel is divided after that.
        source: (height, width) that an image covers first; None where it comes in its own size.
        swapped: Channels are blue, green, red.
        crop: To `size`. Without it, images that are not of this size once they are resized are refused.
        crop_first: Before resizing, (height, width) to keep, as fractions of the shorter side.
        rounded: The crop's corner is rounded to the nearest pixel, as torchvision does it; else down.
        at_decoding: Images come in resized and cropped, each from its file's own size. Never packed.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: tuple[int, int] | None = None
    swapped: bool = False
    crop: bool = True
    crop_first: tuple[float, float] | None = None
    at_decoding: bool = False
    rounded: bool = False

    def of(self, images: NDArray[np.uint8], at_decoding: bool = False, covered: bool = False) -> "Preprocess":
        """The processing for images like these.

        Args:
            images: (N, H, W, 3).
            at_decoding: They come from `decoded`.
            covered: They were resized to cover their size, and center-cropped. Images that come later must
                be, too, even where that is the size of the result.

        Returns:
            The processing, with its `source`.

        Raises:
            BadInput: As `check`.
        """
        source = (images.shape[1], images.shape[2])
        if not at_decoding:
            self.check(*source)
        is_result = source == self.size and not covered
        return replace(self, source=None if is_result else source, at_decoding=at_decoding)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) at their native size -> float32 (B, 3, *size). Raises BadInput as `check`."""
        if not self.at_decoding or tuple(images.shape[-2:]) != self.size:
            images = self.geometry(images)
        images = images.flip(1) if self.swapped else images
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return images.float().mul_(self.scale).sub_(mean).div_(std)

    def decoded(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One image, resized and cropped: (H, W, 3) -> (*size, 3). Raises BadInput as `check` does."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()  # (1, 3, H, W)
        return self.geometry(pixels)[0].permute(1, 2, 0).contiguous().numpy()

    def geometry(self, images: Tensor) -> Tensor:
        """Resize and crop: uint8 (B, 3, H, W) -> uint8 (B, 3, *size). Raises BadInput as `check` does."""
        height, width = images.shape[-2:]
        self.check(height, width)
        if self.crop_first:
            images = cropped(images, *self._after_first_crop(height, width))
        if self.resize is not None and tuple(images.shape[-2:]) != self.resize:
            images = resized(images, self.resize, self.interpolation)
        return cropped(images, *self.size, self.rounded)

    def check(self, height: int, width: int) -> None:
        """Check that images of a size are brought to the model's.

        Args:
            height: In pixels.
            width: In pixels.

        Raises:
            BadInput: They are not, as the processor does not crop.
        """
        if self.crop:
            return
        reached = (height, width)
        if isinstance(side := self.resize, int):
            long = int(side * max(height, width) / min(height, width))
            reached = (side, long) if height <= width else (long, side)
        if reached != self.size:
            rule = f"the model's image processor must bring images to {self.size[1]} x {self.size[0]}"
            mend = "set do_resize, do_center_crop and crop_size in its preprocessor_config.json"
            raise BadInput(f"{rule}, but not those of {width} x {height}; {mend}")

    @property
    def mean_colour(self) -> tuple[float, ...]:
        """The colour that becomes 0: of each channel of an image that comes in, from 0 to 1."""
        colour = tuple(min(max(mean / self.scale / 255, 0.0), 1.0) for mean in self.mean)
        return colour[::-1] if self.swapped else colour

    def enlarges(self, height: int, width: int) -> bool:
        """Whether images of this size are scaled up."""
        height, width = self._after_first_crop(height, width)
        if self.resize is None:
            return False
        if isinstance(self.resize, int):
            return min(height, width) < self.resize
        return height < self.resize[0] or width < self.resize[1]

    def _after_first_crop(self, height: int, width: int) -> tuple[int, int]:
        if not self.crop_first:
            return height, width
        down, across = (int(part * min(height, width)) for part in self.crop_first)
        return down, across

    @property
    def identity(self) -> list[Any]:
        """What changes the pixels, for a digest. LATER_FIELDS at their defaults are left out."""
        later = {key: getattr(self, key) for key in LATER_FIELDS if getattr(self, key)}
        return [*astuple(self)[:6], *([later] if later else [])]
