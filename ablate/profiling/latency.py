"""Measures the latency of a model.

torch.utils.benchmark.Timer does not fit: it times blocks of calls with one synchronisation at the end of
each, whereas here each call is synchronised by itself, or on purpose not at all, on the threads that the
process has.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.models.loading import logits

LONGEST_SECONDS, LARGEST_BATCH = 3600, 4096


@dataclass(frozen=True)
class Timing:
    """The latency of a call.

    Attributes:
        median_ms: Over the calls after a warm-up, each synchronised.
        p95_ms: Their 95th percentile.
        n: Calls.
        batch: Images a call.
        threads: Of the CPU.
        device: "cpu" or "cuda".
    """

    median_ms: float
    p95_ms: float
    n: int
    batch: int
    threads: int
    device: str


def check_timing(seconds: float, *batches: int) -> None:
    """Raise BadInput where a measurement would not end, or its images would not fit into memory.

    Args:
        seconds: To measure for.
        *batches: Images a call.
    """
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise BadInput(f"seconds must be from 0 to {LONGEST_SECONDS}, but got {seconds}; 1 is usual")
    for batch in batches:
        if not (1 <= batch <= LARGEST_BATCH and batch == int(batch)):
            raise BadInput(f"batch must be from 1 to {LARGEST_BATCH} images, but got {batch}; 1 is usual")


def measure(
    model: nn.Module,
    size: tuple[int, int],
    batch: int = 1,
    *,
    seconds: float = 1.0,
    dtype: torch.dtype = torch.float32,
    wait: bool = True,
) -> Timing:
    """Measure the latency of a model in evaluation, on the device of its tensors.

    Args:
        model: A classifier.
        size: Of the images, (height, width).
        batch: Images a call.
        seconds: To measure for; at least five calls are made.
        dtype: Of the images.
        wait: False measures until the call returns, on a GPU before the work is done: to show that this is
            wrong.

    Returns:
        The median, and how it was measured.

    Raises:
        BadInput: `seconds` or `batch` is out of range.
    """
    check_timing(seconds, batch)
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
    pixels = torch.randn(batch, 3, *size, dtype=dtype, device=device)
    return time_calls(lambda: logits(model, pixels), seconds, batch, device, wait)


def time_calls(
    call: Callable[[], object], seconds: float, batch: int, device: torch.device, wait: bool = True
) -> Timing:
    synchronise: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: list[float] = []
    with torch.no_grad():
        # a tensor that a model caches in its first call, as BEiT does, must be usable in training: no
        # inference mode
        call()
    with torch.inference_mode():
        for _ in range(2):  # warm-up
            call()
        synchronise()
        limit = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < limit:
            started = time.perf_counter()
            call()
            if wait:
                synchronise()
            times.append(1000 * (time.perf_counter() - started))
            synchronise()  # idle before the next
    p95 = statistics.quantiles(times, n=20)[-1]
    return Timing(statistics.median(times), p95, len(times), batch, torch.get_num_threads(), device.type)
