"""Models as they are stored: 1-bit weights at 8 a byte, ternary at 5 a byte, int4 at 2 a byte; safetensors and JSON.

Nothing in the files is code: they are checked against the model they claim to hold before a value of theirs is used.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor, nn

from ablate.config.precisions import PER_BYTE
from ablate.config.trial_spec import LayerSpec, Spec, checked
from ablate.errors import BadInput, quoted
from ablate.models.preprocessing import Preprocess
from ablate.models.skeletons import from_config
from ablate.models.torchvision_models import Named
from ablate.models.unquantizable import inside_fused
from ablate.quantization.bit_packing import checked_levels, pack_levels
from ablate.quantization.bitlinear import BitLinear, carry_hooks
from ablate.quantization.image_by_image import image_by_image_
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.quantizers import quantize_weights

FORMAT = 1  # version of the layout below
JSON, TENSORS = "packed.json", "model.safetensors"
DTYPES = {  # safetensors' names, in the order in which it stores them
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Dtype = Literal["float32", "float16", "bfloat16"]
LARGEST_JSON = 2**24  # bytes; a thousand labels take 2^16

Side = Annotated[int, Field(ge=1, le=2**14)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Part = Annotated[float, Field(gt=0, le=16)]


class Images(Spec):
    """The image processing that the model expects: the fields of `Preprocess`, from `source` on where they are set."""

    size: tuple[Side, Side]
    resize: Side | tuple[Side, Side] | None
    interpolation: Literal["nearest", "nearest-exact", "lanczos", "bilinear", "bicubic"]
    scale: Finite
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    source: tuple[Side, Side] | None = None
    swapped: bool = False
    crop: bool = True
    crop_first: tuple[Part, Part] | None = None


class Architecture(Spec):
    """A model of transformers by the name of its class, or a baseline by its own; `config` holds its labels too."""

    name: str
    attention: Literal["eager", "sdpa"]
    config: dict[str, Any]


class Stored(LayerSpec):
    """A packed layer, its norm decided. `beta_per` is not written where it is "tensor", nor what only training reads."""

    beta_per: Literal["tensor", "channel"] = "tensor"  # whatever a LayerSpec's default is
    norm: bool = False


class Header(Spec):
    """What packed.json holds. `sha256` is over the other fields and the tensors; `dtype` is that of full tensors."""

    format: Literal[1]
    sha256: str
    dtype: Dtype
    layers: dict[str, Stored]
    model: Architecture | None
    preprocess: Images | None


def pack(
    model: nn.Module,
    directory: str | Path,
    *,
    preprocess: Preprocess | None = None,
    dtype: Dtype = "float32",
) -> int:
    """Write `model` to a directory as packed.json and model.safetensors; their size in bytes.

    A BitLinear `name` becomes `name.packed` (uint8), `name.beta` (float32: one value, or one a channel) and its
    bias; every other tensor is stored as it is, floating point in `dtype`. Raises BadInput where a value is not finite, or
    would not be in `dtype`, and where the directory has a model's file that `pack` did not write.
    """
    if dtype not in get_args(Dtype):
        raise BadInput(f"dtype must be one of {', '.join(get_args(Dtype))}, but got {quoted(dtype)}")
    _check_target(directory := Path(directory))
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, BitLinear)
    }
    if any(isinstance(module, IntegerLinear) for module in model.modules()):
        raise BadInput("the model is a packed one already, which keeps no weights to pack; copy its folder")
    full = getattr(torch, dtype)
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if value.is_meta:
            raise BadInput(
                f"a model must have values to be packed, but {key!r} is on the meta device; load its weights first"
            )
        name = key.removesuffix(".weight")
        if name in layers and name != key:
            value = value.to(torch.promote_types(value.dtype, torch.float32))
            levels, beta = quantize_weights(value, layers[name].spec)
            if not (beta.isfinite().all() and value.isfinite().all()):
                raise BadInput(f"weights must be finite, but those of layer {name!r} are not; train it again")
            tensors[f"{name}.packed"] = pack_levels(levels, layers[name].spec.weights)
            tensors[f"{name}.beta"] = beta.float().flatten()
        else:
            tensors[key] = kept = value.to(full if value.is_floating_point() else value.dtype).contiguous()
            if kept.isnan().any() or not kept.isfinite().equal(
                value.isfinite()
            ):  # a mask may hold infinities
                raise BadInput(
                    f"weights must be finite in {dtype}, but those of {key!r} are not; train it again, or in float32"
                )
    storages = {key: value.untyped_storage().data_ptr() for key, value in tensors.items()}
    shared = Counter(storages.values())
    data = save(
        {key: value.clone() if shared[storages[key]] > 1 else value for key, value in tensors.items()}
    )
    header = _header(model, {name: layer.spec for name, layer in layers.items()}, preprocess, dtype)
    files = {JSON: _dumps(header | {"sha256": _digest(header, data)}), TENSORS: data}
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return sum(map(len, files.values()))


def _check_target(directory: Path) -> None:
    """Raises BadInput where a file is in the way, or a model would be overwritten that is not a packed one."""
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"a model must be packed to a folder, but {str(directory)!r} is a file; give another")
    if (directory / TENSORS).exists() and not (directory / JSON).exists():
        raise BadInput(
            f"packing must not overwrite a model, but {str(directory)!r} has a {TENSORS} of another kind; give another"
        )


def packed_bytes(
    model: nn.Module,
    layers: Mapping[str, LayerSpec],
    *,
    preprocess: Preprocess | None = None,
    dtype: Dtype = "float32",
) -> int:
    """The bytes that `pack` will write once these layers of `model` are BitLinear, their norm decided: exactly.

    Counted from shapes and names, whatever the values, so it can be known before training.
    """
    names = {id(module): name for name, module in model.named_modules() if name in layers}
    every = [(name, names.get(id(module))) for name, module in model.named_modules(remove_duplicate=False)]
    layers = {
        name: layers[first] for name, first in every if first
    }  # a shared layer is stored under all its names
    order, offset, about = [*DTYPES], 0, {}
    layout = _layout(model, layers, dtype).items()
    for name, (kind, shape) in sorted(layout, key=lambda item: (order.index(item[1][0]), item[0])):
        end = offset + kind.itemsize * math.prod(shape)
        about[name] = {"dtype": DTYPES[kind], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = (
        -(-len(json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()) // 8) * 8
    )  # filled with spaces
    header = _header(model, layers, preprocess, dtype) | {"sha256": "0" * 64}
    return len(_dumps(header)) + 8 + head + offset


def load_packed(directory: str | Path, skeleton: nn.Module | None = None) -> nn.Module:
    """The model that `pack` wrote, in evaluation mode, its quantized layers as `IntegerLinear`; the rest in float32.

    skeleton: the model in full precision, filled in place, for one that transformers has no class for.
    Raises BadInput for anything but files that `pack` wrote and that fit the model.
    """
    header, tensors = read(directory)
    model = skeleton
    if model is None:
        if header.model is None:
            raise BadInput(f"{directory} holds a model that transformers has no class for; give its skeleton")
        model = from_config(**header.model.model_dump(), parameters=len(tensors))
    fused = inside_fused(model)  # what earlier versions quantized and this one leaves full loads as well
    modules = model.named_modules(remove_duplicate=False)
    linear = {name: module for name, module in modules if isinstance(module, nn.Linear) and name not in fused}
    if wrong := [
        name for name, spec in header.layers.items() if name not in linear or spec.weights == "full"
    ]:
        raise BadInput(
            f"{directory}: packed layers must be linear layers of the model, but {wrong[0][:80]!r} is none"
        )
    _check_tensors(tensors, model, header)
    for name, spec in header.layers.items():
        old, (parent, _, child) = linear[name], name.rpartition(".")
        beta = tensors.pop(f"{name}.beta")
        if not beta.isfinite().all():
            raise BadInput(f"{directory}: beta must be finite, and that of {name!r} is not")
        levels = checked_levels(
            tensors.pop(f"{name}.packed"), spec.weights, (old.out_features, old.in_features)
        )
        bias = tensors.pop(f"{name}.bias").float() if old.bias is not None else None
        layer = IntegerLinear(levels, beta, bias, spec)
        carry_hooks(old, layer)
        setattr(
            model.get_submodule(parent), child, layer if skeleton is None else layer.to(old.weight.device)
        )
    rest = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    model.load_state_dict(
        rest, strict=False, assign=skeleton is None
    )  # the names are checked; IntegerLinear adds its own
    if unset := [name for name, value in model.named_buffers() if value.is_meta]:
        raise BadInput(
            f"{directory} lacks {unset[0]!r}, which the model computes when it is built; give a skeleton"
        )
    image_by_image_(model, header.layers.values())
    return model.eval().requires_grad_(False)


def load_preprocess(directory: str | Path) -> Preprocess:
    """The image processing packed beside a model. Raises BadInput where there is none."""
    images = read(directory)[0].preprocess
    if images is None:
        raise BadInput(f"{directory} was packed without image processing; pack it with preprocess=...")
    return Preprocess(**images.model_dump())


def read(directory: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and the tensors of a packed model, intact and in the layout of FORMAT, but not yet fitted to a model.

    Raises BadInput when a file is missing, truncated, edited or of another kind.
    """
    path = Path(directory) / JSON
    text = _bytes(path, LARGEST_JSON)
    try:
        fields = json.loads(text)
        canonical = (
            isinstance(fields, dict) and _dumps(fields) == text
        )  # no repeated keys, no NaN, no other spelling
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise BadInput(f"{path} must be JSON as `pack` writes it, and is not; pack the model again")
    if repr(fields.get("format")) != repr(FORMAT):  # true == 1
        raise BadInput(
            f"{path}: format must be {FORMAT}, but got {repr(fields.get('format'))[:40]}; use the version that packed it"
        )
    try:
        header = checked(Header, fields, str(path))
    except BadInput as error:  # it quotes what it was given
        raise BadInput(" ".join(str(error).split())[:400]) from None
    data = _bytes(Path(directory) / TENSORS)
    del fields["sha256"]
    if _digest(fields, data) != header.sha256:
        raise BadInput(f"{directory}: the files are damaged or edited: sha256 differs; pack the model again")
    try:
        return header, load(data)
    except Exception as error:  # safetensors raises several kinds
        why = " ".join(str(error).split())[:100]
        raise BadInput(f"{Path(directory) / TENSORS} is not a safetensors file: {why}") from None


def _check_tensors(tensors: dict[str, Tensor], model: nn.Module, header: Header) -> None:
    """The names, shapes and dtypes must be those of the model, no more and no fewer."""
    expected = _layout(model, header.layers, header.dtype)
    given = {key: (value.dtype, tuple(value.shape)) for key, value in tensors.items()}
    for key in sorted(expected.keys() | given.keys()):
        if expected.get(key) != given.get(key):
            raise BadInput(
                f"tensor {key[:80]!r} must be {expected.get(key, 'absent')}, but got {given.get(key, 'none')}"
            )


def _layout(
    model: nn.Module, layers: Mapping[str, LayerSpec], dtype: str
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The tensors that a model with these packed layers is stored as: their dtypes and shapes."""
    found: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for key, value in model.state_dict().items():
        name = key.removesuffix(".weight")
        if name in layers and name != key:
            spec = layers[name]
            channels = value.shape[0] if spec.weights in ("int4", "int8") or spec.beta_per == "channel" else 1
            found[f"{name}.packed"] = (torch.uint8, (-(-value.numel() // PER_BYTE[spec.weights]),))
            found[f"{name}.beta"] = (torch.float32, (channels,))
        else:
            found[key] = (
                getattr(torch, dtype) if value.is_floating_point() else value.dtype,
                tuple(value.shape),
            )
    return found


def _header(
    model: nn.Module, layers: Mapping[str, LayerSpec], preprocess: Preprocess | None, dtype: str
) -> dict[str, Any]:
    """The fields of packed.json but for its digest."""
    return {
        "format": FORMAT,
        "dtype": dtype,
        "layers": {name: _stored(spec) for name, spec in layers.items()},
        "model": _architecture(model),
        "preprocess": preprocess and _images(preprocess),
    }


def _images(preprocess: Preprocess) -> dict[str, Any]:
    """Its fields, but those that came after the first version only where they are set."""
    values = {
        field: getattr(preprocess, field.name)
        for field in fields(preprocess)
        if field.name in Images.model_fields
    }
    return {field.name: value for field, value in values.items() if value != field.default}


def _stored(spec: LayerSpec) -> dict[str, Any]:
    return spec.model_dump(
        exclude={"straight_through"} | ({"beta_per"} if spec.beta_per == "tensor" else set())
    )


def _architecture(model: nn.Module) -> dict[str, Any] | None:
    """Class and configuration of a model of transformers, without private keys and dtype; name and labels of a baseline."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    if isinstance(config, Named):
        labels = {str(i): label for i, label in config.id2label.items()}
        return {"name": config.name, "attention": "eager", "config": {"id2label": labels}}
    fields = {key: value for key, value in config.to_diff_dict().items() if key[0] != "_" and key != "dtype"}
    attention = "sdpa" if config._attn_implementation == "sdpa" else "eager"
    config = json.loads(json.dumps(fields))  # labels get text for keys
    return {"name": type(model).__name__, "attention": attention, "config": config}


def _dumps(fields: dict[str, Any]) -> bytes:
    """The one spelling of packed.json."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(fields: dict[str, Any], tensors: bytes) -> str:
    return hashlib.sha256(_dumps(fields) + tensors).hexdigest()


def _bytes(path: Path, most: float = math.inf) -> bytes:
    try:
        if not path.is_file():
            raise ValueError("it must be a file, and is not; give a folder that `pack` wrote")
        if (long := path.stat().st_size) > most:
            raise ValueError(
                f"it must be at most {most} bytes long, but is {long}; give a folder that `pack` wrote"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise BadInput(f"cannot read {path}: {error}") from None
