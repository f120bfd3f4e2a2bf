"""What modules have in common that are made to compute fast on a CPU, and for nothing else."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ablate.errors import BadInput


class ForInference(nn.Module):
    """A module without gradients that can be neither moved nor copied: oneDNN holds its weights."""

    def check(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Raises BadInput where a gradient is asked for, or there is a mask."""
        if mask is not None or (torch.is_grad_enabled() and x.requires_grad):
            rule = "a model that was loaded with exact=False is for inference, without masks and gradients"
            raise BadInput(f"{rule}; load it with exact=True")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = fn(torch.empty(0))
        if moved.dtype != torch.float32 or moved.device.type != "cpu":
            rule = "a model that was loaded with exact=False must stay on the CPU, in float32"
            raise BadInput(f"{rule}, but got {moved.dtype} on {moved.device}; load it with exact=True")
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise BadInput("a model that was loaded with exact=False cannot be copied; load it again")
