"""Layer groups, derived from a model's structure, and patterns on their names."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ablate.errors import BadInput, short_repr
from ablate.models.patch_embedding import GROUP, patch_convolutions
from ablate.models.unquantizable import unquantizable


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that can be quantized, and those that are.

    Layers of `unquantizable` are left out, such as those inside torch's own attention modules, where a
    replacement would never be called, and those whose output never reaches the logits.

    Args:
        model: A classifier.

    Returns:
        Full name -> layer, in the model's order.
    """
    excluded = unquantizable(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: layer for name, layer in linear.items() if name not in excluded}


def groups(model: nn.Module) -> dict[str, list[str]]:
    """Layer groups by role and depth, as {"block0.attention": [layer names], "block0.fc1": ..., "head": ...}.

    A block is the innermost element of a list of modules that holds two linear layers or more. Blocks count
    from 0 in the model's order. Inside a block:

    - attention: the layers of a submodule with a square layer beside two more layers, or beside a fused q, k
      and v, and those of modules whose class is called so. A network inside it, such as one that computes
      position biases, is a group under its own name.
    - fc1: other layers whose output a later one takes. fc2: those that take it.
    - A layer without such a partner is in a group with the name of its submodule.

    Outside the blocks, the layers after the last block that are as wide as the last one are the head. Any
    other layer is a group of its own, under its own name.

    Args:
        model: A classifier.

    Returns:
        Group -> full names of its layers, in the model's order.
    """
    layers = linear_layers(model)
    block_of = _blocks(model, layers)
    depth = {block: i for i, block in enumerate(dict.fromkeys(block for block in block_of.values() if block))}
    last = max((i for i, block in enumerate(block_of.values()) if block), default=-1)
    classes = list(layers.values())[-1].out_features if layers else 0
    roles: dict[str, str] = {}
    for block in depth:
        roles |= _roles(model, block, {name: layers[name] for name in layers if block_of[name] == block})
    members: dict[str, list[str]] = {}
    for i, (name, block) in enumerate(block_of.items()):
        if block:
            group = f"block{depth[block]}.{roles[name]}"
        else:
            group = "head" if i > last and layers[name].out_features == classes else name
            group = GROUP if hasattr(layers[name], "patch") else group
        members.setdefault(group, []).append(name)
    return members


def groups_named(model: nn.Module, patterns: Iterable[str]) -> dict[str, list[str]]:
    """The layer groups, with that of the patch embedding where a pattern names it.

    Args:
        model: A classifier.
        patterns: Shell-style patterns on names of groups. One that matches other groups does not name it.

    Returns:
        As `groups`, with "patch_embedding" before them.
    """
    members = groups(model)
    if (convolutions := [*patch_convolutions(model)]) and GROUP not in members:
        for pattern in patterns:
            if fnmatchcase(GROUP, pattern) and not any(fnmatchcase(group, pattern) for group in members):
                return {GROUP: convolutions, **members}
    return members


def blocks(model: nn.Module) -> list[str]:
    """The names of the model's blocks, in its own order."""
    return [block for block in dict.fromkeys(_blocks(model, linear_layers(model)).values()) if block]


def unnormalised(model: nn.Module) -> list[str]:
    """The layers whose input a pre-norm ViT has not normalised: all but q, k, v, fc1 and the head.

    A patch embedding does not count either: the image processor has normalised the pixels.

    The role decides. Of several layers of attention, or of what a block has in its place, the last one is the
    output projection.

    Args:
        model: A classifier.

    Returns:
        Full names.
    """
    names: list[str] = []
    for group, members in groups(model).items():
        if re.fullmatch(r"block\d+\.(?!fc[12]$).*", group):
            names += members[1:][-1:]
        elif group not in ("head", GROUP) and not group.endswith(".fc1"):
            names += members
    return names


def _blocks(model: nn.Module, layers: Mapping[str, nn.Linear]) -> dict[str, str]:
    """Layer -> its block, an innermost element of a module list with two layers or more; "" outside."""
    elements = [
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for child, _ in module.named_children()
    ]
    inside = {element: [name for name in layers if name.startswith(f"{element}.")] for element in elements}
    blocks = [element for element, names in inside.items() if len(names) > 1]
    innermost = [block for block in blocks if not any(other.startswith(f"{block}.") for other in blocks)]
    return {name: next((block for block in innermost if name in inside[block]), "") for name in layers}


def _roles(model: nn.Module, block: str, layers: Mapping[str, nn.Linear]) -> dict[str, str]:
    """The role of each of a block's layers."""
    parts: dict[str, list[str]] = {}  # the block's submodules, each with its layers
    for name in layers:
        parts.setdefault(name.removeprefix(f"{block}.").split(".")[0], []).append(name)
    # An MLP may have no submodule of its own.
    single = [names[0] for names in parts.values() if len(names) == 1]
    called_attention = len(single) == len(layers) and _called_attention(model.get_submodule(block))
    roles: dict[str, str] = {}
    for child, names in parts.items():
        path, unit = f"{block}.{child}", names if len(names) > 1 else single
        if called_attention or _is_attention(model, path, [layers[name] for name in names], names[-1]):
            roles.update({name: _network(model, path, name, names) or "attention" for name in names})
        else:
            roles.update({name: _mlp_role(layers, name, unit) or child for name in names})
    return roles


def _is_attention(model: nn.Module, child: str, layers: list[nn.Linear], name: str) -> bool:
    square = any(layer.in_features == layer.out_features for layer in layers)
    if square and (len(layers) > 2 or any(layer.out_features == 3 * layer.in_features for layer in layers)):
        return True
    return any(_called_attention(model.get_submodule(path)) for path in _between(child, name))


def _called_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def _between(child: str, name: str) -> list[str]:
    """The modules that hold a layer, from `child` on."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(child.count(".") + 1, len(parts))]


def _network(model: nn.Module, child: str, name: str, names: list[str]) -> str:
    """The nn.Sequential inside an attention that holds this layer and others, but not all; else ""."""
    for path in _between(child, name):
        inside = sum(other.startswith(f"{path}.") for other in names)
        if isinstance(model.get_submodule(path), nn.Sequential) and 1 < inside < len(names):
            return path.rpartition(".")[2]
    return ""


def _mlp_role(layers: Mapping[str, nn.Linear], name: str, unit: list[str]) -> str:
    """fc1: a later layer takes this one's output, or half of it (SwiGLU). fc2: that later one. Else ""."""
    index = unit.index(name)

    def feeds(one: str, other: str) -> bool:
        return layers[other].in_features in (layers[one].out_features, layers[one].out_features / 2)

    if any(feeds(name, later) for later in unit[index + 1 :]):
        return "fc1"
    return "fc2" if any(feeds(earlier, name) for earlier in unit[:index]) else ""


def match(pattern: str, names: Mapping[str, object], kind: str) -> list[str]:
    """The names that a shell-style pattern matches.

    Args:
        pattern: As of `fnmatch`; `*` also matches dots.
        names: To choose from.
        kind: What they are names of, for the message.

    Returns:
        The names, at least one.

    Raises:
        BadInput: There is none; the message has the nearest names.
    """
    matches = [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        near = get_close_matches(pattern[:200], list(names), n=3, cutoff=0) or ["none at all"]
        raise BadInput(f"pattern {short_repr(pattern)} matches no {kind}; nearest: {', '.join(near)}")
    return matches
