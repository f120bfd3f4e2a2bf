"""The patch embedding: a convolution whose kernel is its stride is a linear layer on the patches of an image.

It can be quantized, but only where it is named: most layers that quantization touches are cheaper to lose.
"""

from typing import Any

from torch import Tensor, nn

GROUP = "patch_embedding"  # the name of its layer group
NOT_BY_DEFAULT = "a patch embedding is quantized only where it is named"


def patch_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The patch embeddings of a model.

    Args:
        model: Of images with three channels.

    Returns:
        Name -> convolution from the three channels, its stride that of its kernel, without padding.
    """
    return {name: module for name, module in model.named_modules() if _cuts_patches(module)}


def _cuts_patches(module: Any) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.in_channels == 3
        and module.kernel_size == module.stride
        and max(module.kernel_size) > 1
        and module.padding in ((0, 0), "valid")
        and module.dilation == (1, 1)
        and module.groups == 1
        and {*module._parameters, *module._buffers} == {"weight", "bias"}
        and type(module.weight) is nn.Parameter
        and not module._modules
        and "forward" not in vars(module)
    )


def patches(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut images into patches, as a convolution sees them.

    Args:
        pixels: (B, C, H, W).
        size: (height, width) of a patch. What is left at the right and at the bottom is cut off.

    Returns:
        (B, H', W', C * height * width).
    """
    down, across = (side // each for side, each in zip(pixels.shape[-2:], size, strict=True))
    pixels = pixels[..., : down * size[0], : across * size[1]]
    pixels = pixels.reshape(*pixels.shape[:2], down, size[0], across, size[1])
    return pixels.permute(0, 2, 4, 1, 3, 5).flatten(3)
