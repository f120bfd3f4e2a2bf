"""The passes between the products of a ViT's block, each once over its data when it is compiled.

`how` says what a product takes: integer levels, with the scale of each token, or floats.
"""

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Versions of torch without this count the graphs of all passes together, and compile no more than a few.
ISOLATES = "isolate_recompiles" in signature(torch.compile).parameters
GRAPHS = 256  # of a pass: one a width, with and without inference mode
ZERO = 128  # the zero point of oneDNN's unsigned inputs


class Input(NamedTuple):
    """What a product takes.

    Attributes:
        bits: b of figure 4, from 2 to 8; None: floats.
        norm: Whether a LayerNorm without parameters precedes the quantization (figure 7).
        static: Whether the levels of all tokens have one scale, which the product knows.
        dtype: uint8, with `ZERO` added to the levels; or that of floats, whether they are levels or not.
    """

    bits: int | None
    norm: bool
    static: bool
    dtype: torch.dtype


def prepared(x: Tensor, step: Tensor | None, how: Input) -> tuple[Tensor, Tensor | None]:
    """Quantize activations (tokens, features) as `quantize_activations` does.

    Args:
        x: The activations.
        step: The static scale (1,); None: a scale a token, or floats.
        how: What the product takes.

    Returns:
        That, (tokens, features); and the scale that its result lacks, (tokens, 1), or None.
    """
    x = x.float()
    if how.norm:
        x = F.layer_norm(x, x.shape[-1:], eps=1e-5)  # Fig. 7
    if how.bits is None:
        return x.to(how.dtype), None
    q_b = 2 ** (how.bits - 1)
    scale = x.abs().amax(-1, keepdim=True) / q_b if step is None else step  # Fig. 4; [1] eq. 5
    levels = (x * (1 / scale.clamp(min=1e-35))).round().clamp(1 - q_b, q_b - 1)
    if how.dtype == torch.uint8:
        levels = levels + ZERO
    return levels.to(how.dtype), scale if step is None else None


def scaled(y: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """A product's result in float32, times the scale of each token and plus the bias where it lacks them."""
    y = y.float()
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def first(h: Tensor, weight: Tensor, bias: Tensor, step: Tensor | None, eps: float, how: Input) -> Any:
    """LayerNorm, then what q, k and v take. h: (tokens, width)."""
    return prepared(F.layer_norm(h.float(), h.shape[-1:], weight, bias, eps), step, how)


def rescaled(y: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`scaled`, rounded to a dtype: q, k and v."""
    return scaled(y, scale, bias).to(dtype)


def second(
    h: Tensor,
    y: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    weight: Tensor,
    norm_bias: Tensor,
    step: Tensor | None,
    eps: float,
    how: Input,
) -> Any:
    """The residual sum, its LayerNorm, and what fc1 takes. Returns the sum and the two."""
    total = h + scaled(y, scale, bias)
    return total, *first(total, weight, norm_bias, step, eps, how)


def activated(
    y: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    step: Tensor | None,
    activation: Callable[..., Any],
    how: Input,
) -> Any:
    """The activation of the MLP, and what fc2 takes."""
    return prepared(activation(scaled(y, scale, bias)), step, how)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), its erf within 1.5e-7 by Abramowitz and Stegun, 7.1.26: faster than an exact one."""
    a = x.abs() * 0.7071067811865476
    t = 1 / (1 + 0.3275911 * a)
    series = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
    series = t * (0.254829592 + t * (-0.284496736 + t * series))
    return 0.5 * x * (1 + torch.copysign(1 - series * torch.exp(-a * a), x))


def last(h: Tensor, y: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """The residual sum at the end of a block."""
    return h + scaled(y, scale, bias)


def passed(function: Callable[..., Any], compiles: bool, **fixed: Any) -> Callable[..., Any]:
    """A function with some of its arguments fixed, compiled or not."""
    return compiled(function, **fixed) if compiles else partial(function, **fixed)


@cache
def compiled(function: Callable[..., Any], kind: Any = None, **fixed: Any) -> Callable[..., Any]:
    """A function with some of its arguments fixed, compiled for any number of tokens.

    Each kind has graphs of its own: each call looks through those of its kind for the one that fits.
    """
    own: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": GRAPHS} if ISOLATES else {}
    compiled = torch.compile(partial(function, **fixed), **own)

    def run(*values: Any) -> Any:
        for value in values:
            if isinstance(value, Tensor) and value.ndim > 1:
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return compiled(*values)

    return run
