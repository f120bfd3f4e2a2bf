"""Layer groups found from a model's own structure, and `quantize_`, which replaces layers by name pattern."""

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from ablate.bitlinear import BitLinear
from ablate.errors import BadInput, quoted
from ablate.spec import LayerSpec

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, ShiftedWindowAttention)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer by its full name, in the model's own order, quantized ones included.

    Those inside torch's own attention modules are left out: a replacement there would never be called.
    """
    unfit = unquantizable(model)
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in unfit}


def unquantizable(model: nn.Module) -> dict[str, str]:
    """The modules that no pattern may reach, by name, each with the reason: convolutions, and what is in FUSED modules."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            found.setdefault(name, f"{type(module).__name__} is no linear layer, and only these are quantized")
        elif isinstance(module, FUSED):
            why = f"{type(module).__name__} reads the weights of its layers and never calls them: a BitLinear would do nothing"
            inside = (f"{name}.{child}".strip(".") for child, _ in module.named_modules())
            found = dict.fromkeys(inside, why) | found
    return found


def groups(model: nn.Module) -> dict[str, list[str]]:
    """Layer groups by role and depth: {"block0.attention": [layer names], "block0.fc1": ..., "head": ...}.

    A block is the innermost element of a list of modules that holds two linear layers or more; blocks count from 0 in
    the model's order. A block's submodule with a square layer beside two more, or beside a fused q, k and v, is
    attention; of the other layers those that widen are fc1, the rest fc2. Outside the blocks, the layers behind the
    last block that are as wide as the last one are the head; any other is a group of its own, under its own name.
    """
    layers = linear_layers(model)
    block_of = _blocks(model, layers)
    depth = {block: i for i, block in enumerate(dict.fromkeys(block for block in block_of.values() if block))}
    last = max((i for i, block in enumerate(block_of.values()) if block), default=-1)
    classes = list(layers.values())[-1].out_features if layers else 0
    found: dict[str, list[str]] = {}
    for i, (name, block) in enumerate(block_of.items()):
        if block:
            group = f"block{depth[block]}.{_role(name, block, layers)}"
        else:
            group = "head" if i > last and layers[name].out_features == classes else name
        found.setdefault(group, []).append(name)
    return found


def blocks(model: nn.Module) -> list[str]:
    """The names of the model's blocks, in its own order."""
    return [block for block in dict.fromkeys(_blocks(model, linear_layers(model)).values()) if block]


def unnormalised(model: nn.Module) -> list[str]:
    """The layers whose input a pre-norm ViT has not normalised: all but q, k, v, fc1 and the head.

    Decided by role, not by looking: of attention's layers the last one is the output projection.
    """
    found = []
    for group, names in groups(model).items():
        if group.endswith(".attention"):
            found.append(names[-1])
        elif group != "head" and not group.endswith(".fc1"):
            found += names
    return found


def _blocks(model: nn.Module, layers: Mapping[str, nn.Linear]) -> dict[str, str]:
    """The block of each layer, "" outside: an element of a module list with two layers or more and no block inside."""
    elements = [
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for child, _ in module.named_children()
    ]
    held = {element: [name for name in layers if name.startswith(f"{element}.")] for element in elements}
    blocks = [element for element, names in held.items() if len(names) > 1]
    blocks = [block for block in blocks if not any(other.startswith(f"{block}.") for other in blocks)]
    return {name: next((block for block in blocks if name in held[block]), "") for name in layers}


def _role(name: str, block: str, layers: Mapping[str, nn.Linear]) -> str:
    child = ".".join(name.split(".")[: block.count(".") + 2])  # the block's own submodule that holds the layer
    beside = {n: layer for n, layer in layers.items() if n == child or n.startswith(f"{child}.")}
    square = any(layer.in_features == layer.out_features for layer in beside.values())
    if square and (len(beside) > 2 or any(layer.out_features == 3 * layer.in_features for layer in beside.values())):
        return "attention"
    layer = layers[name]
    widens = layer.out_features > layer.in_features or (layer.out_features == layer.in_features and name == next(iter(beside)))
    return "fc1" if widens else "fc2"


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
    layer_of = {id(layers[name]): BitLinear.from_linear(layers[name], **spec.model_dump()) for name, spec in chosen.items()}
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a shared layer has several names
        if id(module) in layer_of:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer_of[id(module)])
    return [*chosen]


def resolved(model: nn.Module, precisions: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """What `quantize_` makes of patterns: the layers that it replaces, in the model's order, their norm decided."""
    layers, unfit, chosen = linear_layers(model), unquantizable(model), {}
    for pattern, spec in precisions.items():
        if spec.weights != "full":
            _check_quantizable(model, pattern, layers, unfit)
        names = match(pattern, layers, "linear layer")
        if twice := [name for name in names if name in chosen]:
            raise BadInput(f"patterns must not overlap, but {pattern!r} matches {twice[0]!r} again; narrow one of them")
        chosen.update(dict.fromkeys(names, spec))
    bare = unnormalised(model) if any(spec.norm == "unnormalised" for spec in chosen.values()) else []
    quantized = {name: chosen[name] for name in layers if name in chosen and chosen[name].weights != "full"}
    return {
        name: spec.model_copy(update={"norm": name in bare}) if spec.norm == "unnormalised" else spec
        for name, spec in quantized.items()
    }


def _check_quantizable(model: nn.Module, pattern: str, layers: Mapping[str, object], unfit: Mapping[str, str]) -> None:
    """A pattern for everything must not leave an attention full unsaid; one for nothing else names what cannot be had."""
    hits = {name: why for name, why in unfit.items() if fnmatchcase(name, pattern)}
    if any(fnmatchcase(name, pattern) for name in layers):
        hits = {name: why for name, why in hits.items() if isinstance(model.get_submodule(name), nn.Linear)}
    for name, why in hits.items():
        can = ", ".join([*layers][:3]) or "none"
        raise BadInput(f"pattern {pattern!r} matches {name!r}, but {why}; narrow it to layers that can be: {can}, ...")


def match(pattern: str, names: Mapping[str, object], kind: str) -> list[str]:
    """The names that a shell-style pattern matches; BadInput, with the nearest names, when there is none."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = get_close_matches(pattern[:200], list(names), n=3, cutoff=0) or ["none at all"]
        raise BadInput(f"pattern {quoted(pattern)} matches no {kind}; nearest: {', '.join(near)}")
    return found
