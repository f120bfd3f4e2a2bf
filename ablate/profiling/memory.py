"""The memory of a model in inference: its tensors, and what a call allocates beside them."""

import os
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ablate.models.loading import logits
from ablate.quantization.fused_products import Product


def memory_bytes(model: nn.Module) -> int:
    """Count the bytes of a model's parameters and buffers in memory."""
    known = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return known + sum(module.packed_bytes for module in model.modules() if isinstance(module, Product))


def peak_memory_bytes(model: nn.Module, size: tuple[int, int]) -> int:
    """Measure the peak memory of inference with one image, on the device of the model's tensors.

    Counted is what torch's allocator gives: the model's tensors, and at the worst moment of a call the image,
    the activations and the temporary buffers of torch's own kernels. What libraries such as oneDNN allocate
    by themselves is not. The number depends on device and threads, and not on time or other processes.

    Args:
        model: A classifier in evaluation mode.
        size: Of the image, (height, width).

    Returns:
        Bytes.
    """
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))

    def call() -> None:
        logits(model, torch.zeros(1, 3, *size, device=device))

    with torch.no_grad():
        call()  # what the first call alone allocates, as a GPU's workspaces
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            call()
            return memory_bytes(model) + torch.cuda.max_memory_allocated(device) - before
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints an error where no GPU is
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            call()
    events = profiler.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]  # in the order of time
    return memory_bytes(model) + max(accumulate(changes))
