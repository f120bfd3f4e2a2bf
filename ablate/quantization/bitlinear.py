"""BitLinear: a linear layer with 1-bit, ternary or integer weights and b-bit activations.

Equations by figure number of Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10", which follow
[1] BitNet, arXiv 2310.11453, and [10] BitNet b1.58, arXiv 2402.17764. Training computes with the de-quantized
values and straight-through gradients; evaluation multiplies integer levels and applies the scales afterwards,
exactly as the packed layer does.
"""

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.precisions import TOP
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.unquantizable import unfit
from ablate.quantization.quantizers import quantize_activations, quantize_weights


def apart(
    x: Tensor, spec: LayerSpec, images: int | None
) -> tuple[Tensor, Literal["token", "image", "tensor"]]:
    """A layer's input in evaluation, and what its activations' scale is for: (x, spec's), or image by image.

    x: (..., features). Where the spec's scale is the tensor's, and x is of so many `images`, one after the other, it is
    (images, rows, features), and the scale is each image's: what the tensor's would be if the image came alone.
    """
    if x.ndim == 1 or not x.numel():  # one token, or none
        return x, "token"
    if (
        spec.activation_scale == "token" or not images or images == 1 or x.shape[0] % images
    ):  # nothing to tell apart
        return x, spec.activation_scale
    return x.reshape(images, -1, x.shape[-1]), "image"


class _StraightThrough(torch.autograd.Function):
    """value forwards, the gradient of x backwards: x + (value - x).detach() without its rounding error.

    Where there is an `inside`, a mask of x's shape, only what is inside has a gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(inside)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] if inside is None else torch.where(inside, grads[0], 0.0), None, None


class BitLinear(nn.Linear):
    """y = W~ Quant(LN(x)) * beta * gamma / Qb + bias (Fig. 7). x: (..., in_features) -> (..., out_features).

    The keywords are the fields of `LayerSpec`. `ramp` is the lambda of progressive quantization, 0-dimensional, or None
    for 1; only training reads it. `images` is how many are in the input, told by the model around the layer, or None;
    only evaluation with the tensor's activation scale reads it.
    Raises pydantic's ValidationError, a ValueError, for values out of range, and BadInput for weights="full" and for a
    norm that depends on the layer's place in a model.
    """

    is_plain_linear = True  # a weight and a bias, as far as `unfit` is concerned
    ramp: Tensor | None = None
    images: int | None = None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **fields: Any) -> None:
        super().__init__(in_features, out_features, bias)
        self.spec = LayerSpec(**{"weights": "binary", **fields})
        if self.spec.weights == "full":
            raise BadInput(
                "BitLinear's weights must be binary, ternary, int4 or int8, but got 'full'; use nn.Linear"
            )
        if not isinstance(self.spec.norm, bool):
            raise BadInput(
                f"norm of a single layer must be true or false, but got {self.spec.norm!r}; quantize_ resolves it"
            )

    @classmethod
    def from_linear(cls, linear: nn.Linear, **fields: Any) -> Self:
        """A BitLinear in the place of `linear`, with its very weight and bias parameters, and its hooks.

        Raises BadInput for a layer that is more than a weight and a bias, as `unfit` says.
        """
        if why := unfit(linear):
            raise BadInput(f"a BitLinear must take the place of a plain nn.Linear, but {why}")
        with torch.device("meta"):
            layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, **fields)
        layer.weight, layer.bias = linear.weight, linear.bias
        carry_hooks(linear, layer)
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        # Fig. 7: LN, no learned parameters
        normed = F.layer_norm(x, (self.in_features,), eps=1e-5) if self.spec.norm else x
        if not self.training:
            return self._exact(normed)
        value, weight = self._quantized_activations(normed), self._quantized_weight()
        if self.ramp is not None:  # x + lambda (Quant(LN(x)) - x) and W + lambda (beta W~ - W)
            value = torch.lerp(x.to(value.dtype), value, self.ramp.to(value.dtype))
            weight = torch.lerp(self.weight, weight, self.ramp.to(weight.dtype))
        return F.linear(value, weight, self.bias)

    def _quantized_weight(self) -> Tensor:
        """Training: beta W~ in floating point, its gradient straight through to W."""
        with torch.no_grad():
            levels, beta = quantize_weights(self.weight, self.spec)
            clipped = self.spec.straight_through == "clipped" and self.spec.weights in ("binary", "ternary")
            inside = self.weight.abs() <= beta if clipped else None  # arXiv 1602.02830 eq. 4, its 1 for beta
            value = levels.mul_(beta)
        return _StraightThrough.apply(self.weight, value, inside)

    def _quantized_activations(self, x: Tensor) -> Tensor:
        """Training: Quant(x) in floating point, its gradient straight through to x."""
        spec, bits = self.spec, self.spec.activation_bits
        if bits is None:
            return x
        with torch.no_grad():
            levels, scale, offset = quantize_activations(x, bits, spec.signed, spec.activation_scale)
            inside = None
            if spec.straight_through == "clipped":  # as the weights: no gradient beyond the outermost levels
                inside = (x if spec.signed else x - offset).abs() <= max(1, 2 ** (bits - 1) - 1) * scale
            value = levels.mul_(scale) if spec.signed else levels.mul_(scale).add_(offset)
        return _StraightThrough.apply(x, value, inside)

    def _exact(self, x: Tensor) -> Tensor:
        """Evaluation, at least in float32: integer levels multiply exactly, scales and bias come after.

        Sums below 2^24 are exact in float32; where they may be larger, float64 rounds them once, as int32 to float32 does.
        """
        spec, wanted = self.spec, x.dtype
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(wide)
            weight, beta = quantize_weights(self.weight.to(wide), spec)  # (out, in), () or (out, 1)
            beta = beta.flatten()  # (1,) or (out,)
            if spec.activation_bits is None:
                y = F.linear(x, weight) * beta
            else:
                rows, gamma_of = apart(x, spec, self.images)
                levels, scale, offset = quantize_activations(
                    rows, spec.activation_bits, spec.signed, gamma_of
                )
                if self.in_features * 2 ** (spec.activation_bits - 1) * TOP[spec.weights] < 2**24:
                    sums = F.linear(levels, weight)
                else:
                    sums = F.linear(levels.double(), weight.double()).to(x.dtype)
                y = sums * (scale * beta)  # Fig. 7; scale is gamma / Qb
                if not spec.signed:
                    y = y + offset * (beta * weight.sum(1))  # undoes Fig. 5: eta * beta * rowsum(W~)
                y = y.reshape(*x.shape[:-1], self.out_features)
            return (y if self.bias is None else y + self.bias).to(wanted)

    def extra_repr(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in self.spec.model_dump().items())
        return f"{super().extra_repr()}, {fields}"


def carry_hooks(old: nn.Module, new: nn.Module) -> None:
    """The hooks of a replaced module go on with the one in its place, and their handles still remove them."""
    vars(new).update({name: value for name, value in vars(old).items() if "hook" in name})
