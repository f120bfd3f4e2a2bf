"""Attention products, q k^T and p v, of b-bit integers.

A product of two activations a b has a scale for each row of a and each column of b, as quantizers.py has it
for each token: of q k^T for each token and head, of p v for each row of p and each channel of v. It therefore
factors out: a b = (levels of a)(levels of b) times both scales. Levels of p, which is never negative, are
0 to 2^(b-1) - 1. SageAttention, arXiv 2410.02367, computes such integers in fused kernels.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, wrap_torch_function

from ablate.errors import BadInput
from ablate.models.unfusing import unfuse_, unfused
from ablate.models.unquantizable import inside_fused
from ablate.quantization.bitlinear import no_autocast
from ablate.quantization.gradients import is_differentiated, straight_through
from ablate.quantization.quantizers import quantize_activations

MATMUL = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm)
OPERANDS = ("input", "other", "mat2")  # as keywords


def quantize_attention_(model: nn.Module, bits: int) -> None:
    """Make a model's attention compute its products from b-bit integers, in place.

    Attention that reads the weights of its layers is unfused first (`unfuse_`). Products with parameters, and
    by torch.einsum, stay in floating point.

    Args:
        model: Changed in place; its attention may be quantized already.
        bits: b, from 2 to 8.

    Raises:
        BadInput: `bits` is out of range, or the model has no attention, or one that cannot be unfused. It is
            not quantized then.
    """
    if not isinstance(bits, int) or bits not in range(2, 9):
        raise BadInput(f"2 <= attention_bits <= 8 must hold, but got {bits!r}; give 8, or None")
    plain = unfused(model)
    if fused := inside_fused(plain):
        kind = type(plain.get_submodule(next(iter(fused)))).__name__
        rule = "attention_bits needs attention that calls its layers"
        raise BadInput(f"{rule}, but {kind} reads their weights; leave attention_bits out")
    if not attention_modules(plain):
        rule = "attention_bits needs a model with attention"
        raise BadInput(f"{rule}, but {type(model).__name__} has none; leave attention_bits out")
    unfuse_(model)
    for module in attention_modules(model).values():
        forward: Any = module.forward
        own = forward.args[1] if "product_bits" in vars(module) else forward
        vars(module)["product_bits"] = bits
        modes = _Quantized(bits, training=False), _Quantized(bits, training=True)  # torch.compile wants them
        vars(module)["forward"] = update_wrapper(partial(_attend, module, own, modes), own)
        vars(module)["_replicate_for_data_parallel"] = partial(_replica, module)


def attention_bits(model: nn.Module) -> int | None:
    """The bits of the attention products of a model, or of a part of it; None: it has none, or in floats.

    Raises:
        BadInput: Its attention modules differ, as where a part alone was given to `quantize_`.
    """
    if bits := vars(model).get("product_bits"):
        return int(bits)
    found: dict[int | None, str] = {}
    for name, module in attention_modules(model).items():
        widths = (vars(part).get("product_bits") for part in module.modules())
        found[next(filter(None, widths), None)] = name
    if len(found) > 1:
        some = ", ".join(f"{bits or 'none'} in {name!r}" for bits, name in found.items())
        rule = "attention_bits must be those of all attention of a model"
        raise BadInput(f"{rule}, but got {some}; call quantize_(model, {{}}, attention_bits=8)")
    return next(iter(found), None)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules that are called attention, by class or by name, and hold others."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        called = f"{type(module).__name__} {name.rpartition('.')[2]}".lower()
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        if not name or is_inside or isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue  # a list is never called
        if ("attention" in called or "attn" in called) and [*module.children()]:
            found[name] = module
    return found


def operands(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """The operands (..., N, K) and (..., K, M) of a call that multiplies activations; None for others."""
    if func not in (*MATMUL, integer_product):
        return None
    a, b = [*args, *(kwargs[name] for name in OPERANDS if name in kwargs)][:2]
    return (a, b) if a.ndim > 2 and b.ndim > 2 else None  # a parameter has two dimensions


def attention(
    product: Callable[[Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What F.scaled_dot_product_attention computes, softmax(q k^T * scale + mask) v, in its two products.

    Args:
        product: Computes q k^T and p v.
        query: (..., N, head_dim).
        key: (..., tokens, head_dim).
        value: (..., tokens, channels).
        attn_mask: Added to the scores (..., N, tokens), or False where a place is forbidden.
        dropout_p: Of the probabilities.
        is_causal: Not supported.
        scale: Of q k^T; None: head_dim^-0.5.
        enable_gqa: Not supported.

    Returns:
        (..., N, channels).

    Raises:
        BadInput: The attention is causal or grouped.
    """
    if is_causal or enable_gqa:
        rule = "attention must be neither causal nor grouped"
        raise BadInput(f"{rule} where its products are replaced; leave attention_bits out")
    scores = product(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is None:
        p = torch.softmax(scores, -1).to(value.dtype)
    else:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, -torch.inf)
        is_empty = attn_mask.amax(-1, keepdim=True) == -torch.inf  # torch gives zeros where all is forbidden
        masked = scores + attn_mask.masked_fill(is_empty, 0.0)
        p = torch.softmax(masked, -1).to(value.dtype).masked_fill(is_empty, 0.0)
    return product(F.dropout(p, dropout_p) if dropout_p else p, value)


def quantized_product(a: Tensor, b: Tensor, bits: int, training: bool = False) -> Tensor:
    """Multiply activations of b bits: a (..., N, K) times b (..., K, M) -> (..., N, M), of a's dtype.

    Args:
        a: Its levels have a scale for each row.
        b: Its levels have a scale for each column.
        bits: Of the levels.
        training: Whether de-quantized values are multiplied, with gradients straight through, and not the
            integers.
    """
    if training:
        return _rounded(a, b, bits)
    if not is_differentiated(a, b):
        return _exact(a, b, bits)
    with torch.no_grad():
        exact = _exact(a, b, bits)
    return straight_through(_rounded(a, b, bits).to(a.dtype), exact).clone()  # may be changed in place


def _exact(a: Tensor, b: Tensor, bits: int) -> Tensor:
    """Integers are multiplied exactly, at least in float32, and the scales come after."""
    with no_autocast(a.device):
        levels, scale = _levels(a, bits)  # (..., N, K), (..., N, 1)
        others, other = _levels(b.transpose(-1, -2), bits)  # (..., M, K), (..., M, 1)
        if a.shape[-1] * 4 ** (bits - 1) >= 2**24:  # the sums are exact in float64 alone
            levels, others = levels.double(), others.double()
        sums = integer_product(levels, others.transpose(-1, -2))
        return (sums * (scale * other.transpose(-1, -2))).to(a.dtype)


@wrap_torch_function(lambda levels, others: (levels, others))
def integer_product(levels: Tensor, others: Tensor) -> Tensor:
    """Multiply integers in floating point; a TorchFunctionMode may replace it, as in an export."""
    return levels @ others


def _rounded(a: Tensor, b: Tensor, bits: int) -> Tensor:
    return _dequantized(a, bits) @ _dequantized(b.transpose(-1, -2), bits).transpose(-1, -2)


def _dequantized(x: Tensor, bits: int) -> Tensor:
    """x rounded to its levels, row by row, its gradient straight through."""
    levels, scale = _levels(x, bits)
    return straight_through(x, levels.mul_(scale).to(x.dtype))


def _levels(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        levels, scale, _ = quantize_activations(wide, bits)
    return levels, scale


class _Quantized(TorchFunctionMode):
    """Replaces the products of activations within its context.

    Attributes:
        reached: Whether there has been one; torch.compile does not tell.
    """

    def __init__(self, bits: int, training: bool) -> None:
        super().__init__()
        self.bits, self.training, self.reached = bits, training, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return attention(self.product, *args, **kwargs)
        if pair := operands(func, args, kwargs):
            return self.product(*pair)
        return func(*args, **kwargs)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.reached = True
        return quantized_product(a, b, self.bits, self.training)


def _attend(module: Any, own: Any, modes: tuple[_Quantized, _Quantized], *args: Any, **kwargs: Any) -> Any:
    """The forward of an attention with quantized products. own: in floats; modes: evaluation, training."""
    mode = modes[module.training]
    with mode:
        out = own(*args, **kwargs)
    if not (mode.reached or torch.compiler.is_compiling()):
        rule = "attention_bits needs attention that multiplies by matmul or scaled_dot_product_attention"
        raise BadInput(f"{rule}, but {type(module).__name__} does not; leave attention_bits out")
    return out


def _replica(module: Any) -> nn.Module:
    """What nn.DataParallel runs on another GPU; its own copy would call the layers of this module."""
    replica: Any = type(module)._replicate_for_data_parallel(module)
    _, own, modes = module.forward.args
    own = MethodType(own.__func__, replica)
    vars(replica)["forward"] = update_wrapper(partial(_attend, replica, own, modes), own)
    return replica
