"""Policies of torchvision that change each image by random operations, and random erasing.

RandAugment: arXiv 1909.13719; TrivialAugment: 2103.10158; AutoAugment: 1805.09501, the policy found on
ImageNet; random erasing: 1708.04896.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

POLICIES = {
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "autoaugment": v2.AutoAugment,
}


def policy_of(name: str | None, erase: float, colour: Sequence[float]) -> Callable[[Tensor], Tensor] | None:
    """Build what changes the images of a batch, each by draws of its own.

    All draws come from torch's generator of the CPU, on every device.

    Args:
        name: Of POLICIES, with torchvision's strength; None: none of them.
        erase: The share of the images of which a rectangle is erased then.
        colour: Of what is erased or comes in at an edge, each channel in [0, 1].

    Returns:
        A function: uint8 (B, 3, H, W) -> the same, on its device; None where nothing is changed.
    """
    fill = [float(round(255 * channel)) for channel in colour]
    changes = []
    if name is not None:
        changes.append(POLICIES[name](interpolation=v2.InterpolationMode.BILINEAR, fill=fill))
    if erase:
        changes.append(v2.RandomErasing(p=erase, value=fill))
    if not changes:
        return None
    change = v2.Compose(changes)
    return lambda images: torch.stack([change(image) for image in images])
