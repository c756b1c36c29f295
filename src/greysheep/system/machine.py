"""How much memory there is, for refusing in time what would be killed."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def available_bytes() -> int:
    """Memory free for new work: the kernel's estimate, or that of a control group if it is smaller."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    info = Path("/proc/meminfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def peak_memory_bytes() -> int:
    """Most memory this process ever had.

    Not `ru_maxrss` where there is another way: on Linux a new process starts with the peak of the one that
    started it, so that reading a large log would count for every model.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    except OSError:
        found = []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (int(found[0]) if found else peak) * 1024


def readable(n_bytes: float) -> str:
    """Bytes as a person reads them.

    >>> readable(3.2e9)
    '3.2 GB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
