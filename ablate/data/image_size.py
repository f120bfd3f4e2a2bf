"""Decides at which size the images of a folder are decoded, and how each is brought to it.

- With `?size`, the size is the user's. Without a model, it is the images' own: the one that all have, or the
  median of their widths and of their heights. An image of another size is resized until it covers that size,
  and cropped in the middle.
- For a model, images of one size that is not larger than its input stay as they are, and are resized batch by
  batch. Where they are larger, or of several sizes, each is resized and cropped from its own size as the
  model's image processor does.
"""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

Size = tuple[int, int]  # (width, height)


class Fit(NamedTuple):
    """How an image is brought to a size.

    Attributes:
        size: (width, height) of what comes out.
        processor: The model's image processor, which resizes and crops; None: the image covers the size, and
            is cropped.
    """

    size: Size
    processor: Optional["Preprocess"] = None

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Bring an image to the size.

        Args:
            image: In RGB.

        Returns:
            uint8 (H, W, 3).

        Raises:
            BadInput: The processor does not bring images of this size to its own.
        """
        if self.processor:
            return self.processor.decoded(np.asarray(image))
        return np.asarray(ImageOps.fit(image, self.size, Image.Resampling.BICUBIC))

    def enlarges(self, size: Size) -> bool:
        """Whether an image of this size is scaled up."""
        if self.processor:
            return self.processor.enlarges(*size[::-1])
        return size[0] < self.size[0] or size[1] < self.size[1]


def fit(sizes: Sequence[Size], side: int | None, preprocess: Optional["Preprocess"]) -> Fit:
    """Apply the rule at the top of this file.

    Args:
        sizes: (width, height) of each image.
        side: Of the square images that the user wants, in pixels; None: the rule decides.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        How each image is brought to one size.

    Raises:
        BadInput: The model's image processor does not bring the images to one size.
    """
    if side:
        return Fit((side, side))
    width, height = (round(statistics.median(size[axis] for size in sizes)) for axis in (0, 1))
    if preprocess is None:
        return Fit((width, height))
    model = preprocess.size[1], preprocess.size[0]
    if len(set(sizes)) == 1 and width <= model[0] and height <= model[1]:
        return Fit((width, height))
    for own in set(sizes):
        preprocess.check(*own[::-1])
    return Fit(model, preprocess)


def notes(sizes: Sequence[Size], fit: Fit, preprocess: Optional["Preprocess"]) -> list[str]:
    """Write which images are scaled up.

    Args:
        sizes: (width, height) of each image.
        fit: How each is brought to one size.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        A line on images that are scaled up when they are decoded, and one on those that are later.
    """
    lines = []
    if small := [size for size in sizes if fit.enlarges(size)]:
        smallest = min(small, key=lambda size: size[0] * size[1])
        count = f"{len(small):,} of {len(sizes):,} images"
        lines.append(f"{count} are scaled up to {_by(fit.size)} pixels, the smallest from {_by(smallest)}")
    if preprocess and not fit.processor and preprocess.enlarges(*fit.size[::-1]):
        own, wanted = _by(fit.size), f"the {_by(preprocess.size[::-1])} that the model takes"
        cropped = " and cropped" if fit.size == preprocess.size[::-1] else ""  # as timm's crop_pct has it
        lines.append(f"all images are scaled up{cropped} from {own} to {wanted}")
    return lines


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
