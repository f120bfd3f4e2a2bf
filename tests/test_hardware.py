"""Memory and CPUs of this process, where a control group has less than the machine."""

import os

import pytest

from ablate import hardware


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files below a root of one's own -> (CPUs, bytes of memory)."""

    def found(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(hardware, "ROOT", tmp_path)
        return hardware.cpus.__wrapped__(), hardware.memory_bytes.__wrapped__()

    return found


V1 = "5:memory:/job/step\n4:cpu,cpuacct:/job/step\n1:name=systemd:/\n"
HOST = (len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, HOST),
        ({"proc/self/cgroup": "0::/\n"}, HOST),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/cpu.max": "max 100000\n",
            },
            HOST,
        ),
        (  # a container
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000000\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
            },
            (1, 1_000_000),
        ),
        (  # the group above has the limit
            {
                "proc/self/cgroup": "0::/user.slice/job\n",
                "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
                "sys/fs/cgroup/user.slice/memory.max": "2000000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "100000 100000\n",
            },
            (1, 2_000_000),
        ),
        (  # cgroup v1; a job of a cluster
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "3000000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            (1, 3_000_000),
        ),
        (  # v1 in a container, which does not see its group's own path
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            (HOST[0], 4_000_000),
        ),
    ],
)
def test_the_lowest_limit_counts(machine, files, expected):
    assert machine(files) == expected


def test_affinity_counts(machine):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine({})[0] == 1
    finally:
        os.sched_setaffinity(0, before)
