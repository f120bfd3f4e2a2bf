"""`torch.compile` of the parts of a training step."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.models.layer_groups import blocks

# Graphs of one training: a block is compiled once for each combination of its layers' precisions, with lambda
# and without, and for each batch size.
GRAPH_LIMIT = 256


@contextmanager
def compiled(model: nn.Module, on: bool) -> Iterator[None]:
    """Run a model's blocks through `torch.compile` in this context. Blocks of equal code share their graphs.

    Args:
        model: A model with blocks.
        on: Whether to compile at all.

    Raises:
        BadInput: The model has no blocks.
        torch._dynamo.exc.FailOnRecompileLimitHit: In the context, on more than GRAPH_LIMIT graphs.
    """
    modules = [model.get_submodule(name) for name in blocks(model)] if on else []
    if on and not modules:
        raise BadInput("compile needs a model with blocks, and this one has none; set compile = false")
    for block in modules:
        block.forward = torch.compile(block.forward, dynamic=False)
    limits = {
        "recompile_limit": GRAPH_LIMIT,
        "accumulated_recompile_limit": GRAPH_LIMIT,
        "fail_on_recompile_limit_hit": True,
    }
    with torch._dynamo.config.patch(limits) if on else nullcontext():
        try:
            yield
        finally:
            for block in modules:
                del block.forward  # restores the method of the class
