"""Why some layers of a model stay full: their kind, how they hold their weights, or that the logits do not need them."""

import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision.models.swin_transformer import ShiftedWindowAttention

from ablate.models.loading import logits, meta_copy, sharing_copy

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, ShiftedWindowAttention)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIDES = (32, 64, 128, 224, 384)  # pixels: what is tried beside the size that a model's configuration names
SMALL = (
    10**7
)  # parameters: below, computing takes less time than torch needs to find out what it would compute

Seen = tuple[
    list[str], list[str]
]  # names of linear layers: those without effect on the logits, and those never called
_seen: WeakKeyDictionary[nn.Module, tuple[list[str], Seen]] = WeakKeyDictionary()  # beside all of the model's


def unquantizable(model: nn.Module) -> dict[str, str]:
    """The modules that no pattern may reach, by name, each with the reason.

    Convolutions; what is in FUSED modules; linear layers that are more than a weight and a bias, or share their weight
    with another; those that the model never calls, and what its logits do not need.
    """
    found = inside_fused(model)
    holders = Counter(
        id(p) for module in model.modules() for p in module._parameters.values() if p is not None
    )
    uncalled = _look(model)[1]
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            found.setdefault(
                name, f"{type(module).__name__} is no linear layer, and only these are quantized"
            )
        elif isinstance(module, nn.Linear):
            if why := unfit(module):
                found.setdefault(name, why)
            elif holders[id(module.weight)] > 1:
                found.setdefault(
                    name,
                    f"{name!r} shares its weight with another module, which would keep it in full precision",
                )
            elif name in uncalled:
                found.setdefault(name, f"its model never calls {name!r}: a BitLinear would do nothing")
    return found | unused(model)


def inside_fused(model: nn.Module) -> dict[str, str]:
    """The modules inside attention that reads the weights of its layers by itself, by name, each with the reason."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, FUSED):
            why = f"{type(module).__name__} reads the weights of its layers and never calls them: a BitLinear would do nothing"
            inside = (f"{name}.{child}".strip(".") for child, _ in module.named_modules())
            found = dict.fromkeys(inside, why) | found
    return found


def unused(model: nn.Module) -> dict[str, str]:
    """The modules that the logits do not need, by name, each with the reason.

    They hold linear layers, and of each the logits have no gradient and are the same, to the bit, with other weights.
    """
    linear, (silent, _) = _linear(model), _look(model)
    tops = {
        next(top for top in _above(name) if _below(top, linear) == _below(top, silent)): None
        for name in silent
    }
    return {
        name: f"the output of {top!r} never reaches the logits: quantizing it would change nothing but the size"
        for top in tops
        for name, _ in model.named_modules()
        if name == top or name.startswith(f"{top}.")
    }


def _linear(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _above(name: str) -> Iterator[str]:
    """The names of the modules that hold a layer, the outermost first, and its own."""
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _below(top: str, names: list[str]) -> list[str]:
    return [name for name in names if name == top or name.startswith(f"{top}.")]


def _look(model: nn.Module) -> Seen:
    """What one run of the model shows, done once for each model; nothing where it takes no image of the sizes tried."""
    if (inner := getattr(model, "_orig_mod", None)) is not None:  # torch.compile's
        silent, uncalled = _look(inner)
        return [f"_orig_mod.{name}" for name in silent], [f"_orig_mod.{name}" for name in uncalled]
    linear = _linear(model)
    if model not in _seen or _seen[model][0] != linear:
        _seen[model] = linear, _run(model, linear)
    return _seen[model][1]


def _run(model: nn.Module, linear: list[str]) -> Seen:
    config = getattr(model, "config", None)
    named = [getattr(part, "image_size", None) for part in (config, getattr(config, "vision_config", None))]
    sizes = dict.fromkeys([*((side, side) for side in SIDES), *(_pair(size) for size in named if size)])
    small = sum(parameter.numel() for parameter in model.parameters() if not is_lazy(parameter)) < SMALL
    ways = (
        (sharing_copy, meta_copy) if small else (meta_copy, sharing_copy)
    )  # a model that looks at values can't run on meta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model's own, about a size that is not its
        for copied, size in product(ways, sizes):
            try:
                silent, uncalled = _without_gradient(_unhooked(copied(model)).eval(), linear, size)
                return _without_effect(model, silent, size), [name for name in uncalled if name not in silent]
            except Exception:  # each model refuses an image in its own way
                continue
    return [], []


def _unhooked(copied: nn.Module) -> nn.Module:
    """A copy without hooks: those of its user are not to see the images that are tried here."""
    for module in copied.modules():
        for name, value in vars(module).items():
            if "hook" in name and isinstance(value, dict):
                value.clear()
    return copied


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _pixels(model: nn.Module, size: tuple[int, int]) -> Tensor:
    first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(first.device, first.dtype)


@torch.inference_mode(False)
@torch.enable_grad()
def _without_gradient(model: nn.Module, linear: list[str], size: tuple[int, int]) -> Seen:
    """Linear layers through which no gradient of an image's logits comes, and those not called; `model` is changed."""
    layers: dict[str, Any] = {
        name: module for name in linear if _owns_weight(module := model.get_submodule(name))
    }
    added: dict[str, Tensor] = {}

    def add_zero(name: str, output: Tensor) -> Tensor:
        added.setdefault(name, torch.zeros((), device=output.device, dtype=output.dtype, requires_grad=True))
        return output + added[name]

    for name, layer in layers.items():
        layer.weight = nn.Parameter(layer.weight.detach())  # has a gradient where the model's is frozen
        layer.register_forward_hook(lambda _, __, output, name=name: add_zero(name, output))
    with torch.random.fork_rng([]):
        out = logits(model, _pixels(model, size))
    leaves = [added.get(name, layer.weight) for name, layer in layers.items()]
    grads = (
        torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        if out.requires_grad
        else [None] * len(leaves)
    )
    silent = [name for name, grad in zip(layers, grads, strict=True) if grad is None]
    return silent, [name for name in layers if name not in added]


def _owns_weight(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")
    return weight is not None and weight.is_floating_point()


@torch.no_grad()
def _without_effect(model: nn.Module, silent: list[str], size: tuple[int, int]) -> list[str]:
    """Those of the layers whose weights may be anything: a gradient may also be cut off on its way."""
    if not silent or next(model.parameters()).is_meta:
        return silent
    twin = _unhooked(sharing_copy(model)).eval()
    pixels = _pixels(model, size)
    layers: dict[str, Any] = {name: twin.get_submodule(name) for name in silent}

    def matter(names: list[str]) -> bool:
        before = {name: layers[name].weight for name in names}
        for name, weight in before.items():
            layers[name].weight = nn.Parameter(torch.randn_like(weight))
        differ = not torch.equal(logits(twin, pixels), out)
        for name, weight in before.items():
            layers[name].weight = weight
        return differ

    with torch.random.fork_rng([pixels.device] if pixels.is_cuda else []):
        out = logits(twin, pixels)
        return [name for name in silent if not matter([name])] if matter(silent) else silent


def unfit(linear: nn.Linear) -> str | None:
    """Why a linear layer cannot be replaced without losing a part of it, or None: only plain ones and BitLinear can."""
    kind, tensors = type(linear), {*linear._parameters, *linear._buffers}
    if parametrized := getattr(linear, "parametrizations", None):
        by = type(next(iter(parametrized.values()))[0]).__name__.strip("_")
        return f"a layer parametrized by {by} would lose that; use torch.nn.utils.parametrize.remove_parametrizations first"
    if kind is not nn.Linear and "is_plain_linear" not in vars(kind):
        return f"{kind.__name__} is not nn.Linear itself, and its own forward and parameters would be lost"
    if tensors != {"weight", "bias"}:
        held = ", ".join(sorted(tensors - {"weight", "bias"})) or "something else"
        return f"a layer that computes its weight or bias from {held} would lose that; remove its pruning or normalisation first"
    if linear._modules or "forward" in vars(linear):
        return "a layer with modules or a forward of its own would lose them"
    if type(linear.weight) is not nn.Parameter or linear.weight.dtype not in FLOATS:
        return f"weights must be plain floating point, and {type(linear.weight).__name__} of {linear.weight.dtype} is not"
    return None
