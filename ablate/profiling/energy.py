"""The energy of inference, read from a counter of the hardware: a GPU's by NVML, a CPU's by RAPL.

A counter counts all that runs on its GPU or in its CPU packages, and what they take when idle. So nothing
else may run there. Where there is no counter, nothing is estimated from the hardware's nominal power.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.hardware import device
from ablate.models.loading import logits

POWERCAP = Path("/sys/class/powercap")  # docs.kernel.org/power/powercap/powercap.html
N_BLOCKS, BLOCK_SECONDS = 3, 1.0  # the median of these blocks counts
SLICE_SECONDS = 0.01  # between two readings, which take time themselves
PATIENCE_SECONDS = 2.0  # for a counter to change; NVML's does so ten times a second, RAPL's a thousand times


class Counter(Protocol):
    """A counter of energy.

    Attributes:
        name: What it counts, in a few words.
    """

    name: str

    def millijoules(self) -> float:
        """The energy since some time in the past. Raises BadInput where it cannot be read."""


class RaplCounter:
    """The CPU packages of this machine, without memory, by Linux's powercap.

    It must be read again before a package's counter has run through all of its values, which takes minutes.

    Raises:
        BadInput: There is no package, or its counter cannot be read.
    """

    def __init__(self) -> None:
        names = sorted(POWERCAP.glob("intel-rapl:*/name"))  # AMD's are called so, too
        self._zones = [file.parent for file in names if file.read_text().startswith("package-")]
        if not self._zones:
            rule = f"that of a CPU is read from {POWERCAP}/intel-rapl:*/energy_uj (RAPL)"
            hidden = "and there is no such file, as in most containers and virtual machines"
            raise _impossible(f"{rule}, {hidden}; run on the machine itself, or leave energy_mj out")
        self._ranges = [_read(zone / "max_energy_range_uj") + 1 for zone in self._zones]
        self._last = self._readings()
        self._microjoules = 0
        self.name = f"{', '.join((zone / 'name').read_text().strip() for zone in self._zones)} by RAPL"

    def _readings(self) -> list[int]:
        return [_read(zone / "energy_uj") for zone in self._zones]

    def millijoules(self) -> float:
        now = self._readings()
        for before, after, values in zip(self._last, now, self._ranges, strict=True):
            self._microjoules += (after - before) % values
        self._last = now
        return self._microjoules / 1000


class NvmlCounter:
    """The GPU that torch uses first, with its board, by NVIDIA's management library.

    Raises:
        BadInput: The library's package is missing, or it has no counter for this GPU.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            rule = "that of a GPU is read by the package nvidia-ml-py, which is not installed"
            raise _impossible(f"{rule}; pip install 'ablate-vit[energy]'") from None
        properties = torch.cuda.get_device_properties(0)
        self.name, self._library = f"{properties.name} by NVML", pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        except pynvml.NVMLError as error:
            raise self._unreadable(error) from None
        self.millijoules()

    def millijoules(self) -> float:
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._library.NVMLError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> BadInput:
        rule = (
            "that of a GPU is read from its counter, which Volta and newer have, and their slices (MIG) not"
        )
        return _impossible(f"{rule}, but {self.name} gives {error}; leave energy_mj out")


def energy_counter(of_gpu: bool) -> Counter:
    """Open a counter, and see that it counts.

    Args:
        of_gpu: Whether models run on the GPU.

    Raises:
        BadInput: Energy cannot be measured here; the message says why.
    """
    counter = NvmlCounter() if of_gpu else RaplCounter()
    _await_change(counter, lambda: time.sleep(SLICE_SECONDS))
    return counter


def energy_mj(model: nn.Module, size: tuple[int, int], counter: Counter) -> float:
    """Measure the energy of inference, with one image a call.

    Args:
        model: A classifier in evaluation mode, on the device of the counter.
        size: Of the image, (height, width).
        counter: Of `energy_counter`.

    Returns:
        Millijoules an image, with what the hardware takes when idle: the median of N_BLOCKS blocks of calls,
        each from one change of the counter to another.

    Raises:
        BadInput: The counter cannot be read any more, or does not change.
    """
    pixels = torch.randn(1, 3, *size, device=device())
    synchronise: Callable[[], object] = torch.cuda.synchronize if pixels.is_cuda else lambda: None

    def calls(seconds: float = SLICE_SECONDS) -> int:
        n, limit = 0, time.perf_counter() + seconds
        while n == 0 or time.perf_counter() < limit:
            logits(model, pixels)
            synchronise()
            n += 1
        return n

    with torch.no_grad():
        logits(model, pixels)  # a tensor that a model caches must be usable in training: as in `latency`
    with torch.inference_mode():
        calls(0.1)  # warm-up
        return statistics.median(_block(counter, calls) for _ in range(N_BLOCKS))


def _block(counter: Counter, calls: Callable[[], int]) -> float:
    """Millijoules a call. calls: makes some, and returns how many."""
    begin, _ = _await_change(counter, calls)
    limit, n, now = time.perf_counter() + BLOCK_SECONDS, 0, begin
    while time.perf_counter() < limit:
        now, more = _await_change(counter, calls)
        n += more
    return (now - begin) / n


def _await_change(counter: Counter, act: Callable[[], int | None]) -> tuple[float, int]:
    """Act until the counter changes. Returns what it has then, and the sum of what `act` returned."""
    before, total = counter.millijoules(), 0
    limit = time.perf_counter() + PATIENCE_SECONDS
    while True:
        total += act() or 0
        if (now := counter.millijoules()) != before:
            return now, total
        if time.perf_counter() > limit:
            rule = f"the counter of {counter.name} did not change in {PATIENCE_SECONDS:g} s"
            raise _impossible(f"{rule}, though it must all the time; leave energy_mj out")


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except OSError as error:
        rule = f"{file} must be readable, but gives {error.strerror}"
        mend = f"as root: chmod a+r {POWERCAP}/intel-rapl:*/energy_uj"
        raise _impossible(f"{rule}; {mend}") from None
    except ValueError:
        raise _impossible(f"{file} must hold a number, and does not; leave energy_mj out") from None


def _impossible(why: str) -> BadInput:
    return BadInput(f"energy cannot be measured here: {why}")
