"""What this process runs on: memory, for refusing in time what would be killed; cores, threads, version."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CGROUP = Path("/sys/fs/cgroup")


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
            peaks = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    except OSError:
        peaks = []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (int(peaks[0]) if peaks else peak) * 1024


def readable(n_bytes: float) -> str:
    """Bytes as a person reads them.

    >>> readable(3.2e9)
    '3.2 GB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def usable_cores() -> int:
    """Cores this process may use: the scheduler's mask, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal():
        cores = min(cores, max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return cores


def total_bytes() -> int:
    """Bytes of memory this process may use: the machine's, or a container's limit where it is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(_CGROUP / "memory.max").strip()
    return min(memory, int(limit)) if limit.isdecimal() else memory


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def threads_each(jobs: int) -> int:
    """Threads of each of `jobs` processes: its share of the cores, fewer if OMP_NUM_THREADS says so."""
    share = max(1, usable_cores() // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(given)) if given.isdecimal() and int(given) else share


def own_version() -> str:
    """The version of greysheep, as installed."""
    from importlib.metadata import version

    return version("greysheep")
