"""Facts about processes that stay true: who a process id is, and whether it lives.

Standard library only. A process is identified by its id, its start time in clock ticks and the boot id: process ids
are used again, and times of day move.
"""

from __future__ import annotations

import os
import sys
import time

_START = (
    "import sys; sys.path[:] = sys.path[1:] + sys.argv[1:2]; del sys.argv[1];"
    " import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
)


def module_command(
    name: str, *words: str, python: str = sys.executable, is_old: bool | None = None, beside: str | None = None
) -> list[str]:
    """The command line of `python -m name words`, without the working folder on the module path.

    With `-m` alone a random.py in that folder would be imported in place of the standard library's. `is_old`: the
    interpreter is Python 3.10, which has no `-P`; by default the running one is asked. `beside` is a folder that is
    searched last.
    """
    is_old = sys.version_info < (3, 11) if is_old is None else is_old
    if is_old or beside is not None:
        # What is appended must be something: an empty text would be the working folder.
        return [python, "-c", _START, beside or os.devnull, name, *words]
    return [python, "-P", "-m", name, *words]


def leave_working_folder() -> None:
    """Take the working folder off the module path, in a process that was started with `python -m`."""
    words = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    by_name = any(option == "-m" and name.startswith("tandem.") for option, name in words)
    if by_name and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]


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


def uptime_of(ticks: int) -> float:
    """Seconds since a process started, from its start time in clock ticks since boot.

    Counted on the clock that start times are taken from, which goes on while the machine sleeps.
    """
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def is_same_process(pid: int, ticks: int) -> bool:
    """True if process `pid` lives and is the one that started at `ticks`."""
    return pid > 0 and ticks > 0 and start_ticks(pid) == ticks


def own_identity() -> tuple[int, int]:
    """This process's id and start time in ticks."""
    pid = os.getpid()
    return pid, start_ticks(pid)


def own_uptime() -> float:
    """Seconds since this process started, as every surface counts."""
    return uptime_of(own_identity()[1])
