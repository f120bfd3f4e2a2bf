"""A packed layer as an integer product between two passes, for inference on a CPU."""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ablate.quantization.for_inference import ForInference
from ablate.quantization.fused_passes import passed, prepared, rescaled
from ablate.quantization.fused_products import Product, fits, input_of
from ablate.quantization.integer_linear import IntegerLinear


class FusedLinear(ForInference):
    """Computes what an `IntegerLinear` does, for inference: (..., in) -> (..., out), in float32.

    Its input is read and quantized in one pass. oneDNN adds bias and scales where the scale is static, else a
    second pass does.

    Args:
        layer: The layer.
        compiles: Whether the passes are compiled.
    """

    def __init__(self, layer: IntegerLinear, compiles: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.product = Product(layer, floats=torch.float32)
        self.prepare = passed(prepared, compiles, how=self.product.how)
        self.rescale = passed(rescaled, compiles, dtype=torch.float32)
        self.register_buffer("like", layer.weight, persistent=False)

    @property
    def weight(self) -> Tensor:
        """As of `IntegerLinear`."""
        return self.get_buffer("like")

    @property
    def bias(self) -> Tensor | None:
        """What is added; torchvision's Swin V2 sets that of k to 0 in each call."""
        return self.product.fused_bias if self.product.bias is None else self.product.bias

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        rows, scale = self.prepare(x.reshape(-1, self.in_features), self.product.step)
        y = self.product(rows)
        if self.product.bias is not None:
            y = self.rescale(y, scale, self.product.bias)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)


def is_fusible_layer(layer: nn.Module) -> TypeGuard[IntegerLinear]:
    """Whether a layer can be a `FusedLinear`."""
    return isinstance(layer, IntegerLinear) and layer.patch is None and fits(layer)


def kind_of_layer(layer: Any) -> tuple[object, ...]:
    """What layers of one speed have in common."""
    return "layer", layer.in_features, layer.out_features, input_of(layer)
