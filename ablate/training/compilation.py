"""`torch.compile` of the parts of a training step."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.models.layer_groups import blocks

KINDS = 256  # of blocks in one training: by their layers' precisions, with lambda and without, and by a batch's size


@contextmanager
def compiled(model: nn.Module, on: bool) -> Iterator[None]:
    """Within, if on: the model's blocks through torch.compile. Those with the same code and precisions share what comes out.

    Raises BadInput for a model without blocks, and, within, torch's FailOnRecompileLimitHit for more than KINDS kinds.
    """
    chosen = [model.get_submodule(name) for name in blocks(model)] if on else []
    if on and not chosen:
        raise BadInput("compile needs a model with blocks, and this one has none; set compile = false")
    for block in chosen:
        block.forward = torch.compile(block.forward, dynamic=False)
    limits = {
        "recompile_limit": KINDS,
        "accumulated_recompile_limit": KINDS,
        "fail_on_recompile_limit_hit": True,
    }
    with torch._dynamo.config.patch(limits) if on else nullcontext():
        try:
            yield
        finally:
            for block in chosen:
                del block.forward  # the class's own again
