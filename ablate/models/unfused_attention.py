"""Attention that calls its linear layers, where torch's and torchvision's own reads their weights.

A layer that is called can be replaced by a quantized one. Outputs are those of the original but for rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class UnfusedAttention(nn.Module):
    """nn.MultiheadAttention with linear layers `q_proj`, `k_proj`, `v_proj` and `out_proj`.

    It is called as the original and reads the original's state dict. Dropout is the original's.

    Args:
        fused: The original, without `bias_k` and `add_zero_attn`. The new parameters share its memory.
    """

    in_proj_bias = None  # what nn.TransformerEncoderLayer asks: it must not take its way around the layers
    _qkv_same_embed_dim = False

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout = fused.embed_dim, fused.num_heads, fused.dropout
        self.batch_first = fused.batch_first
        if fused.in_proj_weight is not None:
            weights = _thirds(fused.in_proj_weight)
        else:
            weights = [getattr(fused, f"{name}_weight") for name in PROJECTIONS]
        biases = [None] * 3 if fused.in_proj_bias is None else _thirds(fused.in_proj_bias)
        for name, weight, bias in zip(PROJECTIONS, weights, biases, strict=True):
            self.add_module(name, _linear(weight, bias))
        out = fused.out_proj  # of a class of torch's own, which says only that it is never called
        self.out_proj = _linear(out.weight, out.bias) if type(out) is not nn.Linear else out
        self.train(fused.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention's: returns the output, and the attention weights where they are needed."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs attn_mask, of which it is a hint")
        is_batched, inputs = query.dim() == 3, (query, key, value)
        if not is_batched:
            inputs = (query[None], key[None], value[None])
        elif not self.batch_first:
            inputs = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        layers = (self.get_submodule(name) for name in PROJECTIONS)
        q, k, v = (self._heads(layer(x)) for layer, x in zip(layers, inputs, strict=True))
        mask, dropout = self._mask(attn_mask, key_padding_mask, q), self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, heads, N, keys)
            weights = F.dropout((weights if mask is None else weights + mask).softmax(-1), dropout)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (B, heads, N, head_dim) -> (B, N, D)
        if not is_batched:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, head_dim)."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _mask(self, attention: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
        """What is added to q k^T: (B or 1, heads or 1, N or 1, keys). True in a mask forbids a place."""
        masks = []
        if attention is not None:  # (N, keys), or (B * heads, N, keys)
            masks.append(
                attention.view(-1, self.num_heads if attention.dim() == 3 else 1, *attention.shape[-2:])
            )
        if padding is not None:  # (B, keys), or (keys,)
            masks.append(padding.view(-1, 1, 1, padding.shape[-1]))
        added = [
            query.new_zeros(mask.shape).masked_fill_(mask, -math.inf) if mask.dtype == torch.bool else mask
            for mask in masks
        ]
        return sum(added[1:], added[0]) if added else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *about: Any) -> None:
        """Read a state dict of the original, too."""
        for part in ("weight", "bias"):
            thirds = state_dict.pop(f"{prefix}in_proj_{part}", None)
            for i, name in enumerate(PROJECTIONS):
                if thirds is not None:
                    state_dict[f"{prefix}{name}.{part}"] = thirds.chunk(3)[i]
                elif f"{prefix}{name}_{part}" in state_dict:  # keys or values of another width
                    state_dict[f"{prefix}{name}.{part}"] = state_dict.pop(f"{prefix}{name}_{part}")
        super()._load_from_state_dict(state_dict, prefix, *about)


class _CallsLayers(nn.Module):
    """The forward of torchvision's window attention, with `qkv` and `proj` called."""

    window_size: list[int]
    shift_size: list[int]
    num_heads: int
    get_relative_position_bias: Callable[[], Tensor]
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        size = x.shape[1:3]
        sides = [-(-side // window) * window for side, window in zip(size, self.window_size, strict=True)]
        x = F.pad(x, (0, 0, 0, sides[1] - size[1], 0, sides[0] - size[0]))
        lengths = zip(self.shift_size, self.window_size, sides, strict=True)
        # A window as large as the image is not shifted.
        shift = [moved if window < side else 0 for moved, window, side in lengths]
        if any(shift):
            x = x.roll([-each for each in shift], (1, 2))
        x = self._attend(_windows(x, self.window_size), shift, sides)  # (B * windows, tokens, C)
        x = _image(x, self.window_size, sides)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, : size[0], : size[1]].contiguous()

    def _attend(self, x: Tensor, shift: list[int], sides: list[int]) -> Tensor:
        """(B * windows, tokens, C) -> the same."""
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B * windows, heads, tokens, head_dim)
        if (logit_scale := getattr(self, "logit_scale", None)) is None:
            products = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        else:  # cosine attention, arXiv 2111.09883, in which k has no bias
            if self.qkv.bias is not None:
                k = k - self.qkv.bias.chunk(3)[1].view(self.num_heads, 1, -1)
            products = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            products = products * logit_scale.clamp(max=math.log(100.0)).exp()
        products = products + self.get_relative_position_bias()
        if any(shift):  # tokens of a window that are no neighbours do not see each other
            mask = _apart(x, self.window_size, shift, sides)  # (windows, 1, tokens, tokens)
            products = (products.reshape(-1, len(mask), *products.shape[1:]) + mask).flatten(0, 1)
        weights = F.dropout(products.softmax(-1), self.attention_dropout, self.training)
        out = (weights @ v).transpose(1, 2).flatten(2)
        return F.dropout(self.proj(out), self.dropout, self.training)


class UnfusedWindowAttention(_CallsLayers, ShiftedWindowAttention):
    """torchvision's Swin attention, with its layers called."""


class UnfusedWindowAttentionV2(_CallsLayers, ShiftedWindowAttentionV2):
    """torchvision's Swin V2 attention, with its layers called."""


def _windows(x: Tensor, window: list[int]) -> Tensor:
    """(B, H, W, C) -> (B * windows, tokens, C)."""
    down, across = (side // each for side, each in zip(x.shape[1:3], window, strict=True))
    x = x.reshape(-1, down, window[0], across, window[1], x.shape[-1])
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _image(x: Tensor, window: list[int], sides: list[int]) -> Tensor:
    """(B * windows, tokens, C) -> (B, H, W, C)."""
    down, across = (side // each for side, each in zip(sides, window, strict=True))
    x = x.reshape(-1, down, across, *window, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, *sides, x.shape[-1])


def _apart(x: Tensor, window: list[int], shift: list[int], sides: list[int]) -> Tensor:
    """-100 between tokens that a shift has brought together, else 0: (windows, 1, tokens, tokens)."""
    places = (torch.arange(side, device=x.device) for side in sides)
    down, across = (
        (place >= side - each).long() + (place >= side - moved)
        for place, side, each, moved in zip(places, sides, window, shift, strict=True)
    )
    region = (3 * down[:, None] + across)[None, ..., None]  # (1, H, W, 1)
    region = _windows(region, window)[..., 0]  # (windows, tokens)
    return (region[:, None] != region[..., None])[:, None].to(x.dtype) * -100.0


def _thirds(parameter: nn.Parameter) -> list[nn.Parameter]:
    return [nn.Parameter(part, parameter.requires_grad) for part in parameter.detach().chunk(3)]


def _linear(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer
