"""The machine: which core runs what, and what the processes cost, read from /proc."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_cores = sorted(os.sched_getaffinity(0))

NODE_CORE = _cores[0]
LOAD_CORE = _cores[1] if len(_cores) > 1 else _cores[0]


def pinned(command: list[str | Path], core: int) -> list[str | Path]:
    """The same command, on one core."""
    return ["taskset", "-c", str(core), *command]


def stay_on_load_core() -> None:
    """This process, and whatever it starts from now on unless pinned elsewhere."""
    os.sched_setaffinity(0, {LOAD_CORE})


def raise_open_files(wanted: int) -> int:
    """Allow this process and its children that many open files, as far as may be; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    for new_hard in (max(hard, wanted), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, new_hard), new_hard))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all in its group, so far."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if int(entry.name) == pid or int(fields[2]) == pid:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def thread_seconds(pid: int) -> float:
    """The same of a process' first thread alone."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def busy_seconds(core: int) -> float:
    """How long a core was busy, with whatever, since the machine started."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    return 0.0


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def description() -> str:
    """The processors, the memory and the versions, in a line."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES / 2**30
    return (
        f"{len(_cores)} cores of {model or platform.machine()}, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )
