"""The processes that belong to a child: its session, its process group and its descendants.

Each is named by process id and start ticks and signalled through a pidfd that was opened before the ticks were
compared, so that a signal never reaches a stranger that was given a used number.
"""

from __future__ import annotations

import os
import signal

from ..shared.processes import start_ticks

Identity = tuple[int, int]
"""Process id and start time in clock ticks since boot."""


def members(leader: int, ticks: int) -> list[Identity]:
    """The living processes of the session, group or descent of `leader`, which started at `ticks`; itself included.

    Works after the leader's death too, except for descendants that left its session.
    """
    parents: dict[int, int] = {}
    started: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        pid = int(entry)
        parents[pid], group, session, started[pid] = int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19])
        if leader in (pid, group, session):
            found.add(pid)
    growing = True
    while growing:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        growing = bool(more)
    # Nobody in the family is older than its leader: an older process only shares a number with it.
    return [(pid, started[pid]) for pid in sorted(found) if started[pid] >= ticks]


def open_process(pid: int, ticks: int) -> int | None:
    """A pidfd of exactly this process, to be closed by the caller; None if it is gone."""
    if pid <= 0 or ticks <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return None
    if start_ticks(pid) != ticks:
        os.close(descriptor)
        return None
    return descriptor


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it is gone or not ours to signal."""
    descriptor = open_process(*identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def kill(identities: list[Identity]) -> None:
    """Kill each of these processes that still lives."""
    for identity in identities:
        send(identity, signal.SIGKILL)
