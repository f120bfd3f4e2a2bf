"""Puts fused blocks into a packed model where they compute the same, and faster."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.quantization.fused_blocks import FusedBlock, is_fusible

log = logging.getLogger(__name__)
NEAR = 0.03  # relative error of a block's change of its input; bfloat16 causes about 0.01 at 8 bits
FLOOR = 5  # times the error that rounding the input alone to bfloat16 causes, which is large at 2 bits
TOKENS = 197  # of an image, where the model does not say


def fuse_(model: nn.Module, always: bool = False, compiles: bool = True) -> int:
    """Replace the blocks of a packed model by fused ones, for inference on a CPU.

    A block is replaced only if the fused one gives nearly its output for random tokens, and takes less time
    for them. The passes of a fused block are compiled where a C++ compiler is found; the first time on a
    machine that takes about ten seconds, and later, from torch's cache, about three.

    Args:
        model: As `load_packed` gives it, on the CPU; changed in place. Afterwards it gives logits alone, no
            hidden states or attentions.
        always: Whether a block is replaced though it takes more time.
        compiles: Whether passes are compiled where that is possible.

    Returns:
        How many blocks were replaced.
    """
    found = [name for name, module in model.named_modules() if is_fusible(module)]
    x_of = {name: _tokens(model, model.get_submodule(name)) for name in found}
    replaced = 0
    with torch.no_grad():
        for name in found:
            if (fused := _better(model.get_submodule(name), x_of[name], always, compiles)) is not None:
                model.set_submodule(name, fused.eval())
                replaced += 1
    return replaced


def _tokens(model: Any, block: Any) -> Tensor:
    """Random tokens (1, tokens, width) of an image for a block."""
    config = getattr(model, "config", None)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    tokens = (size // patch) ** 2 + 1 if isinstance(size, int) and isinstance(patch, int) else TOKENS
    return torch.randn(1, tokens, block.mlp.fc1.in_features, generator=torch.Generator().manual_seed(0))


def _better(block: Any, x: Tensor, always: bool, compiles: bool) -> nn.Module | None:
    """The fused block with compiled passes, or else without; None where the block itself is better."""
    expected = block(x)
    floor = (block(x.bfloat16().float()) - expected).norm()
    allowed = NEAR * (expected - x).norm() + FLOOR * floor
    for compiled in (True, False) if compiles else (False,):
        fused = FusedBlock(block, compiled)
        try:
            near = (fused(x) - expected).norm() <= allowed
            with torch.inference_mode():
                fused(x.clone())  # compiles the passes for inference mode as well
        except Exception as error:  # no compiler, say
            log.info("a block's passes are not compiled: %s", str(error).partition("\n")[0])
            continue
        if not near:
            return None
        if always or _seconds(fused, x) < _seconds(block, x):
            return fused
    return None


def _seconds(run: Callable[[Tensor], object], x: Tensor) -> float:
    """The shortest of some calls, after one that is not counted."""
    run(x)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - started)
    return min(times)
