"""
Reads the processor time and memory of a process, and describes this machine; Linux only.

Read around a measurement by `benchmarks.stream_load`, `benchmarks.handshakes`, `benchmarks.idle`,
and for the description of the machine by `benchmarks.rounds`.
"""

from __future__ import annotations

import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import Final

__all__ = [
    "SPARE_DESCRIPTORS",
    "cpu_source",
    "cpu_time",
    "describe_machine",
    "raise_descriptor_limit",
    "resident_memory",
    "two_cores",
]

_PACKAGES: Final = ("Twisted", "uvloop")
#: Descriptors that either side has open besides the connections of a benchmark.
SPARE_DESCRIPTORS: Final = 100


def cpu_source() -> str:
    """Return the source of `cpu_time`, for people."""
    if _has_schedstat():
        return "CPU time from schedstat (ns)"
    return (
        f"CPU time from stat ({os.sysconf('SC_CLK_TCK')} ticks/s, as this kernel has no schedstat)"
    )


def cpu_time(pid: int) -> int:
    """
    Return the processor time of a process so far, user and kernel, in nanoseconds.

    Running child processes are included, such as the workers of a server. The kernel counts a
    running task up to its last timer tick, so read it while the task sleeps.
    """
    return _own_cpu_time(pid) + sum(map(cpu_time, _children(pid)))


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _own_cpu_time(pid: int) -> int:
    if not _has_schedstat():
        # After the name in brackets, which may hold blanks: fields 3 and on; 14, 15 are the times.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    try:
        # Exact, where the figure in "status" may lag by some pages for each core.
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        name = "Rss:"
    except OSError:
        text = Path(f"/proc/{pid}/status").read_text()
        name = "VmRSS:"
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def two_cores() -> tuple[int, int] | None:
    """Return a core for the server and one for the client; None where there is a single core."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1], cores[0]) if len(cores) > 1 else None


def raise_descriptor_limit(count: int) -> None:
    """
    Let this process, and those that it starts, open ``count`` descriptors.

    :raises OSError: when the hard limit is below that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and count > hard:
        raise OSError(f"{count} descriptors are needed, the hard limit is {hard}")
    if soft != resource.RLIM_INFINITY and count > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def describe_machine() -> dict[str, str]:
    """Return names and values of what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: _version(package) for package in _PACKAGES},
    }


def _has_schedstat() -> bool:
    return Path("/proc/self/schedstat").exists()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
