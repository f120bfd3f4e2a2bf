"""Full-precision models to start from: bundled, torchvision's, a local `save_pretrained` folder, or one of the hub."""

import atexit
import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._pytree import tree_leaves

from ablate import baselines
from ablate.builtin import bundled
from ablate.errors import BadInput, unknown

REFUSED = {"auto_map", "quantization_config", "attn_implementation"}  # keys of a configuration that load code or files
MOST_LABELS = 2**16  # that a configuration may name by their number alone
MOST_COMPUTED = 2**28  # bytes that a model computes when it is built, such as the positions in its windows
ASSETS = Path(__file__).parent / "assets"
_provided: dict[str, Path] = {}  # folders of another machine -> where their files were put


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


def known() -> dict[str, str]:
    """Models that go by a name of ours, bundled or of torchvision, each with its one-line description."""
    return bundled("model") | baselines.KNOWN


def load(name: str, labels: list[str], seed: int = 0) -> nn.Module:
    """The model with a head for `labels`; what no checkpoint gives, such as a head, is initialised from `seed`.

    Raises BadInput for an unknown name and for a checkpoint that is missing, broken or incomplete.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in baselines.KNOWN:
            return baselines.build(name, labels)
        names = dict(enumerate(labels))
        model, info = _from_pretrained(name, num_labels=len(names), id2label=names, label2id={v: k for k, v in names.items()})
    linear = {key: module for key, module in model.named_modules() if isinstance(module, nn.Linear)}
    heads = tuple(f"{key}." for key, module in linear.items() if module.out_features == len(labels))
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent := [key for key in absent if not key.startswith(heads)]:
        raise BadInput(f"checkpoint {name!r} lacks {len(absent)} of the model's tensors, {absent[0]!r} first; save it again")
    return model


@torch.inference_mode(False)
def from_config(name: str, attention: str, config: dict[str, Any], parameters: int) -> nn.Module:
    """An image classifier by the name of its transformers class, or a baseline by its own; on the meta device, no values.

    Only what is stored nowhere, because the model computes it when it is built, has its values, on the CPU. The
    description may come from a stranger: only classes that load nothing are built, and no more of them than twice
    `parameters` parameters (a model may replace one while it is built). Raises BadInput for anything else.
    """
    if name in baselines.KNOWN:
        return baselines.from_config(name, config)
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    classes = {each for names in MAPPING.values() for each in ([names] if isinstance(names, str) else names)}
    if name not in classes - {"TimmWrapperForImageClassification"}:  # it loads the files that its configuration names
        raise BadInput(f"the model must be an image classifier of transformers, but got {name[:80]!r}; give a skeleton")
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
        raise BadInput(f"cannot build {name} from its configuration: {_first_line(error)[:200]}") from None
    finally:
        handle.remove()


def _check_config(config: Mapping[str, Any]) -> None:
    """Raises BadInput where a configuration, or one inside it, has a key that loads code or files, or fills memory."""
    for key, value in config.items():
        if key.startswith("_") or key in REFUSED:
            raise BadInput(f"the configuration must not hold {key[:80]!r}; pack the model again")
        if key == "num_labels" and not (type(value) is int and 0 <= value <= MOST_LABELS):
            raise BadInput(f"num_labels must be at most {MOST_LABELS}, but got {str(value)[:80]}; pack the model again")
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


@lru_cache
def preprocess(name: str) -> Preprocess:
    """The image processing that the model's checkpoint asks for. Raises BadInput when it has none that we can follow."""
    if name in baselines.KNOWN:
        return Preprocess(**baselines.image_processing(name))
    from transformers import AutoImageProcessor

    source = _source(name)
    try:
        processor = AutoImageProcessor.from_pretrained(source)
        return _preprocess(processor)
    except Exception as error:
        mend = "write one with ViTImageProcessor(size=...).save_pretrained(folder)"
        raise BadInput(
            f"model {name!r} must have a preprocessor_config.json that can be followed; {mend}: {_first_line(error)}"
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
    model, info = _from_pretrained(name)
    config: Any = model.config
    about = {"_name_or_path", "transformers_version", "dtype", "id2label", "label2id", "architectures"}  # change no output
    kept = {key: value for key, value in config.to_diff_dict().items() if key not in about}
    sha = hashlib.sha256(json.dumps([kept, astuple(preprocess(name))[:-1]], sort_keys=True, default=str).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key not in info["missing_keys"]:
            sha.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def absolute(name: str) -> str:
    """A model's name as every process understands it: the path of a local folder becomes absolute."""
    return str(Path(name).absolute()) if name not in known() and Path(name).is_dir() else name


def files(name: str) -> dict[str, bytes]:
    """The files of a model's local folder; none for any other."""
    if name in known() or not Path(name).is_dir():
        return {}
    return {file.name: file.read_bytes() for file in sorted(Path(name).iterdir()) if file.is_file()}


def provide(name: str, files: dict[str, bytes]) -> None:
    """Let a local folder's name mean these files in this process: the machine may lack the folder, or have another."""
    if not files or name in _provided:
        return
    folder = Path(tempfile.mkdtemp(prefix="ablate-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    _provided[name] = folder


def _source(name: str) -> str:
    if name in bundled("model"):
        return str(ASSETS / name)
    if name in _provided:
        return str(_provided[name])
    if Path(name).is_dir():
        return absolute(name)
    if "/" not in name or name.startswith(("/", ".", "~")):
        raise unknown("model", name, [*known(), "a local folder", "a hub name such as google/vit-base-patch16-224-in21k"])
    return name


def _from_pretrained(name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    import transformers

    source = _source(name)
    # On CPUs bfloat16 attention trains faster through plain matrix products than through SDPA.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForImageClassification.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # each file format raises its own kind
        mend = "give a bundled name, a save_pretrained folder or, with a network, a hub name"
        raise BadInput(f"cannot load model {name!r}: {_first_line(error)}; {mend}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
