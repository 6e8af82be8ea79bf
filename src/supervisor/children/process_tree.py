"""The processes that belong to a child: its session, its process group and its descendants.

Each is named by process id and start ticks and signalled through a pidfd that was opened before the ticks were
compared, so that a signal never reaches a stranger that was given a used number.
"""

from __future__ import annotations

import os
import select
import signal
import time

from ...shared.memory.processes import start_ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...shared.memory.control import Control

Identity = tuple[int, int]
"""Process id and start time in clock ticks since boot."""


def child(control: Control, name: str) -> Identity:
    """The living process that an own control segment names as `name`; (0, 0) if there is none.

    Whoever may write to the segment could write any number there: it must be this user's process, or one that was
    started for the instance, as its environment says; where the group may write, it must be the latter.
    """
    pid, ticks = control.get(f"process.{name}.pid"), control.get(f"process.{name}.start_ticks")
    try:
        is_own = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        if control.is_shared or not is_own:
            with open(f"/proc/{pid}/environ", "rb") as file:
                is_own = f"TANDEM_INSTANCE={control.instance}".encode() in file.read().split(b"\0")
    except OSError:
        return 0, 0
    return (pid, ticks) if is_own and ticks > 0 and start_ticks(pid) == ticks else (0, 0)


def members(leader: int, ticks: int) -> list[Identity]:
    """The living processes of the session, group or descent of `leader`, which started at `ticks`; itself included.

    Works after the leader's death too, except for descendants that left its session. Never contains this process or
    one that it descends from; empty without a leader, since number 0 stands for processes of outside a container.
    """
    if leader <= 1 or ticks <= 0:
        return []
    parents: dict[int, int] = {}
    started: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # gone, or hidden from this user
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
    ours = os.getpid()
    while ours > 0:
        found.discard(ours)
        ours = parents.get(ours, 0)
    # Nobody in the tree is older than its leader: an older process only shares a number with it.
    return [(pid, started[pid]) for pid in sorted(found) if started[pid] >= ticks]


def own_memory(identities: list[Identity]) -> int:
    """Bytes of memory that these processes do not share with others, summed."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid, _ in identities:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                resident, shared = file.read().split()[1:3]
        except OSError:
            continue
        total += (int(resident) - int(shared)) * page
    return total


def open_process(pid: int, ticks: int) -> int | None:
    """A pidfd of exactly this process, to be closed by the caller; None if it is gone."""
    if pid <= 0 or ticks <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if start_ticks(pid) != ticks:
        os.close(descriptor)
        return None
    return descriptor


def send(identity: Identity, number: int) -> bool:
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


def kill(identities: list[Identity], timeout: float = 1.0) -> None:
    """Kill each of these processes that still lives, and wait up to `timeout` seconds until they are gone."""
    descriptors = [opened for identity in identities if (opened := open_process(*identity)) is not None]
    poll = select.poll()
    waiting = len(descriptors)
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            poll.unregister(descriptor)
            waiting -= 1
    deadline = time.monotonic() + timeout
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            waiting -= 1
    for descriptor in descriptors:
        os.close(descriptor)
