"""What this process may use of the machine: its CPUs and its memory, where a container or a job has less than the host.

Read once a process.
"""

import functools
import math
import os
import platform
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path("/")


@functools.cache
def cpus() -> int:
    """CPUs that this process may run on: by its affinity, and by the quota of its control group (1.5 counts as 2)."""
    try:
        affine = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        affine = os.cpu_count() or 1
    quotas = [math.ceil(quota) for folder in _groups("cpu") if (quota := _quota(folder))]
    return max(1, min([affine, *quotas]))


@functools.cache
def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the lowest limit of `ulimit -v` and of its control groups."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if (soft := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        limits.append(soft)
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):  # cgroup v2, v2, v1
            with suppress(OSError, ValueError):  # absent, or "max"
                limits.append(int((folder / name).read_text()))
    return min(limits)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process, each before the one above it; in a container, what it sees of them."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    mounted = ROOT / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)  # "0::/a/b" in v2, "4:cpu,cpuacct:/a/b" in v1
        tops = (
            [mounted / controllers, mounted / controller] if controllers else [mounted, mounted / "unified"]
        )
        if controllers and controller not in controllers.split(","):
            continue
        for top in tops:
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _quota(folder: Path) -> float | None:
    """CPUs' worth of time in each period; None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()  # v2: "150000 100000" or "max 100000"
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = (
            (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )  # v1: -1 is no limit
        return int(quota) / int(period) if int(quota) > 0 else None
    return None


def native_bf16() -> bool:
    """Whether this machine has a GPU, or a CPU with bfloat16 instructions."""
    import torch

    return torch.cuda.is_available() or any(
        has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name
    )


def device() -> "torch.device":
    """Where models are trained: the GPU, where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The name of the GPU or, without one, of the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
