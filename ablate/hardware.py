"""The CPUs and memory that this process may use: in a container or a job, less than the host's.

Both are read once per process.
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
    """The number of CPUs that this process may use.

    The lower of its CPU affinity and the quota of its control groups (cgroups), where 1.5 CPUs count as 2.
    """
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        affinity = os.cpu_count() or 1
    quotas = [math.ceil(quota) for folder in _cgroups("cpu") if (quota := _cpu_quota(folder))]
    return max(1, min([affinity, *quotas]))


@functools.cache
def memory_bytes() -> int:
    """The memory that this process may use.

    The lowest of the machine's memory, `ulimit -v` and the limits of its control groups (cgroups).
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if (soft := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        limits.append(soft)
    for folder in _cgroups("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):  # cgroup v2, v2, v1
            with suppress(OSError, ValueError):  # absent, or "max"
                limits.append(int((folder / name).read_text()))
    return min(limits)


def _cgroups(controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, each before its parent, as far as they are visible."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    mounted = ROOT / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)  # "0::/a/b" in v2, "4:cpu,cpuacct:/a/b" in v1
        if controllers and controller not in controllers.split(","):
            continue
        subfolders = (controllers, controller) if controllers else ("", "unified")
        for top in (mounted / name for name in subfolders):
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _cpu_quota(folder: Path) -> float | None:
    """CPU time per period, in CPUs. None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()  # v2: "150000 100000" or "max 100000"
        return int(quota) / int(period)
    with suppress(OSError, ValueError):  # v1, where a quota of -1 is no limit
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    return None


def native_bf16() -> bool:
    """Whether this machine has a GPU, or a CPU with bfloat16 instructions."""
    import torch

    return torch.cuda.is_available() or any(
        has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name
    )


def device() -> "torch.device":
    """The device that models are trained on: the GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The name of the GPU if there is one, else of the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_name()


def cpu_name() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
