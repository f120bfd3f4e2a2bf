"""Packs models: 1-bit weights at 8 a byte, ternary at 5 a byte, int4 at 2 a byte; as safetensors and JSON.

`packed_header` says what config.json holds, and `packed_layout` which tensors model.safetensors has.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ablate.errors import BadInput, short_repr
from ablate.models.preprocessing import Preprocess
from ablate.models.skeletons import from_config
from ablate.models.torchvision_models import Named
from ablate.models.unfusing import unfuse_
from ablate.paths import local_path
from ablate.quantization import packed_layout
from ablate.quantization.attention import attention_bits
from ablate.quantization.bit_packing import pack_levels
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.integer_linear import IntegerLinear, static_of
from ablate.quantization.packed_files import JSON, OLD_JSON, TENSORS, holds_packed
from ablate.quantization.packed_header import Dtype, Header, dumps, header_of, sha256, to_config
from ablate.quantization.packing_rules import check_packable, refuse_saving
from ablate.quantization.wrappers import plain_names, unwrapped


def pack(
    model: nn.Module,
    directory: str | Path,
    *,
    preprocess: Preprocess | None = None,
    dtype: Dtype = "float32",
) -> int:
    """Write a model to a folder as config.json and model.safetensors.

    A BitLinear `name` becomes `name.weight` (uint8), `name.beta` (float32: one value, or one a channel) and
    its bias. A static activation scale adds `name.static` (float32: scale and offset). What is learned is
    stored as what it has become. A warning says where `load_packed` will need a skeleton. Once
    `ablate.integrations.transformers` is imported, transformers' `from_pretrained` reads the folder, too.

    Args:
        model: Its other tensors are stored as they are. DDP, DataParallel, AveragedModel and torch.compile
            are looked through. One that is packed already is written again, to the same bytes.
        directory: It is made where it does not exist.
        preprocess: The image processing that the model expects; it is stored beside the model.
        dtype: Of the stored tensors in floating point.

    Returns:
        The size of both files, in bytes.

    Raises:
        BadInput: A value is not finite, or would not be in `dtype`; or the folder has the file of a model
            that `pack` did not write; or the model is sharded, has adapters or fused blocks, or a quantized
            layer is pruned or parametrized. Nothing is written then.
    """
    if dtype not in get_args(Dtype):
        raise BadInput(f"dtype must be one of {', '.join(get_args(Dtype))}, but got {short_repr(dtype)}")
    check_target(directory := local_path(directory))
    check_packable(model := unwrapped(model))
    modules = model.named_modules(remove_duplicate=False)
    layers = {name: module for name, module in modules if isinstance(module, BitLinear | IntegerLinear)}
    tensors = _tensors(model, layers, dtype)
    short = plain_names(model, [*layers, *tensors])
    tensors = {short[key]: value for key, value in tensors.items()}
    specs = {short[name]: layer.spec for name, layer in layers.items()}
    header = header_of(model, specs, preprocess, dtype, attention_bits(model))
    if why := _needs_skeleton(model, header, tensors):
        warnings.warn(f"load_packed will need a skeleton of this model: {why}", stacklevel=2)
    data = _serialised(tensors)
    files = {JSON: dumps(to_config(header | {"sha256": sha256(header, data)})), TENSORS: data}
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / OLD_JSON).unlink(missing_ok=True)
    return sum(map(len, files.values()))


def check_target(directory: Path) -> None:
    """Check that a model may be packed to a folder.

    Args:
        directory: It may be missing.

    Raises:
        BadInput: A file is in the way, or a model that is not a packed one.
    """
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"a model must be packed to a folder, but {str(directory)!r} is a file; give another")
    others = [name for name in (TENSORS, JSON) if (directory / name).exists()]
    if others and not holds_packed(directory):
        other = f"{str(directory)!r} has a {others[0]} of another kind"
        raise BadInput(f"packing must not overwrite a model, but {other}; give another")


def set_saving_(model: nn.Module, preprocess: Preprocess | None, dtype: Dtype) -> None:
    """Make `save_pretrained` of a packed model of transformers write it as `pack` does.

    Args:
        model: Changed in place. The backbone inside a classifier refuses to save itself.
        preprocess: To be stored.
        dtype: Of the stored tensors.
    """
    for module in model.modules():
        for name in ("save_pretrained", "push_to_hub"):
            if module is not model and hasattr(module, name):
                vars(module)[name] = refuse_saving
    if hasattr(model, "save_pretrained"):
        vars(model)["save_pretrained"] = partial(_save, model, preprocess, dtype)


def _save(
    model: nn.Module,
    preprocess: Preprocess | None,
    dtype: Dtype,
    save_directory: str | Path,
    is_main_process: bool = True,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """Take the place of `save_pretrained`. Raises BadInput as `pack`."""
    if push_to_hub:
        raise BadInput("save_pretrained of a packed model must not upload it; call its push_to_hub instead")
    if is_main_process:
        pack(model, save_directory, preprocess=preprocess, dtype=dtype)


def _needs_skeleton(model: nn.Module, header: dict[str, Any], tensors: dict[str, Tensor]) -> str | None:
    """Why `load_packed` could not build the model from its header alone; None where it can."""
    kind, about = type(model), header["model"]
    known = kind.__module__.partition(".")[0] == "transformers" or isinstance(
        getattr(model, "config", None), Named
    )
    if about is None or not known:
        return f"{kind.__name__} is neither an image classifier of transformers nor a model that goes by name"
    packed = Header(**header, sha256="")
    try:
        built = from_config(
            **copy.deepcopy(about), parameters=len(tensors)
        )  # LeViT changes its configuration
        unfuse_(built, packed_layout.unfused_names(packed, tensors))
        packed_layout.packable_layers(built, packed)
        packed_layout.check_tensors(tensors, built, packed)
    except BadInput as error:
        return str(error)
    return None


def _tensors(
    model: nn.Module, layers: Mapping[str, BitLinear | IntegerLinear], dtype: Dtype
) -> dict[str, Tensor]:
    """The tensors to store, by name. Raises BadInput for a value that cannot be stored."""
    full = getattr(torch, dtype)
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if value.is_meta:
            rule = f"a model must have values to be packed, but {key!r} is on the meta device"
            raise BadInput(f"{rule}; load its weights first")
        name, part = packed_layout.layer_and_part(key)
        if name in layers and part in packed_layout.UNSTORED:
            continue
        if name in layers and part in ("weight", "levels"):
            layer = layers[name]
            if isinstance(layer, IntegerLinear):
                levels, beta = layer.integers(), layer.beta
            else:
                levels, beta = layer.levels_and_scale(torch.promote_types(value.dtype, torch.float32))
            static = static_of(layer)
            scales = beta if static is None else torch.cat([beta.flatten(), static])
            if not (scales.isfinite().all() and value.isfinite().all()):
                rule = "weights and scales must be finite"
                raise BadInput(f"{rule}, but those of layer {name!r} are not; train it again")
            tensors[f"{name}.weight"] = pack_levels(levels, layer.spec.weights)
            tensors[f"{name}.beta"] = beta.detach().float().flatten()
            if static is not None:
                tensors[f"{name}.static"] = static
        else:
            stored = value.to(full if value.is_floating_point() else value.dtype).contiguous()
            # a mask may hold infinities
            if stored.isnan().any() or not stored.isfinite().equal(value.isfinite()):
                rule = f"weights must be finite in {dtype}, but those of {key!r} are not"
                raise BadInput(f"{rule}; train it again, or in float32")
            tensors[key] = stored
    return tensors


def _serialised(tensors: dict[str, Tensor]) -> bytes:
    """The content of model.safetensors; tensors that share memory are stored once for each name."""
    storages = {key: value.untyped_storage().data_ptr() for key, value in tensors.items()}
    users = Counter(storages.values())
    return save({key: value.clone() if users[storages[key]] > 1 else value for key, value in tensors.items()})
