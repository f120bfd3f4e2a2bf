"""Full-precision models to start from: bundled, torchvision's, a local `save_pretrained` folder, or one of the hub."""

import hashlib
import json
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ablate import baselines, heads
from ablate.checkpoints import load as load
from ablate.checkpoints import load_with_report as load_with_report
from ablate.checkpoints import read
from ablate.errors import BadInput
from ablate.model_files import ASSETS as ASSETS
from ablate.model_files import absolute as absolute
from ablate.model_files import config_of, first_line, source
from ablate.model_files import files as files
from ablate.model_files import provide as provide

REFUSED = {
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "num_labels",
}  # keys that load code or files, or fill memory


@dataclass(frozen=True)
class Preprocess:
    """What the model's own image processor does: resize, crop in the middle, scale, normalise."""

    size: tuple[int, int]  # (height, width) of what comes out
    resize: int | tuple[int, int] | None  # an int is the shorter side
    interpolation: str  # as torchvision names it
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: tuple[int, int] | None = None  # (height, width) of the images that come in, where it is not that of what comes out

    def of(self, images: NDArray[np.uint8]) -> "Preprocess":
        """The same, for images like these: (N, H, W, 3)."""
        source = (images.shape[1], images.shape[2])
        return replace(self, source=None if source == self.size else source)

    def __call__(self, images: Tensor) -> Tensor:
        """images: uint8 (B, 3, H, W) at their native size -> float32 (B, 3, *size)."""
        if self.resize is not None and tuple(images.shape[-2:]) != self.resize:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            images = tv.resize(images, size, tv.InterpolationMode(self.interpolation), antialias=True)
        images = tv.center_crop(images, list(self.size))
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return images.float().mul_(self.scale).sub_(mean).div_(std)


def from_config(name: str, attention: str, config: dict[str, Any], parameters: int) -> nn.Module:
    """An image classifier by the name of its transformers class, or a baseline by its own; on the meta device, no values.

    The description may come from a stranger: only classes that load nothing are built, and no more of them than twice
    `parameters` parameters (a model may replace one while it is built). Raises BadInput for anything else.
    """
    if name in baselines.KNOWN:
        return baselines.from_config(name, config)
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    classes = {each for names in MAPPING.values() for each in ([names] if isinstance(names, str) else names)}
    if name not in classes - {"TimmWrapperForImageClassification"}:  # it loads the files that its configuration names
        raise BadInput(f"the model must be an image classifier of transformers, but got {name[:80]!r}; give a skeleton")
    if refused := [key for key in config if key.startswith("_") or key in REFUSED]:
        raise BadInput(f"the configuration must not hold {refused[0][:80]!r}; pack the model again")
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
            return getattr(transformers, name)(settings)
    except Exception as error:  # each model checks its configuration in its own way
        raise BadInput(f"cannot build {name} from its configuration: {first_line(error)[:200]}") from None
    finally:
        handle.remove()


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


@lru_cache
def preprocess(name: str) -> Preprocess:
    """The image processing that the model's checkpoint asks for. Raises BadInput when it has none that we can follow."""
    if name in baselines.KNOWN:
        return Preprocess(**baselines.image_processing(name))
    from transformers import AutoImageProcessor

    where = source(name)
    try:
        processor = AutoImageProcessor.from_pretrained(where)
        return _preprocess(processor)
    except Exception as error:
        mend = "write one with ViTImageProcessor(size=...).save_pretrained(folder)"
        raise BadInput(
            f"model {name!r} must have a preprocessor_config.json that can be followed; {mend}: {first_line(error)}"
        ) from None


def _preprocess(processor: Any) -> Preprocess:
    side = processor.size.get("shortest_edge")
    resize = side or (processor.size["height"], processor.size["width"])
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    size = (crop["height"], crop["width"]) if crop else (side, side) if side else resize
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
    return Preprocess(
        size,
        resize if processor.do_resize else None,
        names[int(processor.resample)],
        processor.rescale_factor if processor.do_rescale else 1.0,
        tuple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
        tuple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
    )


@lru_cache
def digest(name: str) -> str:
    """sha256 over the checkpoint's tensors, configuration and image processing: what a trial starts from."""
    if name in baselines.KNOWN:
        return baselines.digest(name)
    loaded = read(name)
    config, model = loaded.model.config, loaded.model
    about = {"_name_or_path", "transformers_version", "dtype", "id2label", "label2id", "architectures"}  # change no output
    kept = {key: value for key, value in config.to_diff_dict().items() if key not in about}
    sha = hashlib.sha256(json.dumps([kept, astuple(preprocess(name))[:-1]], sort_keys=True, default=str).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key not in loaded.random:
            sha.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def start(name: str, labels: list[str]) -> str:
    """What a trial on data of these labels starts from: the digest, and what becomes of the head where that is more."""
    found, changed = digest(name), heads.match(config_of(name), labels).changed
    return found if changed is None else hashlib.sha256(json.dumps([found, changed]).encode()).hexdigest()
