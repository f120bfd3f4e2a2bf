"""`quantize_`: replaces the linear layers of a model by name pattern."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.layer_groups import linear_layers, match, unnormalised
from ablate.models.unquantizable import unquantizable, unused
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.image_by_image import image_by_image_


def quantize_(model: nn.Module, precisions: Mapping[str, LayerSpec]) -> list[str]:
    """Replace linear layers in place by BitLinear, weights and bias kept; the names of those replaced.

    precisions: shell-style patterns on full layer names (`*` crosses dots) -> LayerSpec; "full" leaves a layer alone,
    and norm="unnormalised" becomes true or false by the layer's role.
    Raises BadInput when a pattern matches no linear layer, or one inside an attention module that would pass it by, and
    when two patterns match the same layer; nothing is replaced then.
    """
    layers, chosen = linear_layers(model), resolved(model, precisions)
    if "" in chosen:
        raise BadInput("the model must hold its linear layers, but is one itself; use BitLinear.from_linear")
    layer_of = {
        id(layers[name]): BitLinear.from_linear(layers[name], **spec.model_dump())
        for name, spec in chosen.items()
    }
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a shared layer has several names
        if id(module) in layer_of:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer_of[id(module)])
    image_by_image_(model, chosen.values())
    return [*chosen]


def resolved(model: nn.Module, precisions: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """What `quantize_` makes of patterns: the layers that it replaces, in the model's order, their norm decided."""
    layers, unfit, chosen = linear_layers(model), unquantizable(model), {}
    for pattern, spec in precisions.items():
        if spec.weights != "full":
            _check_quantizable(model, pattern, layers, unfit)
        names = match(pattern, layers, "linear layer")
        if twice := [name for name in names if name in chosen]:
            raise BadInput(
                f"patterns must not overlap, but {pattern!r} matches {twice[0]!r} again; narrow one of them"
            )
        chosen.update(dict.fromkeys(names, spec))
    bare = unnormalised(model) if any(spec.norm == "unnormalised" for spec in chosen.values()) else []
    quantized = {name: chosen[name] for name in layers if name in chosen and chosen[name].weights != "full"}
    return {
        name: spec.model_copy(update={"norm": name in bare}) if spec.norm == "unnormalised" else spec
        for name, spec in quantized.items()
    }


def _check_quantizable(
    model: nn.Module, pattern: str, layers: Mapping[str, object], unfit: Mapping[str, str]
) -> None:
    """A pattern for everything must not leave a layer that matters full unsaid; one for nothing else says why it cannot."""
    hits = {name: why for name, why in unfit.items() if fnmatchcase(name, pattern)}
    if any(fnmatchcase(name, pattern) for name in layers):
        needed = {name: why for name, why in hits.items() if name not in unused(model)}
        hits = {name: why for name, why in needed.items() if isinstance(model.get_submodule(name), nn.Linear)}
    for name, why in hits.items():
        can = ", ".join([*layers][:3])
        mend = (
            f"narrow it to layers that can be: {can}, ..."
            if can
            else "no other layer of this model can be quantized"
        )
        raise BadInput(f"pattern {pattern!r} matches {name!r}, but {why}; {mend}")
