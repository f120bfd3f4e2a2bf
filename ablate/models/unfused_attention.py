"""Attention that calls its linear layers, where torch's own reads their weights.

A layer that is called can be replaced by a quantized one. Outputs are those of the original but for rounding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def _thirds(parameter: nn.Parameter) -> list[nn.Parameter]:
    return [nn.Parameter(part, parameter.requires_grad) for part in parameter.detach().chunk(3)]


def _linear(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer
