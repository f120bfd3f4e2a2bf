"""In evaluation an image's answer does not depend on the images beside it, also where a scale is the whole input's.

With `activation_scale = "tensor"` gamma is the maximum over a batch [figure 4], so that the class of an image would depend on
its batch-mates, and on how many a device takes at a time. In evaluation each image therefore has the gamma that it would have
if it came alone. Training keeps the batch's.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ablate.config.trial_spec import LayerSpec
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.integer_linear import IntegerLinear


def image_by_image_(model: nn.Module, specs: Iterable[LayerSpec]) -> None:
    """Make a model tell its quantized layers how many images they are given, by hooks around its forward.

    The number of images is the first dimension of the first tensor that the model is called with. A layer that is called
    by itself, and not through the model, knows of none. Nothing is done where every scale is a token's.

    Args:
        model: The model, changed in place; it may have these hooks already.
        specs: Of its quantized layers.
    """
    known = any(hook is _tell for hook in model._forward_pre_hooks.values())
    if not known and any(map(shares_scales, specs)):
        model.register_forward_pre_hook(_tell, with_kwargs=True)
        model.register_forward_hook(_forget, always_call=True)  # also after an exception


def shares_scales(spec: LayerSpec) -> bool:
    """Whether the tokens of an input share the scale of their levels."""
    return spec.weights != "full" and spec.activation_bits is not None and spec.activation_scale == "tensor"


def _tell(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim)
    _set(model, next((value.shape[0] for value in given), None))


def _forget(model: nn.Module, args: Any, output: Any) -> None:
    _set(model, None)


def _set(model: nn.Module, images: int | None) -> None:
    for layer in model.modules():
        if isinstance(layer, BitLinear | IntegerLinear):
            layer.images = images
