"""Puts fused blocks and layers into a packed model where they compute the same, and faster."""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ablate.quantization.fused_blocks import FusedBlock, Way, is_fusible, kind_of
from ablate.quantization.fused_choices import choice_key, keep_choice, kept_choice
from ablate.quantization.fused_linear import FusedLinear, is_fusible_layer, kind_of_layer

log = logging.getLogger(__name__)
NEAR = 0.03  # relative error of a block's change of its input; bfloat16 causes about 0.01 at 8 bits
FLOOR = 5  # times the error that rounding the input alone to bfloat16 causes, which is large at 2 bits
PAIRS = 15  # of calls, to find the faster way
Ways = dict[Any, Way | None]  # by what modules have in common
UNFUSED = "unfused"  # the choice of the module itself
TOKENS = 197  # of an image, where the model does not say


def fuse_(model: nn.Module, always: bool = False, compiles: bool = True, ways: Ways | None = None) -> int:
    """Replace the blocks of a packed model by fused ones, and its other layers, for inference on a CPU.

    A module is replaced only if the fused one gives nearly its output for random tokens, and if the first
    module of its kind takes less time for them. Each kind is compiled in the fastest of the ways that there
    are, where a C++ compiler is found. The choice is kept in `choices_file` for this machine. The first time
    takes some fifteen seconds, and later, from torch's cache, five.

    Args:
        model: As `load_packed` gives it, on the CPU; changed in place. Afterwards a model of fused blocks
            gives logits alone, no hidden states or attentions.
        always: Whether a module is replaced though it takes more time.
        compiles: Whether anything is compiled where that is possible.
        ways: Those of an earlier call; extended.

    Returns:
        How many blocks and layers were replaced.
    """
    ways = {} if ways is None else ways
    blocks = _replace(model, fusible_blocks(model), ways, always, compiles)
    return blocks + fuse_layers_(model, always, compiles, ways)


def fuse_layers_(
    model: nn.Module, always: bool = False, compiles: bool = True, ways: Ways | None = None
) -> int:
    """Do what `fuse_` does, with layers alone and no blocks."""
    names = [name for name, layer in model.named_modules() if is_fusible_layer(layer)]
    return _replace(model, names, {} if ways is None else ways, always, compiles)


def _replace(model: nn.Module, names: Iterable[str], ways: Ways, always: bool, compiles: bool) -> int:
    replaced = 0
    for name in names:
        module = model.get_submodule(name)
        faster = faster_form(module, tokens_for(model, module), ways, always, compiles)
        if faster is not module:
            model.set_submodule(name, faster)
            replaced += 1
    return replaced


@torch.no_grad()
def fusible_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that have the parts of a `FusedBlock`, and need nothing but their tokens."""
    found = []
    for name, block in model.named_modules():
        if is_fusible(block):
            with suppress(Exception):  # each architecture fails in its own way
                block(tokens_for(model, block))
                found.append(name)
    return found


@torch.no_grad()
def faster_form(
    module: nn.Module, x: Tensor, ways: Ways, always: bool = False, compiles: bool = True
) -> nn.Module:
    """The fused form of a block or a layer, or the module itself: see `fuse_`.

    Args:
        module: A fusible one.
        x: Tokens (1, tokens, width).
        ways: The way of each kind of module that was met; extended.
        always: As for `fuse_`.
        compiles: As for `fuse_`.
    """
    if (kind := _kind_of(module)) not in ways:
        ways[kind] = _way(module, x, always, compiles)
    if (way := ways[kind]) is None:
        return module
    fused = _form(module, way)
    return fused if _agrees(fused, module, x) else module


def _kind_of(module: Any) -> tuple[Any, ...]:
    return kind_of_layer(module) if is_fusible_layer(module) else kind_of(module)


def _form(module: Any, way: Way) -> nn.Module:
    if is_fusible_layer(module):
        return FusedLinear(module, way == "passes").eval()
    return FusedBlock(module, way).eval()


def tokens_for(model: Any, module: Any) -> Tensor:
    """Random tokens (1, tokens, width) of an image for a block or a layer."""
    config = getattr(model, "config", None)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    tokens = (size // patch) ** 2 + 1 if isinstance(size, int) and isinstance(patch, int) else TOKENS
    width = module.in_features if is_fusible_layer(module) else module.mlp.fc1.in_features
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))


def _way(module: nn.Module, x: Tensor, always: bool, compiles: bool) -> Way | None:
    """The fastest way to fuse such a module; None where the module itself is faster."""
    key = choice_key(_kind_of(module), tuple(x.shape), compiles)
    kept = kept_choice(key)
    if kept == UNFUSED and not always:
        return None
    for way in get_args(Way):
        if kept == way and _fused(module, way, x) is not None:
            return way
    way, tried_all = _measured(module, x, always, compiles)
    if tried_all and not always:
        keep_choice(key, way or UNFUSED)
    return way


def _measured(module: nn.Module, x: Tensor, always: bool, compiles: bool) -> tuple[Way | None, bool]:
    """The fastest way, and whether all were tried: a compiler that is missing may be there tomorrow."""
    fastest: nn.Module = module
    found: Way | None = None
    tried_all = True
    ways: list[Way] = ["passes", "whole", "eager"] if compiles else ["eager"]
    if is_fusible_layer(module) and compiles:
        ways.remove("whole")
    for way in ways:
        if way == "eager" and found:
            break
        if (fused := _fused(module, way, x)) is None:
            tried_all = False
        elif (always and found is None) or _is_faster(fused, fastest, x):
            fastest, found = fused, way
    return found, tried_all


def _fused(module: nn.Module, way: Way, x: Tensor) -> nn.Module | None:
    """The fused form, compiled for such tokens with and without inference mode; None where that fails."""
    fused = _form(module, way)
    try:
        fused(x)
        with torch.inference_mode():
            fused(x.clone())
    except Exception as error:  # no compiler, say
        log.info("%s is not compiled: %s", type(module).__name__, str(error).partition("\n")[0])
        return None
    return fused


def _agrees(fused: nn.Module, module: nn.Module, x: Tensor) -> bool:
    """Whether a fused module gives nearly the module's output; of a block, its change of the input counts."""
    expected = module(x)
    floor = (module(x.bfloat16().float()) - expected).norm()
    change = expected if is_fusible_layer(module) else expected - x
    return bool((fused(x) - expected).norm() <= NEAR * change.norm() + FLOOR * floor)


def _is_faster(fused: nn.Module, module: nn.Module, x: Tensor) -> bool:
    """Whether a fused module is faster in most of some pairs of calls, one after the other."""
    wins = 0
    for _ in range(PAIRS):
        started = time.perf_counter()
        fused(x)
        between = time.perf_counter()
        module(x)
        wins += between - started < time.perf_counter() - between
    return wins > PAIRS / 2
