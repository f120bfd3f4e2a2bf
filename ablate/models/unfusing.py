"""Unfuses attention: modules that read the weights of their linear layers become ones that call them."""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ablate.models.loading import carry_hooks, sharing_copy
from ablate.models.unfused_attention import PROJECTIONS, UnfusedAttention


@cache
def _windows() -> dict[type[Any], type[Any]]:
    """torchvision's window attention and what takes its place; nothing where torchvision is not installed."""
    try:
        from ablate.models.unfused_windows import UNFUSED
    except ImportError:
        return {}
    return {**UNFUSED}


def is_fused(module: nn.Module) -> bool:
    """Whether a module reads the weights of its linear layers and never calls them."""
    if isinstance(module, nn.TransformerEncoderLayer):  # it does so where its attention does
        module = module.self_attn
    if getattr(module, "qkv_bias_separate", None) is False:  # timm's BEiT and Swin V2
        return getattr(module, "q_bias", None) is not None
    fused: tuple[type[Any], ...] = (nn.MultiheadAttention, *_windows())
    unfused: tuple[type[Any], ...] = (*_windows().values(),)
    return isinstance(module, fused) and not isinstance(module, unfused)


def unfuse_(model: nn.Module, layers: Iterable[str] | None = None) -> None:
    """Make a model's attention call its linear layers, in place. Outputs differ by rounding alone.

    `q_proj`, `k_proj`, `v_proj` and `out_proj` take the place of the parameters of nn.MultiheadAttention. The
    state dict of the original can still be loaded. Attention that computes more (`bias_k`, `add_zero_attn`),
    a subclass, and one whose parameters are shared or pruned stay as they are.

    Args:
        model: A model.
        layers: Only attention that holds one of these is changed; by default all.
    """
    chosen = _fused(model, layers)
    parameters = (p for module in model.modules() for p in module._parameters.values())
    holders = Counter(id(p) for p in parameters if p is not None)
    replacements: dict[int, nn.Module] = {}
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if id(module) not in chosen:
            continue
        if not isinstance(module, nn.MultiheadAttention):
            _call_layers_(module)
        elif name and _can_be_replaced(module, holders):
            parent, _, child = name.rpartition(".")
            if id(module) not in replacements:
                replacements[id(module)] = UnfusedAttention(module)
                carry_hooks(module, replacements[id(module)])
            setattr(model.get_submodule(parent), child, replacements[id(module)])
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and not is_fused(module.layers[0]):
            module.use_nested_tensor = False  # such tensors are for fused layers


def unfused(model: nn.Module, layers: Iterable[str] | None = None) -> nn.Module:
    """Unfuse a copy that shares the model's tensors.

    Args:
        model: Left as it is.
        layers: As for `unfuse_`.

    Returns:
        The copy; the model itself where there is nothing to unfuse.
    """
    if not _fused(model, layers):
        return model
    unfuse_(copied := sharing_copy(model), layers)
    return copied


def _fused(model: nn.Module, layers: Iterable[str] | None) -> set[int]:
    """The ids of the fused attention that keeps one of the layers from being called."""
    names, found = None if layers is None else [*layers], set()
    for name, module in model.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        if is_fused(module) and (names is None or any(each.startswith(prefix) for each in names)):
            found.add(id(module.self_attn if isinstance(module, nn.TransformerEncoderLayer) else module))
    return found


def _call_layers_(module: Any) -> None:
    if type(module) in _windows() and "forward" not in vars(module):
        module.__class__ = _windows()[type(module)]
    elif hasattr(module, "qkv_bias_separate"):
        module.qkv_bias_separate = True


def _can_be_replaced(attention: nn.MultiheadAttention, holders: Counter[int]) -> bool:
    """Whether UnfusedAttention computes all that an attention does."""
    own = {name: value for name, value in attention._parameters.items() if value is not None}
    usual = {"in_proj_weight", "in_proj_bias", *(f"{name}_weight" for name in PROJECTIONS)}
    return (
        type(attention) is nn.MultiheadAttention
        and "forward" not in vars(attention)
        and not attention.add_zero_attn
        and own.keys() <= usual  # neither bias_k nor what pruning adds
        and len(own) == (1 if attention.in_proj_weight is not None else 3) + ("in_proj_bias" in own)
        and all(type(value) is nn.Parameter and holders[id(value)] == 1 for value in own.values())
        and type(attention.out_proj) in (NonDynamicallyQuantizableLinear, nn.Linear)
    )
