"""Straight-through gradients: those of rounding, which has none of its own."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


class _StraightThrough(torch.autograd.Function):
    """Returns value; its gradient goes to x: x + (value - x).detach() without the rounding error.

    With `inside`, a mask of x's shape, only the elements inside have a gradient. It goes to value as well,
    where that depends on what is trained.
    """

    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def forward(x: Tensor, value: Tensor, inside: Tensor | None) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] if inside is None else torch.where(inside, grads[0], 0.0), grads[0], None


def straight_through(x: Tensor, value: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return `value`, with a gradient that goes to x, or to its elements `inside` alone, and to `value`."""
    return _StraightThrough.apply(x, value, inside)


def is_differentiated(*tensors: Tensor) -> bool:
    """Whether gradients to one of these tensors are recorded; never in an export, which computes values."""
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    wanted = wanted or forward_ad._current_level >= 0  # in forward mode, tensors do not say
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return wanted and not (is_traced or torch.compiler.is_exporting())
