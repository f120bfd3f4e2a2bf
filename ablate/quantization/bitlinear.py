"""BitLinear: a linear layer with 1-bit, ternary or integer weights and b-bit activations.

Equations by figure number of Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10", which follow
[1] BitNet, arXiv 2310.11453, and [10] BitNet b1.58, arXiv 2402.17764. Training computes with the de-quantized
values and straight-through gradients; evaluation multiplies integer levels and applies the scales afterwards,
exactly as the packed layer does.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.precisions import TABLE, TOP
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.loading import carry_hooks
from ablate.models.unquantizable import unfit
from ablate.quantization.adapters import refuse_merging
from ablate.quantization.gradients import is_differentiated, straight_through
from ablate.quantization.quantizers import quantize_activations, quantize_weights
from ablate.quantization.static_scales import StaticScale

Scale = Literal["token", "image", "tensor"] | tuple[Tensor, Tensor]


def separate_images(
    x: Tensor, spec: LayerSpec, images: int | None, static: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Scale]:
    """Separate the images of a layer's input in evaluation, where its activation scale is the tensor's.

    Args:
        x: (..., features), image after image.
        spec: Of the layer.
        images: How many images x has; None: unknown.
        static: The scale and offset of a layer whose scale is static.

    Returns:
        (images, rows, features) and "image": each image has the scale that the tensor's would be if it came
        alone. Or x and the spec's own scale, where there is nothing to separate.
    """
    if static is not None:
        return x, static
    if x.ndim == 1 or not x.numel():  # one token, or none
        return x, "token"
    if spec.activation_scale == "batch":
        return x, "tensor"
    if spec.activation_scale == "token":
        return x, "token"
    if not images or images == 1 or x.shape[0] % images:
        return x, "tensor"
    return x.reshape(images, -1, x.shape[-1]), "image"


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which products keep their dtype; the meta device has no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _at_least_float32(x: Tensor) -> Tensor:
    """float16 as float32: it has neither the 1e-8 of ternary weights nor the inverse of a small gamma."""
    return x.float() if x.dtype == torch.float16 else x


class BitLinear(nn.Linear):
    """y = W~ Quant(LN(x)) * beta * gamma / Qb + bias (Fig. 7), for x (..., in_features).

    Args:
        in_features: Of the input.
        out_features: Of the output.
        bias: Whether there is one.
        device: Of its parameters.
        dtype: Of its parameters.
        **fields: Those of `LayerSpec`; weights are "binary" by default.

    Attributes:
        gain: The trained factor of a learned beta, (1,) or (out_features,); None: beta is not learned.
        static: The scale of its activation levels where that is static; None: it is computed for each input.
        ramp: The lambda of progressive quantization, 0-dimensional; None: 1. Only training reads it.
        images: How many images the input has, set by the model around the layer; None: unknown. Only
            evaluation with the tensor's activation scale reads it.

    Raises:
        ValidationError: A value is out of range (pydantic's, a ValueError).
        BadInput: The weights are "full", or the norm depends on the layer's place in a model.
    """

    parts = frozenset({"weight", "bias", "gain", "static"})  # its tensors, as far as `unfit` is concerned
    gain: nn.Parameter | None
    static: StaticScale | None
    ramp: Tensor | None = None
    images: int | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.spec = LayerSpec(**{"weights": "binary", **fields})
        if self.spec.weights == "full":
            rule = "BitLinear's weights must be binary, ternary, int4 or int8"
            raise BadInput(f"{rule}, but got 'full'; use nn.Linear")
        if not isinstance(self.spec.norm, bool):
            rule = "norm of a single layer must be true or false"
            raise BadInput(f"{rule}, but got {self.spec.norm!r}; quantize_ resolves it")
        self.register_parameter("gain", _gain(self.weight, self.spec))
        static = StaticScale(self.spec, device=self.weight.device) if self.spec.is_static else None
        self.register_module("static", static)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **fields: Any) -> Self:
        """Make a BitLinear that takes the place of a linear layer.

        Args:
            linear: Its weight and bias parameters and its hooks are taken over, and the gain of a BitLinear
                whose beta is learned in the same way. Any other gain begins at 1.
            **fields: Those of `LayerSpec`.

        Raises:
            BadInput: The layer is more than a weight and a bias, as `unfit` says.
        """
        if why := unfit(linear):
            raise BadInput(f"a BitLinear must take the place of a plain nn.Linear, but {why}")
        with torch.device("meta"):
            layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, **fields)
        return layer.take_over(linear)

    def take_over(self, layer: Any) -> Self:
        """Take over parameters, hooks and mode of a layer, and its gain where that is of the same kind."""
        self.weight, self.bias = layer.weight, layer.bias
        self.gain, earlier = _gain(self.weight, self.spec), getattr(layer, "gain", None)
        if self.gain is not None and earlier is not None and earlier.shape == self.gain.shape:
            self.gain = earlier
        if self.static is not None:
            self.static = StaticScale(self.spec, self.weight.requires_grad, self.weight.device)
        carry_hooks(layer, self)
        return self.train(layer.training)

    def matrix(self) -> Tensor:
        """The weights (out_features, in_features)."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.weights == "binary" and "weight_mask" in self._buffers:
            rule = "binary weights are -1 or 1 and must not be pruned, but torch.nn.utils.prune was used"
            raise BadInput(f"{rule}; make the layer ternary, or remove its pruning")
        if self.static is not None and self.static.wants(self.training):
            self.static.calibrate(self._normed(x))
        if self.training:
            return self._rounded(x)
        if not is_differentiated(x, *self.parameters()):
            return self._exact(x)
        with torch.no_grad():
            exact = self._exact(x)
        rounded = self._rounded(x.to(self.weight.dtype)).to(exact.dtype)
        return straight_through(rounded, exact).clone()  # no view, so that it may be changed in place

    def levels_and_scale(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Quantize the weights, so that levels * scale approximates them.

        Args:
            dtype: Of the result; None: that of the weights, or float32 for float16.

        Returns:
            levels: Integers (out, in).
            scale: 0-dimensional, or (out, 1) per channel. Of a learned beta, mean|W| times the gain, to which
                alone its gradient goes.
        """
        weight = self.matrix().detach()
        weight = _at_least_float32(weight) if dtype is None else weight.to(dtype)
        levels, scale = quantize_weights(weight, self.spec)
        if self.gain is not None:
            # As the step of LSQ, arXiv 1902.08153, but relative to mean|W|: one learning rate suits all.
            scale = scale * self.gain.to(scale.dtype).reshape(scale.shape)
        return levels, scale

    def _rounded(self, x: Tensor) -> Tensor:
        """De-quantized values in floating point: what training computes, and whose gradients count."""
        normed = self._normed(x)
        value, weight = self._quantized_activations(normed), self._quantized_weight()
        if self.training and self.ramp is not None:
            # x + lambda (Quant(LN(x)) - x) and W + lambda (beta W~ - W)
            value = torch.lerp(x.to(value.dtype), value, self.ramp.to(value.dtype))
            weight = torch.lerp(self.matrix(), weight, self.ramp.to(weight.dtype))
        return F.linear(value, weight, self.bias)

    def _normed(self, x: Tensor) -> Tensor:
        # Fig. 7: LN, no learned parameters
        return F.layer_norm(x, (self.in_features,), eps=1e-5) if self.spec.norm else x

    def _quantized_weight(self) -> Tensor:
        """beta W~ in floating point, its gradient straight through to W where the spec has one."""
        levels, beta = self.levels_and_scale()
        with torch.no_grad():
            clipped = self.spec.straight_through == "clipped" and TABLE[self.spec.weights].has_beta
            # arXiv 1602.02830 eq. 4, its 1 for beta
            inside = self.matrix().abs() <= beta.abs() if clipped else None
        # Of a learned beta the product is differentiated: the gain's gradient is that of levels * mean|W|.
        value = (levels.mul_(beta) if self.gain is None else levels * beta).to(self.weight.dtype)
        if self.spec.straight_through is None:
            return value
        return straight_through(self.matrix(), value, inside)

    def _quantized_activations(self, x: Tensor) -> Tensor:
        """Quant(x) in floating point, its gradient straight through to x."""
        spec, bits = self.spec, self.spec.activation_bits
        if bits is None:
            return x
        if self.static is not None:
            return self.static.rounded(x)
        with torch.no_grad():
            images = 1 if self.training else self.images  # training keeps the batch's scale
            rows, per = separate_images(_at_least_float32(x), spec, images)
            levels, scale, offset = quantize_activations(rows, bits, spec.signed, per)
            inside = None
            if spec.straight_through == "clipped":  # as the weights: no gradient beyond the outermost levels
                most = max(1, 2 ** (bits - 1) - 1) * scale
                inside = ((rows if spec.signed else rows - offset).abs() <= most).reshape(x.shape)
            value = levels.mul_(scale) if spec.signed else levels.mul_(scale).add_(offset)
            value = value.reshape(x.shape).to(x.dtype)
        return straight_through(x, value, inside)

    def _exact(self, x: Tensor) -> Tensor:
        """Evaluation, at least in float32: integer levels multiply exactly, scales and bias come after.

        Sums below 2^24 are exact in float32. Where they may be larger, float64 rounds them once, as int32 to
        float32 does.
        """
        spec, wanted = self.spec, x.dtype
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        with no_autocast(x.device):
            x = self._normed(x.to(wide))
            weight, beta = self.levels_and_scale(wide)  # (out, in), () or (out, 1)
            beta = beta.flatten()  # (1,) or (out,)
            if spec.activation_bits is None:
                y = F.linear(x, weight) * beta
            else:
                static = None if self.static is None else self.static(x.dtype)
                rows, per = separate_images(x, spec, self.images, static)
                levels, scale, offset = quantize_activations(rows, spec.activation_bits, spec.signed, per)
                if self.in_features * 2 ** (spec.activation_bits - 1) * TOP[spec.weights] < 2**24:
                    sums = F.linear(levels, weight)
                else:
                    sums = F.linear(levels.double(), weight.double()).to(x.dtype)
                y = sums * (scale * beta)  # Fig. 7; scale is gamma / Qb
                if not spec.signed:
                    y = y + offset * (beta * weight.sum(1))  # undoes Fig. 5: eta * beta * rowsum(W~)
                y = y.reshape(*x.shape[:-1], self.out_features)
            return (y if self.bias is None else y + self.bias).to(wanted)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if prefix.startswith("base_model.model.") or prefix.endswith(
            "base_layer."
        ):  # PEFT writes the adapter alone
            fact = "the file of an adapter does not record that the model it was trained on is quantized"
            warnings.warn(f"{fact}: quantize_ that model again before the adapter is loaded", stacklevel=1)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the layer; one that an earlier version pickled has neither gain nor static scale."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._parameters.setdefault("gain", None)
        self._modules.setdefault("static", None)

    def extra_repr(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in self.spec.model_dump().items())
        return f"{super().extra_repr()}, {fields}"


def has_gain(spec: LayerSpec) -> bool:
    """Whether a layer of a spec has a gain: a learned beta. int4 and int8 take no beta."""
    return spec.beta == "learned" and TABLE[spec.weights].has_beta


def _gain(weight: Tensor, spec: LayerSpec) -> nn.Parameter | None:
    """The factor of a learned beta where it begins, trained where the weights are."""
    if not has_gain(spec):
        return None
    ones = weight.new_ones(len(weight) if spec.beta_per == "channel" else 1)
    return nn.Parameter(ones, weight.requires_grad)


refuse_merging(BitLinear)
