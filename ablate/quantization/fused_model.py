"""Puts fused blocks into a packed model where they compute the same, and faster."""

import logging
import time
from typing import Any

import torch
from torch import Tensor, nn

from ablate.quantization.fused_blocks import FusedBlock, Way, is_fusible, kind_of

log = logging.getLogger(__name__)
NEAR = 0.03  # relative error of a block's change of its input; bfloat16 causes about 0.01 at 8 bits
FLOOR = 5  # times the error that rounding the input alone to bfloat16 causes, which is large at 2 bits
PAIRS = 15  # of calls, to find the faster way
TOKENS = 197  # of an image, where the model does not say


def fuse_(model: nn.Module, always: bool = False, compiles: bool = True) -> int:
    """Replace the blocks of a packed model by fused ones, for inference on a CPU.

    A block is replaced only if the fused one gives nearly its output for random tokens, and if the first
    block of its kind takes less time for them. Each kind is compiled in the fastest of the ways that there
    are, where a C++ compiler is found; the first time on a machine that takes about twenty seconds, and
    later, from torch's cache, five.

    Args:
        model: As `load_packed` gives it, on the CPU; changed in place. Afterwards it gives logits alone, no
            hidden states or attentions.
        always: Whether a block is replaced though it takes more time.
        compiles: Whether anything is compiled where that is possible.

    Returns:
        How many blocks were replaced.
    """
    ways: dict[Any, Way | None] = {}  # by what blocks have in common
    replaced = 0
    with torch.no_grad():
        for name in [name for name, module in model.named_modules() if is_fusible(module)]:
            block: Any = model.get_submodule(name)
            x = _tokens(model, block)
            if (kind := kind_of(block)) not in ways:
                ways[kind] = _way(block, x, always, compiles)
            if (way := ways[kind]) is not None and _agrees(fused := FusedBlock(block, way).eval(), block, x):
                model.set_submodule(name, fused)
                replaced += 1
    return replaced


def _tokens(model: Any, block: Any) -> Tensor:
    """Random tokens (1, tokens, width) of an image for a block."""
    config = getattr(model, "config", None)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    tokens = (size // patch) ** 2 + 1 if isinstance(size, int) and isinstance(patch, int) else TOKENS
    return torch.randn(1, tokens, block.mlp.fc1.in_features, generator=torch.Generator().manual_seed(0))


def _way(block: nn.Module, x: Tensor, always: bool, compiles: bool) -> Way | None:
    """The fastest way to fuse such a block; None where the block itself is faster."""
    fastest: nn.Module = block
    found: Way | None = None
    ways: tuple[Way, ...] = ("passes", "whole", "eager") if compiles else ("eager",)
    for way in ways:
        if way == "eager" and found:
            break
        fused = FusedBlock(block, way).eval()
        try:
            fused(x)
            with torch.inference_mode():
                fused(x.clone())  # compiles for inference mode as well
        except Exception as error:  # no compiler, say
            log.info("a block is not compiled: %s", str(error).partition("\n")[0])
            continue
        if (always and found is None) or _is_faster(fused, fastest, x):
            fastest, found = fused, way
    return found


def _agrees(fused: nn.Module, block: nn.Module, x: Tensor) -> bool:
    """Whether a fused block gives nearly the block's output."""
    expected = block(x)
    floor = (block(x.bfloat16().float()) - expected).norm()
    return bool((fused(x) - expected).norm() <= NEAR * (expected - x).norm() + FLOOR * floor)


def _is_faster(fused: nn.Module, block: nn.Module, x: Tensor) -> bool:
    """Whether a fused block is faster in most of some pairs of calls, one after the other."""
    wins = 0
    for _ in range(PAIRS):
        started = time.perf_counter()
        fused(x)
        between = time.perf_counter()
        block(x)
        wins += between - started < time.perf_counter() - between
    return wins > PAIRS / 2
