"""A user's own images: a folder in the layout of torchvision's ImageFolder, decoded to uint8 at one size.

`folder_layout` decides which files and classes a folder has, `image_files` decodes them.
"""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ablate.config.builtin import IMAGEFOLDER
from ablate.data import folder_walk, image_files
from ablate.data.dataset import Dataset
from ablate.data.folder_layout import layout
from ablate.data.image_files import Arrays, Contents

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess


def load(name: str, preprocess: Optional["Preprocess"] = None) -> Dataset:
    """Load the dataset "imagefolder:PATH", or "imagefolder:PATH?size=SIDE".

    Args:
        name: With an absolute path.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The images at one size, and their digest.

    Raises:
        BadInput: The size is out of range, or the folder is refused by `contents`.
    """
    folder, side = _folder_and_side(name)
    return image_files.dataset(contents(Path(folder), int(side) if side else None, preprocess))


def state(name: str) -> str:
    """Return what changes with the files of the dataset "imagefolder:PATH"."""
    return folder_walk.state(Path(_folder_and_side(name)[0]))


def read(folder: Path, side: int | None = None) -> tuple[list[str], dict[str, Arrays]]:
    """Return the classes and arrays of `contents`. Raises what `contents` raises."""
    return contents(folder, side)[:2]


def contents(folder: Path, side: int | None = None, preprocess: Optional["Preprocess"] = None) -> Contents:
    """Decode all images of a folder to one size. The notes are printed on standard error as well.

    Args:
        folder: In a layout that `folder_layout` knows.
        side: Of the square images to make, in pixels; None: by the rule of `image_size`.
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The classes, and of each split images, uint8 (N, H, W, 3), and labels, int64 (N,).

    Raises:
        BadInput: The folder has another layout, or `image_files.decoded` refuses its images.
    """
    state = partial(folder_walk.state, folder)
    return image_files.decoded(layout(folder), str(folder), side, preprocess, state, root=folder)


def _folder_and_side(name: str) -> tuple[str, str]:
    """The path and the side of "imagefolder:PATH?size=SIDE"; without one, ""."""
    parts = re.fullmatch(r"(.*?)(?:\?size=(\d+))?", name.removeprefix(IMAGEFOLDER), re.DOTALL)
    assert parts
    return parts[1], parts[2] or ""
