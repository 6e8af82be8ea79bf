"""Facts about processes that stay true: who a process id is, and whether it lives.

Standard library only. A process is identified by its id, its start time in clock ticks and the boot id: process ids
are used again, and times of day move.
"""

from __future__ import annotations

import os


def boot_id() -> str:
    """The kernel's random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_same_process(pid: int, ticks: int) -> bool:
    """True if process `pid` lives and is the one that started at `ticks`."""
    return pid > 0 and ticks > 0 and start_ticks(pid) == ticks


def own_identity() -> tuple[int, int]:
    """This process's id and start time in ticks."""
    pid = os.getpid()
    return pid, start_ticks(pid)
