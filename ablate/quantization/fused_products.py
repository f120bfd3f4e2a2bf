"""The products of packed layers as a CPU does them fastest: oneDNN's, of uint8 with int8, or in floats."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.hardware import native_bf16
from ablate.quantization.fused_passes import ZERO, Input
from ablate.quantization.integer_linear import IntegerLinear, int8_is_slow, int8_saturates


def fits(layer: nn.Module) -> bool:
    """Whether a layer's product can be a `Product`: plain, or with a scale a token and signed levels."""
    if not isinstance(layer, IntegerLinear):
        return type(layer) is nn.Linear
    spec = layer.spec
    if spec.activation_bits is None:
        return True
    return spec.activation_scale == "token" and spec.signed and spec.activation_bits > 1


def input_of(layer: nn.Module) -> Input:
    """What a layer's product takes."""
    floats = torch.bfloat16 if native_bf16() else torch.float32
    if not isinstance(layer, IntegerLinear):
        return Input(None, False, floats)
    spec = layer.spec
    if spec.activation_bits is None:
        return Input(None, bool(spec.norm), floats)
    in_floats = int8_is_slow() or (int8_saturates() and spec.weights == "int8")
    return Input(spec.activation_bits, bool(spec.norm), torch.float32 if in_floats else torch.uint8)


class Product(nn.Module):
    """x W^T of layers that take the same input, one after the other: (tokens, in) -> (tokens, out).

    Integer levels are multiplied exactly; then come the weights' scales, and the sum is rounded to bfloat16
    where the CPU has it.

    Args:
        layers: `IntegerLinear` or nn.Linear, with the same `input_of`.
        factor: Of the output, (out,): the scale of a layer after it, say.
    """

    def __init__(self, *layers: nn.Module, factor: Tensor | None = None) -> None:
        super().__init__()
        self.how = input_of(layers[0])
        self.floats = torch.bfloat16 if native_bf16() else torch.float32
        weights, betas, biases = zip(*map(_parts, layers), strict=True)
        weight, beta, bias = (
            torch.cat(weights),
            torch.cat(betas),
            torch.cat(biases),
        )  # (out, in), (out,), (out,)
        factor = torch.ones_like(beta) if factor is None else factor.float()
        self.bias: Tensor
        self.register_buffer("bias", bias * factor)
        if self.how.dtype == torch.uint8:
            self.packed = torch.ops.onednn.qlinear_prepack(weight.to(torch.int8), None)
            self.scales, self.zeros = beta * factor, torch.zeros(len(beta), dtype=torch.int32)
        else:
            weight = weight * (beta * factor)[:, None]
            self.weight: Tensor
            self.register_buffer("weight", weight.to(self.how.dtype))

    @property
    def packed_bytes(self) -> int:
        """The memory of the integer weights, which oneDNN holds beside parameters and buffers."""
        return self.packed.numel() if self.how.dtype == torch.uint8 else 0

    def forward(self, x: Tensor) -> Tensor:
        if self.how.dtype != torch.uint8:
            return F.linear(x, self.weight)
        return torch.ops.onednn.qlinear_pointwise(
            x, 1.0, ZERO, self.packed, self.scales, self.zeros, None, 1.0, 0, self.floats, "none", [], ""
        )


def _parts(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's weights, integer or not (out, in), their scales (out,) and its bias (out,)."""
    if isinstance(layer, IntegerLinear):
        weight, beta = layer.integers().float(), layer.beta.expand(layer.out_features)
    else:
        assert isinstance(layer, nn.Linear)
        weight, beta = layer.weight.float(), torch.ones(layer.out_features)
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.float()
    return weight, beta.float(), bias
