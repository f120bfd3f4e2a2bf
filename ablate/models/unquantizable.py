"""The layers that stay in full precision, each with the reason.

A layer stays because of its type, of the way it holds its weights, or because the logits do not depend on it.
The last is found by running the model once.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ablate.models.families import image_size
from ablate.models.loading import logits, meta_copy, sharing_copy
from ablate.models.patch_embedding import NOT_BY_DEFAULT, patch_convolutions
from ablate.models.unfusing import is_fused

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIDES = (32, 64, 128, 224, 384)  # pixels: image sizes to try beside the one that a configuration names
SMALL = 10**7  # parameters: below, running a model with values is faster than running it on the meta device


class _Trace(NamedTuple):
    """What one run of a model shows of its linear layers, by name."""

    without_effect: list[str]  # the logits do not depend on them
    uncalled: list[str]  # of the others, those whose `forward` is never called


# Traces with all linear layers.
_traces: WeakKeyDictionary[nn.Module, tuple[list[str], _Trace]] = WeakKeyDictionary()


def unquantizable(model: nn.Module) -> dict[str, str]:
    """The modules that no quantization pattern may reach.

    These are convolutions, all inside fused attention, linear layers that are more than a weight and a bias
    or share their weight, layers that the model never calls, and modules that the logits do not depend on.

    Args:
        model: Left as it is.

    Returns:
        Module name -> reason.
    """
    reasons = inside_fused(model)
    parameters = (p for module in model.modules() for p in module._parameters.values())
    holders = Counter(id(p) for p in parameters if p is not None)
    uncalled = _trace(model).uncalled
    reasons |= dict.fromkeys(patch_convolutions(model), NOT_BY_DEFAULT)
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            why = f"{type(module).__name__} is not a linear layer, and only linear layers are quantized"
            reasons.setdefault(name, why)
        elif isinstance(module, nn.Linear):
            if reason := unfit(module):
                reasons.setdefault(name, reason)
            elif holders[id(module.weight)] > 1:
                why = "shares its weight with another module, which would keep it in full precision"
                reasons.setdefault(name, f"{name!r} {why}")
            elif name in uncalled:
                reasons.setdefault(name, f"its model never calls {name!r}: a BitLinear would do nothing")
    return reasons | unused(model)


def inside_fused(model: nn.Module) -> dict[str, str]:
    """The modules inside attention that reads the weights of its layers.

    Args:
        model: Left as it is.

    Returns:
        Module name -> reason.
    """
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if is_fused(module):
            does = "reads the weights of its layers and never calls them"
            why = f"{type(module).__name__} {does}: a BitLinear would do nothing"
            inside = (f"{name}.{child}".strip(".") for child, _ in module.named_modules())
            reasons = dict.fromkeys(inside, why) | reasons
    return reasons


def unused(model: nn.Module) -> dict[str, str]:
    """The modules that the logits do not depend on.

    All linear layers in such a module have no gradient from the logits, and other weights in them give equal
    logits to the last bit.

    Args:
        model: Left as it is.

    Returns:
        Module name -> reason.
    """
    linear, without_effect = _linear_names(model), _trace(model).without_effect
    tops = {
        next(top for top in _parents(name) if _inside(top, linear) == _inside(top, without_effect)): None
        for name in without_effect
    }
    why = "never reaches the logits: quantizing it would change nothing but the size"
    return {
        name: f"the output of {top!r} {why}"
        for top in tops
        for name in _inside(top, [name for name, _ in model.named_modules()])
    }


def unfit(linear: nn.Linear) -> str | None:
    """Why a BitLinear in place of a linear layer would lose a part of it.

    Args:
        linear: The layer.

    Returns:
        The reason; None for a plain nn.Linear and for a BitLinear, which can be replaced.
    """
    kind, tensors = type(linear), {*linear._parameters, *linear._buffers}
    parts = {"weight", "bias"} if kind is nn.Linear else vars(kind).get("parts")  # those of a BitLinear
    if parametrized := getattr(linear, "parametrizations", None):
        by = type(next(iter(parametrized.values()))[0]).__name__.strip("_")
        mend = "use torch.nn.utils.parametrize.remove_parametrizations first"
        return f"a layer parametrized by {by} would lose that; {mend}"
    if parts is None:
        return f"{kind.__name__} is not nn.Linear itself, and its own forward and parameters would be lost"
    if tensors != parts - {*linear._modules}:
        others = ", ".join(sorted(tensors - parts)) or "something else"
        mend = "remove its pruning or normalisation first"
        return f"a layer that computes its weight or bias from {others} would lose that; {mend}"
    if {*linear._modules} - parts or "forward" in vars(linear):
        return "a layer with modules or a forward of its own would lose them"
    if type(linear.weight) is not nn.Parameter or linear.weight.dtype not in FLOATS:
        weight = f"{type(linear.weight).__name__} of {linear.weight.dtype}"
        return f"weights must be plain floating point, and {weight} is not"
    return None


def _linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _parents(name: str) -> Iterator[str]:
    """The names of the modules that hold a layer, the outermost first, and its own."""
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _inside(top: str, names: list[str]) -> list[str]:
    return [name for name in names if name == top or name.startswith(f"{top}.")]


def _trace(model: nn.Module) -> _Trace:
    """Run a model once, and cache the result; empty where it accepts no image of the sizes tried."""
    if (inner := getattr(model, "_orig_mod", None)) is not None:  # torch.compile's
        without_effect, uncalled = _trace(inner)
        return _Trace([f"_orig_mod.{n}" for n in without_effect], [f"_orig_mod.{n}" for n in uncalled])
    linear = _linear_names(model)
    if model not in _traces or _traces[model][0] != linear:
        _traces[model] = linear, _run(model, linear)
    return _traces[model][1]


def _run(model: nn.Module, linear: list[str]) -> _Trace:
    small = sum(parameter.numel() for parameter in model.parameters() if not is_lazy(parameter)) < SMALL
    # Control flow that depends on values cannot run on the meta device: the other way is tried after it.
    ways = (sharing_copy, meta_copy) if small else (meta_copy, sharing_copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model's own, about images of unexpected sizes
        for copied, size in product(ways, _sizes(model)):
            try:
                silent, uncalled = _without_gradient(_unhooked(copied(model)).eval(), linear, size)
                without_effect = _without_effect(model, silent, size)
                return _Trace(without_effect, [name for name in uncalled if name not in silent])
            except Exception:  # each model refuses images of other sizes in its own way
                continue
    return _Trace([], [])


def _sizes(model: nn.Module) -> list[tuple[int, int]]:
    """(height, width) of images to try."""
    named = image_size(getattr(model, "config", None)) or image_size(model)  # of torchvision's ViT
    return [*dict.fromkeys([*((side, side) for side in SIDES), *([named] if named else [])])]


def _unhooked(copied: nn.Module) -> nn.Module:
    """A copy without hooks, as a user's hooks must not see the images that are tried here."""
    for module in copied.modules():
        for name, value in vars(module).items():
            if "hook" in name and isinstance(value, dict):
                value.clear()
    return copied


def _pixels(model: nn.Module, size: tuple[int, int]) -> Tensor:
    first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *size, generator=generator).to(first.device, first.dtype)


@torch.inference_mode(False)
@torch.enable_grad()
def _without_gradient(
    model: nn.Module, linear: list[str], size: tuple[int, int]
) -> tuple[list[str], list[str]]:
    """Linear layers without a gradient from the logits, and those that are not called. Changes `model`."""
    modules = {name: model.get_submodule(name) for name in linear}
    layers: dict[str, Any] = {name: module for name, module in modules.items() if _owns_weight(module)}
    zeros: dict[str, Tensor] = {}  # added to the outputs of called layers

    def add_zero(name: str, output: Tensor) -> Tensor:
        zero = torch.zeros((), device=output.device, dtype=output.dtype, requires_grad=True)
        return output + zeros.setdefault(name, zero)

    for name, layer in layers.items():
        layer.weight = nn.Parameter(layer.weight.detach())  # requires a gradient, frozen or not
        layer.register_forward_hook(lambda _, __, output, name=name: add_zero(name, output))
    with torch.random.fork_rng([]):
        out = logits(model, _pixels(model, size))
    leaves = [zeros.get(name, layer.weight) for name, layer in layers.items()]
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    if out.requires_grad:
        grads = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
    silent = [name for name, grad in zip(layers, grads, strict=True) if grad is None]
    return silent, [name for name in layers if name not in zeros]


def _owns_weight(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")
    return weight is not None and weight.is_floating_point()


@torch.no_grad()
def _without_effect(model: nn.Module, silent: list[str], size: tuple[int, int]) -> list[str]:
    """Those of the layers without a gradient whose weights do not change the logits.

    A missing gradient is not enough: a model may also detach what the logits depend on.
    """
    if not silent or next(model.parameters()).is_meta:
        return silent
    twin = _unhooked(sharing_copy(model)).eval()
    pixels = _pixels(model, size)
    layers: dict[str, Any] = {name: twin.get_submodule(name) for name in silent}

    def changes_logits(names: list[str]) -> bool:
        weights = {name: layers[name].weight for name in names}
        for name, weight in weights.items():
            layers[name].weight = nn.Parameter(torch.randn_like(weight))
        differ = not torch.equal(logits(twin, pixels), out)
        for name, weight in weights.items():
            layers[name].weight = weight
        return differ

    with torch.random.fork_rng([pixels.device] if pixels.is_cuda else []):
        out = logits(twin, pixels)
        return [name for name in silent if not changes_logits([name])] if changes_logits(silent) else silent
