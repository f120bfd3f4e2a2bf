"""Window attention that calls its linear layers, where torchvision's own reads their weights."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


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


UNFUSED = {
    ShiftedWindowAttention: UnfusedWindowAttention,
    ShiftedWindowAttentionV2: UnfusedWindowAttentionV2,
}


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
