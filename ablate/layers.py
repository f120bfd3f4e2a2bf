"""Layer groups found from a model's own structure, and `quantize_`, which replaces layers by name pattern."""

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ablate.bitlinear import BitLinear
from ablate.errors import BadInput
from ablate.spec import LayerSpec


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer by its full name, in the model's own order, quantized ones included."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def groups(model: nn.Module) -> dict[str, list[str]]:
    """Layer groups by role and depth: {"block0.attention": [layer names], "block0.fc1": ..., "head": ...}.

    A block is the innermost element of a list of modules that holds two linear layers or more; blocks count from 0 in
    the model's order. Within a block, a layer whose nearest submodule has a square layer is attention; of the others
    those that widen are fc1 and those that narrow fc2. Outside the blocks, the last layer is the head; any other is a
    group of its own, under its own name.
    """
    layers = linear_layers(model)
    block_of = {name: _block(model, name, layers) for name in layers}
    depth = {block: i for i, block in enumerate(dict.fromkeys(b for b in block_of.values() if b))}
    outside = [name for name, block in block_of.items() if not block]
    found: dict[str, list[str]] = {}
    for name, block in block_of.items():
        if block:
            group = f"block{depth[block]}.{_role(name, block, layers)}"
        else:
            group = "head" if name == outside[-1] else name
        found.setdefault(group, []).append(name)
    return found


def _block(model: nn.Module, name: str, layers: Mapping[str, nn.Linear]) -> str:
    """The longest prefix of `name` that is an element of a module list and holds two linear layers or more."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        prefix, parent = ".".join(parts[:end]), model.get_submodule(".".join(parts[: end - 1]))
        if isinstance(parent, (nn.ModuleList, nn.Sequential)) and sum(n.startswith(prefix + ".") for n in layers) > 1:
            return prefix
    return ""


def _role(name: str, block: str, layers: Mapping[str, nn.Linear]) -> str:
    child = ".".join(name.split(".")[: block.count(".") + 2])  # the block's own submodule that holds the layer
    beside = [layer for n, layer in layers.items() if n == child or n.startswith(child + ".")]
    if any(layer.in_features == layer.out_features for layer in beside):
        return "attention"
    return "fc1" if layers[name].out_features > layers[name].in_features else "fc2"


def quantize_(model: nn.Module, precisions: Mapping[str, LayerSpec]) -> list[str]:
    """Replace linear layers in place by BitLinear, weights and bias kept; the names of those replaced.

    precisions: shell-style patterns on full layer names (`*` crosses dots) -> LayerSpec; "full" leaves a layer alone.
    Raises BadInput when a pattern matches no linear layer or two patterns match the same one; nothing is replaced then.
    """
    layers, chosen = linear_layers(model), {}
    for pattern, spec in precisions.items():
        names = match(pattern, layers, "linear layer")
        if twice := [name for name in names if name in chosen]:
            raise BadInput(f"patterns must not overlap, but {pattern!r} matches {twice[0]!r} again; narrow one of them")
        chosen.update(dict.fromkeys(names, spec))
    replaced = [name for name in layers if name in chosen and chosen[name].weights != "full"]
    for name in replaced:
        parent, _, child = name.rpartition(".")
        layer = BitLinear.from_linear(layers[name], **chosen[name].model_dump())
        setattr(model.get_submodule(parent), child, layer)
    return replaced


def match(pattern: str, names: Mapping[str, object], kind: str) -> list[str]:
    """The names that a shell-style pattern matches; BadInput, with the nearest names, when there is none."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = get_close_matches(pattern, list(names), n=3, cutoff=0) or ["none at all"]
        raise BadInput(f"pattern {pattern!r} matches no {kind}; nearest: {', '.join(near)}")
    return found
