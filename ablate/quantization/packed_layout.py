"""Which layers of a model can be packed, and which tensors it is then stored as."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ablate.config.precisions import PER_BYTE, TABLE
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.patch_embedding import patch_convolutions
from ablate.models.renamed_modules import current_names
from ablate.models.unquantizable import inside_fused
from ablate.quantization.packed_header import Header

TensorLayout = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # by name, dtype and shape

STATIC = ("static.gamma", "static.offset", "static.gain")
# Of a quantized layer: they are stored as the scales that they make.
UNSTORED = ("gain", "beta", "row_sums", "static", *STATIC)


def layer_and_part(key: str) -> tuple[str, str]:
    """Split the name of a tensor of a model's state into that of its layer and the rest."""
    name, _, part = key.rpartition(".")
    longer = name.removesuffix(".static")
    return (longer, f"static.{part}") if longer != name and f"static.{part}" in STATIC else (name, part)


def layout(model: nn.Module, layers: Mapping[str, LayerSpec], dtype: str) -> TensorLayout:
    """List the tensors that a model is stored as.

    Args:
        model: In full precision, or quantized.
        layers: By name, the precision of the packed layers.
        dtype: Of the other tensors in floating point.

    Returns:
        By name, their dtypes and shapes.
    """
    full = getattr(torch, dtype)
    tensors: TensorLayout = {}
    for key, value in model.state_dict().items():
        name, part = layer_and_part(key)
        if name in layers and part in UNSTORED:
            continue
        if name in layers and part == "weight":
            spec = layers[name]
            channels = value.shape[0] if spec.beta_per == "channel" or not TABLE[spec.weights].has_beta else 1
            tensors[key] = (torch.uint8, (-(-value.numel() // PER_BYTE[spec.weights]),))
            tensors[f"{name}.beta"] = (torch.float32, (channels,))
            if spec.is_static:
                tensors[f"{name}.static"] = (torch.float32, (2,))
        else:
            tensors[key] = (full if value.is_floating_point() else value.dtype, tuple(value.shape))
    return tensors


def renamed(
    model: nn.Module, header: Header, tensors: Mapping[str, Tensor]
) -> tuple[Header, dict[str, Tensor]]:
    """Give a packed model the names of a model that another version of transformers builds.

    Args:
        model: In full precision.
        header: As it was packed.
        tensors: As they were packed.

    Returns:
        Both with the model's names; as they are where no known change of names leads to them.
    """
    scales = {f"{name}.{part}": (name, part) for name in header.layers for part in ("beta", "static")}
    names = current_names(model, [key for key in tensors if key not in scales])

    def layer(name: str) -> str:
        return names.get(f"{name}.weight", f"{name}.weight").removesuffix(".weight")

    def tensor(key: str) -> str:
        return f"{layer(scales[key][0])}.{scales[key][1]}" if key in scales else names[key]

    layers = {layer(name): spec for name, spec in header.layers.items()}
    return header.model_copy(update={"layers": layers}), {tensor(key): tensors[key] for key in tensors}


def packable_layers(model: nn.Module, header: Header) -> dict[str, Any]:
    """Find the layers of a model that can be packed.

    Args:
        model: In full precision.
        header: As it was packed.

    Returns:
        By name, linear layers and patch embeddings.

    Raises:
        BadInput: A layer of the header is none of them.
    """
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


def check_tensors(tensors: dict[str, Tensor], model: nn.Module, header: Header) -> None:
    """Check that stored tensors are those of a model.

    Args:
        tensors: As they were packed.
        model: In full precision.
        header: As it was packed.

    Raises:
        BadInput: A name, shape or dtype differs; the message has the first.
    """
    expected = layout(model, header.layers, header.dtype)
    given = {key: (value.dtype, tuple(value.shape)) for key, value in tensors.items()}
    for key in sorted(expected.keys() | given.keys()):
        wanted, got = expected.get(key, "absent"), given.get(key, "none")
        if expected.get(key) != given.get(key):
            raise BadInput(f"tensor {key[:80]!r} must be {wanted}, but got {got}")


def unfused_names(header: Header, tensors: Iterable[str]) -> list[str]:
    """List names inside the attention that was unfused when a model was packed."""
    return [*header.layers, *(key for key in tensors if ".q_proj." in key or ".qkv." in key)]
