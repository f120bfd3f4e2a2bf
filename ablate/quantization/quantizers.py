"""Weights and activations as levels and scales, with straight-through gradients."""

from typing import Literal

import torch
from torch import Tensor

from ablate.config.precisions import TOP
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput

Beta = Literal["absmean", "least_squares"] | float
Per = Literal["tensor", "channel"]


def binarize(w: Tensor, beta: Beta = "absmean", per: Per = "tensor") -> tuple[Tensor, Tensor, Tensor]:
    """1-bit weights: (signs in {-1, +1}, alpha, beta), so that beta * signs stands for w.

    w: (out, in), floating point. signs has its shape and dtype; alpha is 0-dimensional, and so is beta, or (out, 1)
    per channel.
    """
    alpha = w.mean()  # Fig. 3
    signs = torch.where(w > alpha, 1.0, -1.0).to(
        w.dtype
    )  # Fig. 3: zero goes to -1, which torch.sign does not do
    return signs, alpha, _beta(w, signs, beta, per)


def ternarize(w: Tensor, beta: Beta = "absmean", per: Per = "tensor") -> tuple[Tensor, Tensor]:
    """1.58-bit weights: (trits in {-1, 0, +1}, beta), so that beta * trits stands for w.

    w: (out, in), floating point. trits has its shape and dtype; beta is 0-dimensional, or (out, 1) per channel, where
    the mean|W| that divides w is the channel's as well.
    """
    trits = (w / (_absmean(w, per) + 1e-8)).round_().clamp_(-1, 1)  # [10] eq. 1-3
    return trits, _beta(w, trits, beta, per)


def _absmean(w: Tensor, per: Per) -> Tensor:
    return (
        w.abs().mean() if per == "tensor" else w.abs().mean(1, keepdim=True)
    )  # Fig. 7: ||W||_1 / nm, or of each row


def _beta(w: Tensor, levels: Tensor, beta: Beta, per: Per) -> Tensor:
    if beta == "absmean":
        return _absmean(w, per)
    if beta == "least_squares":
        dim, keep = (None, False) if per == "tensor" else (1, True)
        products, squares = ((t * levels).sum(dim, keepdim=keep) for t in (w, levels))
        return products / squares.clamp(min=1)  # argmin over beta of ||W - beta W~||^2
    return w.new_full(() if per == "tensor" else (len(w), 1), beta)


def quantize_weights(w: Tensor, spec: LayerSpec) -> tuple[Tensor, Tensor]:
    """(levels, scale): integers of w's shape and dtype, and what multiplies them: () or, a scale a channel, (out, 1)."""
    if spec.weights == "binary":
        levels, _, beta = binarize(w, spec.beta, spec.beta_per)
        return levels, beta * spec.beta_multiplier
    if spec.weights == "ternary":
        levels, beta = ternarize(w, spec.beta, spec.beta_per)
        return levels, beta * spec.beta_multiplier
    scale = (
        w.abs().amax(1, keepdim=True) / TOP[spec.weights]
    )  # (out, 1): symmetric, round to nearest, per output channel
    return (w / scale.clamp(min=torch.finfo(w.dtype).tiny)).round_(), scale


def quantize_activations(
    x: Tensor, bits: int, signed: bool = True, scale: Literal["token", "image", "tensor"] = "token"
) -> tuple[Tensor, Tensor, Tensor]:
    """(levels, scale, offset), integers that stand for x: x is about levels * scale + offset.

    x: (..., features), float32, float64 or bfloat16. levels has its shape and dtype and lies within +-(2^(b-1) - 1), or
    in 0 .. 2^(b-1) - 1 when not signed; scale and offset broadcast against x: (..., 1) per token, () per tensor, and
    (n, 1, ..., 1) per image, which is each of the first dimension.
    Raises BadInput for bits outside 1 to 8, for one non-negative bit and for an unknown scale.
    """
    if scale not in ("token", "image", "tensor"):
        raise BadInput(f"scale must be 'token', 'image' or 'tensor', but got {scale!r}")
    if bits not in range(1, 9) or (bits == 1 and not signed):
        raise BadInput(
            f"1 <= bits <= 8 must hold (2 <= bits when not signed), but got bits={bits}, signed={signed}"
        )
    dims = {"token": (-1,), "image": tuple(range(1, x.ndim)), "tensor": tuple(range(x.ndim))}[scale]
    keep = scale != "tensor"
    if bits == 1:  # sign(x), zero to -1, times mean|x|
        gain = x.abs().mean(dims, keepdim=keep)
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype), gain, torch.zeros_like(gain)
    q_b = 2 ** (bits - 1)  # Fig. 4
    if signed:
        gamma = torch.maximum(
            x.amax(dims, keepdim=keep), -x.amin(dims, keepdim=keep)
        )  # Fig. 4: ||x||_inf, nothing stored
        low, offset, centred = -(q_b - 1), torch.zeros_like(gamma), x
    else:
        offset = x.amin(dims, keepdim=keep)  # Fig. 5: eta
        gamma = (
            x.amax(dims, keepdim=keep) - offset
        )  # of the shifted x, or half the range would be clipped away
        low, centred = 0, x - offset
    inverse = (q_b / gamma).nan_to_num()  # finite where gamma = 0: zeros then give levels 0
    levels = (
        (centred * inverse).round_().clamp_(low, q_b - 1)
    )  # Fig. 4 and 5; the paper's Qb - eps would round to Qb
    return levels, gamma / q_b, offset
