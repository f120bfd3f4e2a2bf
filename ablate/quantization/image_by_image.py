"""Keeps the images of a batch independent in evaluation, also where the activation scale is the tensor's.

With `activation_scale = "tensor"` gamma is the maximum over a batch [figure 4]: the class of an image would
depend on the other images, and on the batch size. In evaluation each image therefore has the gamma that it
would have if it came alone. Training keeps the batch's.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ablate.config.trial_spec import LayerSpec
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.integer_linear import IntegerLinear


def image_by_image_(model: nn.Module, specs: Iterable[LayerSpec]) -> None:
    """Make a model set `images` of its quantized layers, by hooks around its forward.

    The number of images is the first dimension of the first tensor that the model is called with. A layer
    that is called directly, and not through the model, has None. Nothing is done where every scale is a
    token's.

    Args:
        model: The model, changed in place; it may have these hooks already.
        specs: Of its quantized layers.
    """
    is_hooked = any(hook is _count_images for hook in model._forward_pre_hooks.values())
    if not is_hooked and any(map(shares_scales, specs)):
        model.register_forward_pre_hook(_count_images, with_kwargs=True)
        model.register_forward_hook(_reset, always_call=True)  # also after an exception


def shares_scales(spec: LayerSpec) -> bool:
    """Whether the tokens of an input share the scale of their levels."""
    return spec.weights != "full" and spec.activation_bits is not None and spec.activation_scale == "tensor"


def _count_images(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim)
    _set(model, next((value.shape[0] for value in tensors), None))


def _reset(model: nn.Module, args: Any, output: Any) -> None:
    _set(model, None)


def _set(model: nn.Module, images: int | None) -> None:
    for layer in model.modules():
        if isinstance(layer, BitLinear | IntegerLinear):
            layer.images = images
