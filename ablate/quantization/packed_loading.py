"""Loads packed models: their layers on integer arithmetic, the rest in float32."""

from pathlib import Path

from torch import Tensor, nn

from ablate.errors import BadInput
from ablate.models.loading import carry_hooks
from ablate.models.preprocessing import Preprocess
from ablate.models.skeletons import from_config
from ablate.models.unfusing import unfuse_
from ablate.quantization import packed_layout
from ablate.quantization.attention import quantize_attention_
from ablate.quantization.bit_packing import checked_levels
from ablate.quantization.fused_model import fuse_
from ablate.quantization.image_by_image import image_by_image_
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_files import read
from ablate.quantization.packed_header import Header, naming_versions, preprocess_of
from ablate.quantization.packing import set_saving_
from ablate.quantization.wrappers import unwrapped


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
        unfuse_(model, packed_layout.unfused_names(header, tensors))
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


def load_preprocess(directory: str | Path) -> Preprocess:
    """Load the image processing that was packed with a model. Raises BadInput where there is none."""
    preprocess = preprocess_of(read(directory)[0].preprocess)
    if preprocess is None:
        raise BadInput(f"{directory} was packed without image processing; pack it with preprocess=...")
    return preprocess


def _fill(
    model: nn.Module, header: Header, tensors: dict[str, Tensor], directory: str | Path, in_place: bool
) -> None:
    """Give a model its packed layers and its other tensors. Raises BadInput where they do not fit."""
    try:
        linear = packed_layout.packable_layers(model, header)
    except BadInput as error:
        raise BadInput(f"{directory}: {error}") from None
    packed_layout.check_tensors(tensors, model, header)
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
