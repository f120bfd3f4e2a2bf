"""An external teacher: a checkpoint whose head knows the data's classes, shown the images of the student."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models import checkpoints, loading
from ablate.models.checkpoints import LoadReport
from ablate.models.locating import first_line
from ablate.models.preprocessing import Preprocess
from ablate.training.loss import Objective


def load_teacher(name: str, classes: list[str], images: Preprocess) -> tuple[nn.Module, LoadReport]:
    """Load a checkpoint as a teacher.

    Args:
        name: As of `checkpoints.load`.
        classes: Of the data, in order.
        images: The student's image processing.

    Returns:
        The model on the CPU, in evaluation mode and without gradients. It takes pixels that are processed for
        the student, also mixed ones. And what became of its checkpoint.

    Raises:
        BadInput: The name is unknown, the checkpoint broken, or its head would be new.
    """
    model, report = checkpoints.load_with_report(name, classes)
    if report.head == "new":
        rule = f"a teacher's head must know the data's classes, but that of {name!r} would be new"
        mend = "train it on this data and give the folder that save_pretrained wrote, or give another"
        raise BadInput(f"{rule} ({report.notes[0]}); {mend}")
    own = loading.preprocess(name)
    model.register_forward_pre_hook(lambda _, pixels: (converted(pixels[0], images, own),))
    return model.eval().requires_grad_(False), report


def check_teacher(
    name: str, teacher: nn.Module, model: nn.Module, recipe: Recipe, size: tuple[int, int]
) -> None:
    """Check that a teacher fits a student, by the loss of two images.

    Args:
        name: Of the teacher.
        teacher: Of `load_teacher`.
        model: The student, on the same device. It stays as it is.
        recipe: With `distill_blocks`, both must have blocks of the same number and size.
        size: (height, width) of the student's images.

    Raises:
        BadInput: It does not.
    """
    device = next(model.parameters()).device
    pixels, labels = torch.zeros(2, 3, *size, device=device), torch.zeros(2, dtype=torch.long, device=device)
    try:
        with torch.no_grad():
            Objective(loading.sharing_copy(model).eval(), recipe, teacher)(pixels, labels)
    except BadInput as error:
        raise BadInput(f"teacher {name!r}: {error}") from None
    except Exception as error:  # each model fails in its own way
        rule = f"teacher {name!r} must take the images that its processor makes"
        raise BadInput(f"{rule}, but: {first_line(error)}; give another") from None


def converted(pixels: Tensor, given: Preprocess, wanted: Preprocess) -> Tensor:
    """Convert the pixels of one image processing to those of another.

    Args:
        pixels: (B, 3, *given.size), as `given` makes them, or mixed from such.
        given: Of the pixels.
        wanted: Of the result. Its crop is not made: what `given` has cut off is gone.

    Returns:
        (B, 3, *wanted.size).
    """
    if _outcome(given) == _outcome(wanted):
        return pixels
    values = (pixels * _channels(given.std, pixels) + _channels(given.mean, pixels)) / given.scale  # 0 to 255
    if given.swapped != wanted.swapped:
        values = values.flip(1)
    if given.size != wanted.size:
        mode = "bicubic" if wanted.interpolation in ("bicubic", "lanczos") else "bilinear"
        values = F.interpolate(values, wanted.size, mode=mode, antialias=True).clamp(0, 255)
    return (values * wanted.scale - _channels(wanted.mean, pixels)) / _channels(wanted.std, pixels)


def _outcome(images: Preprocess) -> tuple[object, ...]:
    """What decides size and range of the pixels."""
    return images.size, images.scale, images.mean, images.std, images.swapped


def _channels(values: tuple[float, ...], pixels: Tensor) -> Tensor:
    return pixels.new_tensor(values)[:, None, None]  # (3, 1, 1)
