"""Puts fused blocks into a packed model where they compute the same, and faster."""

import logging
import time
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ablate.quantization.fused_blocks import FusedBlock, Way, is_fusible, kind_of
from ablate.quantization.fused_choices import choice_key, keep_choice, kept_choice

log = logging.getLogger(__name__)
NEAR = 0.03  # relative error of a block's change of its input; bfloat16 causes about 0.01 at 8 bits
FLOOR = 5  # times the error that rounding the input alone to bfloat16 causes, which is large at 2 bits
PAIRS = 15  # of calls, to find the faster way
Ways = dict[Any, Way | None]  # by what blocks have in common
UNFUSED = "unfused"  # the choice of the block itself
TOKENS = 197  # of an image, where the model does not say


def fuse_(model: nn.Module, always: bool = False, compiles: bool = True) -> int:
    """Replace the blocks of a packed model by fused ones, for inference on a CPU.

    A block is replaced only if the fused one gives nearly its output for random tokens, and if the first
    block of its kind takes less time for them. Each kind is compiled in the fastest of the ways that there
    are, where a C++ compiler is found. The choice is kept in `choices_file` for this machine. The first time
    takes about twenty seconds, and later, from torch's cache, five.

    Args:
        model: As `load_packed` gives it, on the CPU; changed in place. Afterwards it gives logits alone, no
            hidden states or attentions.
        always: Whether a block is replaced though it takes more time.
        compiles: Whether anything is compiled where that is possible.

    Returns:
        How many blocks were replaced.
    """
    ways: Ways = {}
    replaced = 0
    for name in [name for name, module in model.named_modules() if is_fusible(module)]:
        block: Any = model.get_submodule(name)
        faster = faster_block(block, _tokens(model, block), ways, always, compiles)
        if faster is not block:
            model.set_submodule(name, faster)
            replaced += 1
    return replaced


@torch.no_grad()
def faster_block(
    block: nn.Module, x: Tensor, ways: Ways, always: bool = False, compiles: bool = True
) -> nn.Module:
    """The fused form of a block, or the block itself: see `fuse_`.

    Args:
        block: A block of a packed model, or one in full precision.
        x: Tokens (1, tokens, width).
        ways: The way of each kind of block that was met; extended.
        always: As for `fuse_`.
        compiles: As for `fuse_`.
    """
    if not is_fusible(block):
        return block
    if (kind := kind_of(block)) not in ways:
        ways[kind] = _way(block, x, always, compiles)
    if (way := ways[kind]) is None:
        return block
    fused = FusedBlock(block, way).eval()
    return fused if _agrees(fused, block, x) else block


def _tokens(model: Any, block: Any) -> Tensor:
    """Random tokens (1, tokens, width) of an image for a block."""
    config = getattr(model, "config", None)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    tokens = (size // patch) ** 2 + 1 if isinstance(size, int) and isinstance(patch, int) else TOKENS
    return torch.randn(1, tokens, block.mlp.fc1.in_features, generator=torch.Generator().manual_seed(0))


def _way(block: nn.Module, x: Tensor, always: bool, compiles: bool) -> Way | None:
    """The fastest way to fuse such a block; None where the block itself is faster."""
    key = choice_key(kind_of(block), tuple(x.shape), compiles)
    kept = kept_choice(key)
    if kept == UNFUSED and not always:
        return None
    for way in get_args(Way):
        if kept == way and _fused(block, way, x) is not None:
            return way
    way, tried_all = _measured(block, x, always, compiles)
    if tried_all and not always:
        keep_choice(key, way or UNFUSED)
    return way


def _measured(block: nn.Module, x: Tensor, always: bool, compiles: bool) -> tuple[Way | None, bool]:
    """The fastest way, and whether all were tried: a compiler that is missing may be there tomorrow."""
    fastest: nn.Module = block
    found: Way | None = None
    tried_all = True
    ways: tuple[Way, ...] = ("passes", "whole", "eager") if compiles else ("eager",)
    for way in ways:
        if way == "eager" and found:
            break
        if (fused := _fused(block, way, x)) is None:
            tried_all = False
        elif (always and found is None) or _is_faster(fused, fastest, x):
            fastest, found = fused, way
    return found, tried_all


def _fused(block: nn.Module, way: Way, x: Tensor) -> FusedBlock | None:
    """A block fused and compiled for such tokens, with and without inference mode; None where that fails."""
    fused = FusedBlock(block, way).eval()
    try:
        fused(x)
        with torch.inference_mode():
            fused(x.clone())
    except Exception as error:  # no compiler, say
        log.info("a block is not compiled: %s", str(error).partition("\n")[0])
        return None
    return fused


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
