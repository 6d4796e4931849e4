"""Processor cores and memory that a process may use, within its affinity mask and its container's limits."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores that this process may keep busy, by its affinity mask and its container's quota, not the host's total.

    Args:
        cgroups: where Linux mounts the control groups, version 1 or 2.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota, period = _numbers(cgroups / "cpu.max", 2)
    if quota is None:
        (quota,), (period,) = _numbers(cgroups / "cpu/cpu.cfs_quota_us"), _numbers(cgroups / "cpu/cpu.cfs_period_us")
    if quota is not None and period and quota > 0:
        cores = min(cores, max(1, int(quota // period)))
    return cores


def free_memory(cgroups: Path = _CGROUPS) -> int | None:
    """Bytes of memory that this process may still allocate; None if the system does not report it."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        (most,), (now,) = _numbers(cgroups / limit), _numbers(cgroups / used)
        if most is not None and now is not None:
            found.append(int(most - now))
    return min(found, default=None)


def _numbers(path: Path, count: int = 1) -> tuple[float | None, ...]:
    """The first `count` numbers in a file; None for a missing one or `max`."""
    try:
        parts = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        parts = []
    return tuple(float(part) if part.lstrip("-").isdigit() else None for part in [*parts, *[""] * count][:count])
