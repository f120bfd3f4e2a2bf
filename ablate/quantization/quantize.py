"""`quantize_`: replaces the linear layers of a model by name pattern."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.layer_groups import linear_layers, match, unnormalised
from ablate.models.patch_embedding import patch_convolutions
from ablate.models.unfusing import unfuse_, unfused
from ablate.models.unquantizable import unquantizable, unused
from ablate.quantization import attention
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.image_by_image import image_by_image_
from ablate.quantization.patch_layers import BitPatchEmbedding
from ablate.quantization.recorded import check_unrecorded, record_, record_of
from ablate.quantization.wrappers import unwrapped


def quantize_(
    model: nn.Module,
    precisions: Mapping[str, LayerSpec],
    *,
    attention_bits: int | Literal["recorded"] | None = "recorded",
) -> list[str]:
    """Replace linear layers by BitLinear, in place; they keep their weights and biases.

    Attention of torch and torchvision that would not call them is unfused first (`unfuse_`), where a pattern
    reaches it: nn.MultiheadAttention then has `q_proj`, `k_proj`, `v_proj` and `out_proj`.

    The configuration of a model of transformers records them, so that `save_pretrained` does;
    `recorded_precisions` reads the record.

    Args:
        model: Changed in place. Inside DDP, DataParallel, AveragedModel or torch.compile, names are those of
            the inner model.
        precisions: By shell-style pattern on full layer names (`*` crosses dots), the precision. "full"
            leaves a layer alone, and norm="unnormalised" becomes true or false by the layer's role. The patch
            embedding, a convolution, is only matched by a pattern that matches no linear layer.
        attention_bits: Of the operands of the attention products q k^T and p v, 2 to 8, in all attention
            (`quantize_attention_`). None leaves them as they are. "recorded": as the configuration of a model
            of transformers records them.

    Returns:
        The names of the layers that were replaced.

    Raises:
        BadInput: A pattern matches no linear layer, or one that its model would not call; or two patterns
            match the same layer; or the model is sharded, has adapters, or is quantized by another library;
            or its attention products cannot be quantized. Nothing is replaced then.
    """
    model = unwrapped(model)
    check_unrecorded(model)
    chosen = resolved(model, precisions)
    if "" in chosen:
        raise BadInput("the model must hold its linear layers, but is one itself; use BitLinear.from_linear")
    if attention_bits == "recorded":
        attention_bits = record_of(model).get("attention_bits")
    if attention_bits is not None:
        attention.quantize_attention_(model, attention_bits)
    attention.attention_bits(model)  # raises, while nothing is replaced
    unfuse_(model, chosen)
    replacements: dict[int, BitLinear] = {}  # by id of the old layer
    for name, spec in chosen.items():
        layer: Any = model.get_submodule(name)
        make = BitLinear.from_linear if layer.weight.ndim == 2 else BitPatchEmbedding.from_convolution
        replacements[id(layer)] = make(layer, **spec.model_dump())
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a shared layer has several names
        if id(module) in replacements:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replacements[id(module)])
    image_by_image_(model, chosen.values())
    record_(model)
    return [*chosen]


def resolved(model: nn.Module, precisions: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """Find the layers that `quantize_` replaces.

    Args:
        model: It stays as it is.
        precisions: As for `quantize_`.

    Returns:
        By name, in the model's order, the precision of each layer, its norm decided. Names are those of the
        model with its attention unfused.

    Raises:
        BadInput: As `quantize_`.
    """
    model = unfused(model)
    layers: dict[str, nn.Module] = {**linear_layers(model)}
    unfit, chosen, convolutions = unquantizable(model), {}, patch_convolutions(model)
    for pattern, spec in precisions.items():
        names = [name for name in convolutions if fnmatchcase(name, pattern)]
        if not names or any(fnmatchcase(name, pattern) for name in layers):
            if spec.weights != "full":
                _check_quantizable(model, pattern, layers, unfit)
            names = match(pattern, layers, "linear layer")
        low = [name for name in names if isinstance(layers.get(name), BitLinear)]
        if low and spec.weights == "full":
            rule = f"a layer must be in full precision to stay so, but {low[0]!r} is quantized already"
            raise BadInput(f"{rule}; load the model again")
        if twice := [name for name in names if name in chosen]:
            rule = f"patterns must not overlap, but {pattern!r} matches {twice[0]!r} again"
            raise BadInput(f"{rule}; narrow one of them")
        chosen.update(dict.fromkeys(names, spec))
    bare = unnormalised(model) if any(spec.norm == "unnormalised" for spec in chosen.values()) else []
    order = [name for name, _ in model.named_modules() if name in chosen]
    quantized = {name: chosen[name] for name in order if chosen[name].weights != "full"}
    return {
        name: spec.model_copy(update={"norm": name in bare}) if spec.norm == "unnormalised" else spec
        for name, spec in quantized.items()
    }


def _check_quantizable(
    model: nn.Module, pattern: str, layers: Mapping[str, object], unfit: Mapping[str, str]
) -> None:
    """Raises BadInput where a pattern matches layers that cannot be quantized.

    Where it matches others as well, only those that the model uses, and that are nn.Linear, count: they would
    silently stay full.
    """
    hits = {name: why for name, why in unfit.items() if fnmatchcase(name, pattern)}
    if any(fnmatchcase(name, pattern) for name in layers):
        needed = {name: why for name, why in hits.items() if name not in unused(model)}
        hits = {name: why for name, why in needed.items() if isinstance(model.get_submodule(name), nn.Linear)}
    for name, why in hits.items():
        advice = "no other layer of this model can be quantized"
        if others := ", ".join([*layers][:3]):
            advice = f"narrow it to layers that can be: {others}, ..."
        raise BadInput(f"pattern {pattern!r} matches {name!r}, but {why}; {advice}")
