"""Full-precision models to start from: bundled, torchvision's, a local `save_pretrained` folder, or one of the hub."""

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._pytree import tree_leaves

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import heads, torchvision_models
from ablate.models.checkpoints import read
from ablate.models.image_processors import followed
from ablate.models.locating import config_of, first_line, source
from ablate.models.preprocessing import Preprocess

REFUSED = {
    "auto_map",
    "quantization_config",
    "attn_implementation",
}  # keys of a configuration that load code or files
MOST_LABELS = 2**16  # that a configuration may name by their number alone
SIZES = ("image_size", "patch_size", "num_channels")
MOST_COMPUTED = 2**28  # bytes that a model computes when it is built, such as the positions in its windows
Stamp = tuple[tuple[str, int, int, int, int], ...]  # name, number, bytes and times of each file


@torch.inference_mode(False)
def from_config(name: str, attention: str, config: dict[str, Any], parameters: int) -> nn.Module:
    """An image classifier by the name of its transformers class, or a baseline by its own; on the meta device, no values.

    Only what is stored nowhere, because the model computes it when it is built, has its values, on the CPU. The
    description may come from a stranger: only classes that load nothing are built, and no more of them than twice
    `parameters` parameters (a model may replace one while it is built). Raises BadInput for anything else.
    """
    if name in builtin.KNOWN:
        return torchvision_models.from_config(name, config)
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    classes = {each for names in MAPPING.values() for each in ([names] if isinstance(names, str) else names)}
    if name not in classes - {
        "TimmWrapperForImageClassification"
    }:  # it loads the files that its configuration names
        raise BadInput(
            f"the model must be an image classifier of transformers, but got {name[:80]!r}; give a skeleton"
        )
    _check_config(config)
    left = 2 * parameters

    def bounded(module: nn.Module, key: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise BadInput(f"it describes more parameters than the {parameters} tensors that there are")

    handle = register_module_parameter_registration_hook(bounded)
    try:
        with torch.device("meta"):
            settings = getattr(transformers, name).config_class.from_dict(dict(config))
            settings._attn_implementation = attention
            model = getattr(transformers, name)(settings)
        _compute_buffers(model)
        return model
    except Exception as error:  # each model checks its configuration in its own way
        raise BadInput(f"cannot build {name} from its configuration: {first_line(error)[:200]}") from None
    finally:
        handle.remove()


def _check_config(config: Mapping[str, Any]) -> None:
    """Raises BadInput where a configuration, or one inside it, has a key that loads code or files, or fills memory."""
    for key, value in config.items():
        if key.startswith("_") or key in REFUSED:
            raise BadInput(f"the configuration must not hold {key[:80]!r}; pack the model again")
        if key == "num_labels" and not (type(value) is int and 0 <= value <= MOST_LABELS):
            raise BadInput(
                f"num_labels must be at most {MOST_LABELS}, but got {str(value)[:80]}; pack the model again"
            )
        if key in SIZES and any(
            type(part) is int and part < 1 for part in (value if isinstance(value, list) else [value])
        ):
            raise BadInput(f"{key} must be at least 1, but got {str(value)[:80]}; pack the model again")
        if key not in ("id2label", "label2id"):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    _check_config(part)


def _compute_buffers(model: Any) -> None:
    """Give the buffers that no file holds the values that a model of transformers computes for them when it is built."""
    unset = [
        (module, key)
        for module in model.modules()
        for key, value in module._buffers.items()
        if key in module._non_persistent_buffers_set and value is not None and value.is_meta
    ]
    if (needed := sum(module._buffers[key].nbytes for module, key in unset)) > MOST_COMPUTED:
        raise BadInput(f"its buffers must take at most {MOST_COMPUTED} bytes, but take {needed}")
    for module, key in unset:
        module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
        module._is_hf_initialized = False
    if unset:
        model.initialize_weights()  # as transformers does when it loads a checkpoint; parameters are still without values
    if left := [key for module, key in unset if module._buffers[key]._version == 0]:
        raise BadInput(f"it computes {left[0]!r} in a way that cannot be repeated; give a skeleton")


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """pixels: (B, 3, H, W) -> (B, classes), whether the model returns a tensor or an output object of transformers."""
    out = model(pixels)
    return out if isinstance(out, Tensor) else out.logits


class Logits(nn.Module):
    """A model that returns its logits, for what wants a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return logits(self.model, pixels)


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules with the model's own tensors: quick, and what is done to a module is done to the copy alone."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in _held(model)})


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of the model on the meta device, where it takes no memory and running it no time, and has no values."""
    return copy.deepcopy(model, {id(tensor): _on_meta(tensor) for tensor in _held(model)})


def _held(model: nn.Module) -> list[Tensor]:
    """The tensors of a model, those included that its modules keep in lists and dictionaries."""
    leaves = (leaf for module in model.modules() for leaf in tree_leaves(vars(module)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _on_meta(tensor: Tensor) -> Tensor:
    value = tensor.detach().to("meta")
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def preprocess(name: str) -> Preprocess:
    """Read the image processing that a model's checkpoint asks for; once a process, until its files change.

    Args:
        name: As of `load`.

    Returns:
        The processing, for images of any size; `Preprocess.of` fits it to those of a dataset.

    Raises:
        BadInput: The checkpoint has no image processor, or one that can't be followed.
    """
    if name in builtin.KNOWN:
        return Preprocess(**torchvision_models.image_processing(name))
    return _preprocess(name, *_at(name))


@lru_cache
def _preprocess(name: str, source: str, stamp: Stamp) -> Preprocess:
    try:
        return followed(source)
    except Exception as error:
        mend = "write one with ViTImageProcessor(size=...).save_pretrained(folder)"
        raise BadInput(
            f"model {name!r} must have a preprocessor_config.json that can be followed; {mend}: {first_line(error)}"
        ) from None


def digest(name: str) -> str:
    """sha256 over the checkpoint's tensors, configuration and image processing: what a trial starts from."""
    return _digest(name, *_at(name))


@lru_cache
def _digest(name: str, source: str, stamp: Stamp) -> str:
    if name in builtin.KNOWN:
        return torchvision_models.digest(name)
    loaded = read(name)
    config, model = loaded.model.config, loaded.model
    about = {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "id2label",
        "label2id",
        "architectures",
    }  # change no output
    kept = {key: value for key, value in config.to_diff_dict().items() if key not in about}
    sha = hashlib.sha256(json.dumps([kept, preprocess(name).identity], sort_keys=True, default=str).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key not in loaded.random:
            sha.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def start(name: str, labels: list[str]) -> str:
    """What a trial on data of these labels starts from: the digest, and what becomes of the head where that is more."""
    found, changed = digest(name), heads.match(config_of(name), labels).changed
    return found if changed is None else hashlib.sha256(json.dumps([found, changed]).encode()).hexdigest()


def _at(name: str) -> tuple[str, Stamp]:
    """Where a checkpoint is, and its files' names, numbers, sizes and times there: what is kept of one is valid for these."""
    if name in builtin.KNOWN:
        where, paths = (
            "",
            [torchvision_models.checkpoint(name)] if name in torchvision_models.PRETRAINED else [],
        )
    else:
        where = source(name)
        paths = sorted(Path(where).iterdir()) if Path(where).is_dir() else []
    stats = {path.name: path.stat() for path in paths if path.is_file()}
    return where, tuple(
        (file, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in stats.items()
    )
