"""The products of packed layers as a CPU does them fastest: oneDNN's, of uint8 with int8, or in floats."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.trial_spec import LayerSpec
from ablate.hardware import native_bf16
from ablate.quantization.fused_passes import ZERO, Input
from ablate.quantization.integer_linear import IntegerLinear, int8_is_slow, int8_saturates


def fits(layer: nn.Module) -> bool:
    """Whether a layer's product can be a `Product`."""
    return precision_fits(layer.spec) if isinstance(layer, IntegerLinear) else type(layer) is nn.Linear


def precision_fits(spec: LayerSpec) -> bool:
    """Whether a product of this precision can be: plain, or signed levels with a scale a token or one."""
    if spec.weights == "full" or spec.activation_bits is None:
        return True
    return spec.activation_scale in ("token", "static") and spec.signed and spec.activation_bits > 1


def input_of(layer: nn.Module) -> Input:
    """What a layer's product takes."""
    floats = torch.bfloat16 if native_bf16() else torch.float32
    if not isinstance(layer, IntegerLinear):
        return Input(None, False, False, floats)
    spec = layer.spec
    if spec.activation_bits is None:
        return Input(None, bool(spec.norm), False, floats)
    in_floats = int8_is_slow() or (int8_saturates() and spec.weights == "int8")
    dtype = torch.float32 if in_floats else torch.uint8
    return Input(spec.activation_bits, bool(spec.norm), spec.is_static, dtype)


class Product(nn.Module):
    """x W^T of layers that take the same input, one after the other: (tokens, in) -> (tokens, out).

    Integer levels are multiplied exactly; then come the weights' scales, and the sum is rounded to bfloat16
    where the CPU has it. Where the levels have a static scale, it and the bias come before the rounding.

    Args:
        layers: `IntegerLinear` or nn.Linear, with the same `input_of`. Of static scales that differ the
            largest one is taken for all.
        factor: Of the output, (out,): the scale of a layer after it, say.
        plain: Whether integers are multiplied by torch, which torch.compile can fuse with what follows, and
            not by oneDNN.
        floats: What the product is rounded to; None: bfloat16 where the CPU has it, else float32.

    Attributes:
        step: The static scale (1,), or None.
        bias: What the result lacks, (out,); None where the product adds it.
    """

    weight: Tensor
    scales: Tensor
    step: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        *layers: nn.Module,
        factor: Tensor | None = None,
        plain: bool = False,
        floats: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.how = how = input_of(layers[0])
        if plain and how.dtype == torch.uint8:
            self.how = how._replace(dtype=torch.int8)
        self.floats = floats or (torch.bfloat16 if native_bf16() else torch.float32)
        weights, betas, biases = zip(*map(_parts, layers), strict=True)
        weight, scales = torch.cat(weights), torch.cat(betas)  # (out, in), (out,)
        factor = torch.ones_like(scales) if factor is None else factor.float()
        scales, bias = scales * factor, torch.cat(biases) * factor  # (out,)
        held: list[Tensor | None] = [getattr(layer, "static", None) for layer in layers]
        steps = [static[:1] for static in held if static is not None]
        static = torch.cat(steps).amax(0, keepdim=True) if steps else None
        for name, value in (("step", static), ("bias", None if steps else bias)):
            self.register_buffer(name, value)
        self.fused_bias = bias if steps else None
        if self.how.dtype == torch.uint8:
            self.packed = torch.ops.onednn.qlinear_prepack(weight.to(torch.int8), None)
            self.scales, self.zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
            self.scale = 1.0 if static is None else static.item()
        elif self.how.dtype == torch.int8:
            self.register_buffer("weight", weight.to(torch.int8))
            self.register_buffer("scales", scales if static is None else scales * static)
        else:
            weight = weight * (scales if static is None else scales * static)[:, None]
            self.register_buffer("weight", weight.to(self.how.dtype))

    @property
    def packed_bytes(self) -> int:
        """The memory of the integer weights, which oneDNN holds beside parameters and buffers."""
        return self.packed.numel() if self.how.dtype == torch.uint8 else 0

    def forward(self, x: Tensor, gelu_to: float | None = None) -> Tensor:
        """Multiply; with `gelu_to`, then apply GELU and quantize to 8 bits by that static scale."""
        if self.how.dtype == torch.int8:
            y = torch._int_mm(x, self.weight.t()) * self.scales
            return y if self.fused_bias is None else (y + self.fused_bias).to(self.floats)
        if self.how.dtype != torch.uint8:
            return F.linear(x, self.weight, self.fused_bias)
        result = (1.0, 0, self.floats, "none") if gelu_to is None else (gelu_to, ZERO, torch.uint8, "gelu")
        algorithm = "" if gelu_to is None else "none"  # with erf
        return torch.ops.onednn.qlinear_pointwise(
            x, self.scale, ZERO, self.packed, self.scales, self.zeros, self.fused_bias, *result, [], algorithm
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
