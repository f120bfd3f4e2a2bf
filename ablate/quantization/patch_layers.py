"""The quantized patch embedding: a BitLinear on the patches of an image. Packed, it is an IntegerLinear.

Its weight keeps the shape of the convolution's, so that state dicts and `from_pretrained` fit both.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ablate.models.patch_embedding import patches
from ablate.quantization.bitlinear import BitLinear


class BitPatchEmbedding(BitLinear):
    """A BitLinear in place of a convolution that cuts patches: (B, 3, H, W) -> (B, out, H', W').

    Args:
        patch: (height, width), in pixels.
        out_channels: Of the output.
        bias: Whether there is one.
        **fields: Those of `LayerSpec`.

    Attributes:
        weight: (out, 3, height, width).
    """

    parts = BitLinear.parts

    def __init__(self, patch: tuple[int, int], out_channels: int, bias: bool = True, **fields: Any) -> None:
        super().__init__(3 * patch[0] * patch[1], out_channels, bias, **fields)
        self.patch = patch
        self.weight = nn.Parameter(self.weight.detach().reshape(out_channels, 3, *patch))

    @classmethod
    def from_convolution(cls, layer: "nn.Conv2d | BitPatchEmbedding", **fields: Any) -> Self:
        """Make one that takes over weight, bias and hooks of a patch embedding, quantized or not."""
        height, width = layer.weight.shape[2:]
        with torch.device("meta"):
            new = cls((height, width), len(layer.weight), layer.bias is not None, **fields)
        return new.take_over(layer)

    def matrix(self) -> Tensor:
        return self.weight.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(patches(x, self.patch)).permute(0, 3, 1, 2)
