"""What every model has, whatever it comes from: logits, copies and image processing."""

import copy
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import torchvision_models
from ablate.models.image_processors import read_image_processor
from ablate.models.locating import config_of, first_line, source
from ablate.models.preprocessing import Preprocess

# Of each file of a checkpoint: name, inode, size in bytes, and times of its last changes.
Stamp = tuple[tuple[str, int, int, int, int], ...]


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """The logits of a model that returns a tensor, or an output object of transformers.

    Args:
        model: A classifier.
        pixels: Preprocessed, (B, 3, H, W).

    Returns:
        (B, classes).
    """
    out = model(pixels)
    return out if isinstance(out, Tensor) else out.logits


class Logits(nn.Module):
    """A model that returns its logits as a tensor.

    Args:
        model: A classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (B, 3, H, W) -> (B, classes)."""
        return logits(self.model, pixels)


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares the model's tensors, so that it costs no memory.

    Args:
        model: Whose modules are copied; changes of the copy's modules do not reach them.

    Returns:
        The copy.
    """
    return copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)})


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy on the meta device: without values, in no memory, and run in no time.

    Args:
        model: The model to copy.

    Returns:
        The copy.
    """
    return copy.deepcopy(model, {id(tensor): _on_meta(tensor) for tensor in _tensors(model)})


def _tensors(model: nn.Module) -> list[Tensor]:
    """The tensors of a model, with those that its modules keep in lists and dictionaries."""
    leaves = (leaf for module in model.modules() for leaf in tree_leaves(vars(module)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _on_meta(tensor: Tensor) -> Tensor:
    value = tensor.detach().to("meta")
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def carry_hooks(old: nn.Module, new: nn.Module) -> None:
    """Move the hooks of a module to the one that replaces it. Their handles still remove them.

    Args:
        old: The module that is replaced.
        new: The module in its place.
    """
    vars(new).update({name: value for name, value in vars(old).items() if "hook" in name})


def preprocess(name: str) -> Preprocess:
    """Read the image processing of a checkpoint; cached in the process until its files change.

    Args:
        name: As of `load`.

    Returns:
        The processing, for images of any size; `Preprocess.of` fits it to those of a dataset.

    Raises:
        BadInput: The checkpoint has no image processor, or one that cannot be reproduced.
    """
    if name in builtin.KNOWN:
        return Preprocess(**torchvision_models.image_processing(name))
    return _preprocess(name, *location(name))


@lru_cache
def _preprocess(name: str, source: str, stamp: Stamp) -> Preprocess:
    if not Path(source).is_dir():
        config_of(name)  # says at once if the hub does not answer
    try:
        return read_image_processor(source)
    except BadInput:
        raise
    except Exception as error:
        rule = "must have a preprocessor_config.json that can be followed"
        mend = "write one with ViTImageProcessor(size=...).save_pretrained(folder)"
        raise BadInput(f"model {name!r} {rule}; {mend}: {first_line(error)}") from None


def location(name: str) -> tuple[str, Stamp]:
    """Find a checkpoint.

    Args:
        name: As of `checkpoints.load`.

    Returns:
        Where it is, and a stamp of its files there: cached values are valid for these alone.

    Raises:
        BadInput: The name is unknown.
    """
    if name in builtin.KNOWN:
        where = ""
        paths = [torchvision_models.checkpoint(name)] if name in torchvision_models.PRETRAINED else []
    else:
        where = source(name)
        paths = sorted(Path(where).iterdir()) if Path(where).is_dir() else []
    stats = {path.name: path.stat() for path in paths if path.is_file()}
    stamp = [(file, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in stats.items()]
    return where, tuple(stamp)
