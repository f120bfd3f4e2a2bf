"""Packs models: 1-bit weights at 8 a byte, ternary at 5 a byte, int4 at 2 a byte; as safetensors and JSON.

`packed_header` says what config.json holds, `packed_layout` which tensors model.safetensors has, and
`packed_files` reads both files.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput, short_repr
from ablate.models.loading import carry_hooks
from ablate.models.patch_embedding import patch_convolutions
from ablate.models.preprocessing import Preprocess
from ablate.models.skeletons import from_config
from ablate.models.torchvision_models import Named
from ablate.models.unfusing import unfuse_, unfused
from ablate.models.unquantizable import inside_fused
from ablate.paths import local_path
from ablate.quantization import packed_layout
from ablate.quantization.attention import attention_bits, quantize_attention_
from ablate.quantization.bit_packing import checked_levels, pack_levels
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.fused_model import fuse_
from ablate.quantization.image_by_image import image_by_image_
from ablate.quantization.integer_linear import IntegerLinear, static_of
from ablate.quantization.packed_files import JSON, OLD_JSON, TENSORS, holds_packed
from ablate.quantization.packed_files import read as read
from ablate.quantization.packed_header import (
    Dtype,
    Header,
    dumps,
    header_of,
    naming_versions,
    preprocess_of,
    sha256,
    to_config,
)
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


def packed_bytes(
    model: nn.Module,
    layers: Mapping[str, LayerSpec],
    *,
    preprocess: Preprocess | None = None,
    dtype: Dtype = "float32",
    attention: int | None = None,
) -> int:
    """Count the bytes that `pack` will write, exactly, from shapes and names: before the model is trained.

    Args:
        model: In full precision, or already quantized.
        layers: By name, the precision of the layers that will be BitLinear, their norm decided.
        preprocess: As for `pack`.
        dtype: As for `pack`.
        attention: The bits of the attention products; None: those that the model has.

    Returns:
        The size of both files.
    """
    attention = attention or attention_bits(model)
    model = unfused(model, None if attention else layers)
    names = {id(module): name for name, module in model.named_modules() if name in layers}
    aliases = [(name, names.get(id(module))) for name, module in model.named_modules(remove_duplicate=False)]
    # a shared layer is stored under all its names
    layers = {name: layers[first] for name, first in aliases if first}
    header = header_of(model, layers, preprocess, dtype, attention) | {"sha256": "0" * 64}
    return len(dumps(to_config(header))) + packed_layout.file_bytes(
        packed_layout.layout(model, layers, dtype)
    )


def load_packed(directory: str | Path, skeleton: nn.Module | None = None, *, exact: bool = True) -> nn.Module:
    """Load a model that `pack` wrote.

    Args:
        directory: The folder of its files; or, as a str, USER/NAME or USER/NAME@REVISION on the Hugging Face
            hub.
        skeleton: The model in full precision, for one that transformers has no class for. It is filled in
            place.
        exact: Whether the model computes what its evaluation did, in float32 between integers. False: the
            fastest way on this CPU that is known (`fuse_`), for inference alone, rounded to bfloat16 between
            layers where the CPU has it.

    Returns:
        The model in evaluation mode, its quantized layers as `IntegerLinear`, the rest in float32; with
        exact=False its blocks as `FusedBlock`, where these are faster.

    Raises:
        BadInput: The files were not written by `pack`, or do not fit the model; or the hub does not answer.
    """
    header, tensors = read(directory)
    model = None if skeleton is None else unwrapped(skeleton)
    with naming_versions(header):
        if model is None:
            if header.model is None:
                rule = "holds a model that transformers has no class for"
                raise BadInput(f"{directory} {rule}; give its skeleton")
            model = from_config(**header.model.model_dump(), parameters=len(tensors))
        unfuse_(model, _unfused_names(header, tensors))
        if header.attention_bits:
            quantize_attention_(model, header.attention_bits)
        header, tensors = packed_layout.renamed(model, header, tensors)
        _fill(model, header, tensors, directory, in_place=skeleton is not None)
    if unset := [name for name, value in model.named_buffers() if value.is_meta]:
        rule = f"{directory} lacks {unset[0]!r}, which the model computes when it is built"
        raise BadInput(f"{rule}; give a skeleton")
    image_by_image_(model, header.layers.values())
    set_saving_(model, preprocess_of(header.preprocess), header.dtype)
    loaded = (model if skeleton is None else skeleton).eval().requires_grad_(False)
    if not exact:
        fuse_(loaded)
    return loaded


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


def load_preprocess(directory: str | Path) -> Preprocess:
    """Load the image processing that was packed with a model. Raises BadInput where there is none."""
    preprocess = preprocess_of(read(directory)[0].preprocess)
    if preprocess is None:
        raise BadInput(f"{directory} was packed without image processing; pack it with preprocess=...")
    return preprocess


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
        unfuse_(built, _unfused_names(packed, tensors))
        _linear(built, packed)
        _check_tensors(tensors, built, packed)
    except BadInput as error:
        return str(error)
    return None


def _unfused_names(header: Header, tensors: Iterable[str]) -> list[str]:
    """Names inside the attention that was unfused when a model was packed."""
    return [*header.layers, *(key for key in tensors if ".q_proj." in key or ".qkv." in key)]


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


def _fill(
    model: nn.Module, header: Header, tensors: dict[str, Tensor], directory: str | Path, in_place: bool
) -> None:
    """Give a model its packed layers and its other tensors. Raises BadInput where they do not fit."""
    try:
        linear = _linear(model, header)
    except BadInput as error:
        raise BadInput(f"{directory}: {error}") from None
    _check_tensors(tensors, model, header)
    for name, spec in header.layers.items():
        old, (parent, _, child) = linear[name], name.rpartition(".")
        beta = tensors.pop(f"{name}.beta")
        if not beta.isfinite().all():
            raise BadInput(f"{directory}: beta must be finite, and that of {name!r} is not")
        shape = (len(old.weight), old.weight[0].numel())
        levels = checked_levels(tensors.pop(f"{name}.weight"), spec.weights, shape)
        bias = tensors.pop(f"{name}.bias").float() if old.bias is not None else None
        static = tensors.pop(f"{name}.static", None)
        if static is not None and not (static.isfinite().all() and static[0] >= 0):
            raise BadInput(
                f"{directory}: a static scale must be finite and >= 0, and that of {name!r} is not"
            )
        layer = IntegerLinear(levels, beta, bias, spec, static, tuple(old.weight.shape[2:]) or None)
        carry_hooks(old, layer)
        setattr(model.get_submodule(parent), child, layer.to(old.weight.device) if in_place else layer)
    rest = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    # not strict: the names are checked, and IntegerLinear adds its own
    model.load_state_dict(rest, strict=False, assign=not in_place)


def _linear(model: nn.Module, header: Header) -> dict[str, Any]:
    """The layers of a model that can be packed, by name. Raises BadInput where one of the header is not."""
    # Earlier versions quantized layers that this one leaves full; they load as well.
    fused = inside_fused(model)
    modules = model.named_modules(remove_duplicate=False)
    linear: dict[str, Any] = {name: each for name, each in modules if isinstance(each, nn.Linear)}
    linear = {name: each for name, each in linear.items() if name not in fused} | patch_convolutions(model)
    for name, spec in header.layers.items():
        if name not in linear or spec.weights == "full":
            rule = "packed layers must be linear layers of the model"
            raise BadInput(f"{rule}, but {name[:80]!r} is none")
    return linear


def _check_tensors(tensors: dict[str, Tensor], model: nn.Module, header: Header) -> None:
    """Names, shapes and dtypes must be those of the model. Raises BadInput for the first that is not."""
    expected = packed_layout.layout(model, header.layers, header.dtype)
    given = {key: (value.dtype, tuple(value.shape)) for key, value in tensors.items()}
    for key in sorted(expected.keys() | given.keys()):
        wanted, got = expected.get(key, "absent"), given.get(key, "none")
        if expected.get(key) != given.get(key):
            raise BadInput(f"tensor {key[:80]!r} must be {wanted}, but got {got}")
