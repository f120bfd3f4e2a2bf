"""The classes of image files by a packed model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ablate.data.image_files import fitted
from ablate.data.image_size import Fit
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.models.locating import first_line
from ablate.paths import local_path
from ablate.quantization.fused_model import fuse_
from ablate.quantization.packed_files import packed_folder
from ablate.quantization.packed_loading import load_packed, load_preprocess

MANY = 200  # images, from which on compiling a model for seconds saves time


def predict(
    directory: str | Path, images: Sequence[str | Path], *, exact: bool = False
) -> list[tuple[str, float]]:
    """Classify image files with a packed model.

    An image is resized and cropped as the model's image processor does it, from its own size. Where the
    training images had another size (`source`), it is first scaled to cover that size, and cropped in the
    middle.

    Args:
        directory: The folder of the packed model.
        images: Paths of image files.
        exact: As for `load_packed`. False takes some seconds more to load for `MANY` images or more, for
            which the model is compiled.

    Returns:
        The class and its probability of each file.

    Raises:
        BadInput: A file is no image that Pillow reads, or the model does not take images of this size.
    """
    folder = packed_folder(directory)
    model, preprocess = load_packed(folder), load_preprocess(folder)
    if not exact:
        fuse_(model, compiles=len(images) >= MANY)
    height, width = preprocess.source or preprocess.size
    fit = Fit((width, height), None if preprocess.source else preprocess)
    preprocess = replace(preprocess, at_decoding=fit.processor is not None)
    names = getattr(getattr(model, "config", None), "id2label", {})
    predictions = []
    for path in images:
        if isinstance(image := fitted(local_path(path), fit), str):  # the reason why it was not read
            rule = f"an image must be a file that Pillow reads, but {str(path)!r}: {image}"
            raise BadInput(f"{rule}; give another")
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (1, 3, H, W), uint8
        probabilities = _logits(model, preprocess(pixels), directory).softmax(1)[0]  # (classes,)
        best = int(probabilities.argmax())
        predictions.append((str(names.get(best, best)), float(probabilities[best])))
    return predictions


def _logits(model: nn.Module, pixels: Tensor, directory: str | Path) -> Tensor:
    try:
        with torch.inference_mode():
            return logits(model, pixels)
    except (
        ValueError,
        RuntimeError,
    ) as error:  # each model has its own message for sizes that it does not take
        size, reason = " x ".join(map(str, pixels.shape[:1:-1])), first_line(error)[:200]
        rule = f"the model in {directory} takes no images of {size}: {reason}"
        raise BadInput(f"{rule}; pack it with its preprocess") from None
