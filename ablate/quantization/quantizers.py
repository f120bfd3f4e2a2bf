"""Weights and activations as integer levels and scales.

Figures are those of Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10"; [1] is BitNet, arXiv
2310.11453, and [10] BitNet b1.58, arXiv 2402.17764.
"""

from typing import Literal

import torch
from torch import Tensor

from ablate.config.precisions import TOP
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput

Beta = Literal["absmean", "least_squares"] | float
Per = Literal["tensor", "channel"]


def binarize(w: Tensor, beta: Beta = "absmean", per: Per = "tensor") -> tuple[Tensor, Tensor, Tensor]:
    """Binarize weights, so that beta * signs approximates w.

    Args:
        w: Weights (out, in), floating point.
        beta: The rule of the scale, or its value.
        per: Whether the scale is one for the tensor or one for each row.

    Returns:
        signs: -1 or +1, of w's shape and dtype.
        alpha: The mean of w, 0-dimensional.
        beta: 0-dimensional, or (out, 1) per channel.
    """
    alpha = w.mean()  # Fig. 3; [1] eq. 3
    signs = torch.where(w > alpha, 1.0, -1.0).to(w.dtype)  # Fig. 3; [1] eq. 1-2: zero becomes -1
    return signs, alpha, _beta(w, signs, beta, per)


def ternarize(w: Tensor, beta: Beta = "absmean", per: Per = "tensor") -> tuple[Tensor, Tensor]:
    """Make weights ternary (1.58 bits), so that beta * trits approximates w.

    Args:
        w: Weights (out, in), floating point.
        beta: The rule of the scale, or its value.
        per: Whether the scale, and the mean|W| that divides w, is one for the tensor or one for each row.

    Returns:
        trits: -1, 0 or +1, of w's shape and dtype.
        beta: 0-dimensional, or (out, 1) per channel.
    """
    trits = (w / (_absmean(w, per) + 1e-8)).round_().clamp_min_(-1).clamp_max_(1)  # [10] eq. 1-3
    return trits, _beta(w, trits, beta, per)


def _absmean(w: Tensor, per: Per) -> Tensor:
    """||W||_1 / nm (Fig. 7; [10] eq. 3), or that of each row."""
    return w.abs().mean() if per == "tensor" else w.abs().mean(1, keepdim=True)


def _beta(w: Tensor, levels: Tensor, beta: Beta, per: Per) -> Tensor:
    if beta == "absmean":
        return _absmean(w, per)
    if beta == "least_squares":
        dim, keep = (None, False) if per == "tensor" else (1, True)
        products, squares = ((t * levels).sum(dim, keepdim=keep) for t in (w, levels))
        # argmin over beta of ||W - beta W~||^2, as in XNOR-Net, arXiv 1603.05279, section 3.1
        return products / squares.clamp(min=1)
    return w.new_full(() if per == "tensor" else (len(w), 1), beta)


def quantize_weights(w: Tensor, spec: LayerSpec) -> tuple[Tensor, Tensor]:
    """Quantize weights by a layer's spec, so that levels * scale approximates w.

    Args:
        w: Weights (out, in), floating point.
        spec: The precision, not "full". A learned beta has the value at which it begins, mean|W|:
            `BitLinear.levels_and_scale` has what it has learned.

    Returns:
        levels: Integers of w's shape and dtype.
        scale: 0-dimensional, or (out, 1) per channel.
    """
    rule: Beta = "absmean" if spec.beta == "learned" else spec.beta
    if spec.weights == "binary":
        levels, _, beta = binarize(w, rule, spec.beta_per)
        return levels, beta * spec.beta_multiplier
    if spec.weights == "ternary":
        levels, beta = ternarize(w, rule, spec.beta_per)
        return levels, beta * spec.beta_multiplier
    # int4 and int8: symmetric, rounded to nearest, a scale for each output channel
    scale = w.abs().amax(1, keepdim=True) / TOP[spec.weights]  # (out, 1)
    return (w / scale.clamp(min=torch.finfo(w.dtype).tiny)).round_(), scale


def quantize_activations(
    x: Tensor,
    bits: int,
    signed: bool = True,
    scale: Literal["token", "image", "tensor"] | tuple[Tensor, Tensor] = "token",
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize activations, so that levels * scale + offset approximates x.

    Args:
        x: Activations (..., features), float32, float64 or bfloat16.
        bits: b of figure 4, from 1 to 8.
        signed: Whether levels may be negative (figure 4) or begin at 0 (figure 5).
        scale: What shares a scale: the features of a token, an image (each of the first dimension), or the
            tensor. Or a static scale and offset, which broadcast against x; the offset is read only when
            levels are not signed.

    Returns:
        levels: Integers of x's shape and dtype, within +-(2^(b-1) - 1), or in 0 .. 2^(b-1) - 1 when not
            signed.
        scale: It broadcasts against x: (..., 1) per token, (n, 1, ..., 1) per image, () per tensor.
        offset: Of the shape of the scale; 0 when signed.

    Raises:
        BadInput: `bits` is not in 1 to 8, or 1 when not signed; or the scale is unknown.
    """
    if bits not in range(1, 9) or (bits == 1 and not signed):
        raise BadInput(
            f"1 <= bits <= 8 must hold (2 <= bits when not signed), but got bits={bits}, signed={signed}"
        )
    step, offset = scale if isinstance(scale, tuple) else _range(x, bits, signed, scale)
    if bits == 1:  # sign(x), as the weights; zero becomes -1
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype), step, offset
    q_b = 2 ** (bits - 1)  # Fig. 4
    low, centred = (1 - q_b, x) if signed else (0, x - offset)
    # finite, and 0 where gamma is 0 or NaN; nan_to_num is not for OpenVINO
    inverse = torch.where(step > 0, (1 / step).clamp_max(torch.finfo(x.dtype).max), 0.0)
    # Fig. 4 and 5; [1] eq. 4-6: clipped to Qb - 1, since the paper's Qb - eps would round to Qb
    levels = (centred * inverse).round_().clamp_min_(low).clamp_max_(q_b - 1)  # torch.func has no clamp_
    return levels, step, offset


def _range(
    x: Tensor, bits: int, signed: bool, per: Literal["token", "image", "tensor"]
) -> tuple[Tensor, Tensor]:
    """The scale of the levels, gamma / Qb or with one bit mean|x|, and their offset."""
    if per not in ("token", "image", "tensor"):
        raise BadInput(f"scale must be 'token', 'image' or 'tensor', but got {per!r}")
    dims = {"token": (-1,), "image": tuple(range(1, x.ndim)), "tensor": tuple(range(x.ndim))}[per]
    keep = per != "tensor"
    if bits == 1:
        gain = x.abs().mean(dims, keepdim=keep)
        return gain, torch.zeros_like(gain)
    if signed:
        # Fig. 4; [1] eq. 5: ||x||_inf, without a copy of |x|
        gamma = torch.maximum(x.amax(dims, keepdim=keep), -x.amin(dims, keepdim=keep))
        offset = torch.zeros_like(gamma)
    else:
        offset = x.amin(dims, keepdim=keep)  # Fig. 5; [1] eq. 6: eta
        gamma = x.amax(dims, keepdim=keep) - offset  # of the shifted x: that of x would clip half the range
    return gamma / 2 ** (bits - 1), offset
