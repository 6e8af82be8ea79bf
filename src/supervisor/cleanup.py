"""Ending what an instance left behind: a supervisor by its lock, children by what the control segment says of them.

Standard library only. Everything is identified by process id and start ticks, so a stale number is never signalled.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from ..shared.errors import SegmentError, SupervisorError
from ..shared.memory import layout
from ..shared.memory.ownership import OWN, own_folder
from ..shared.memory.processes import start_ticks
from ..shared.memory.segments import foreign_segments, refuse_foreign, remove_instance
from ..shared.memory.users import Claimed, living
from .children import process_tree
from .display import status
from .lock import InstanceLock, holder

GRACE = 5.0
"""Seconds between asking a process to stop and killing it."""


RELEASE = 1.0
"""Seconds within which the flocks of processes that have just ended must be free."""


class NotSaved(SupervisorError):
    """What an instance learned could not be saved, so its shared memory was left in place."""

    def __init__(self, instance: str, why: str, remedy: str = "") -> None:
        super().__init__(
            f"instance {instance!r} is left in shared memory: {why}; {remedy + ', or ' if remedy else ''}"
            f"`ctl down --discard --instance {instance}` throws it away"
        )


class InUse(NotSaved):
    """Somebody still uses the instance; `held` names the segments that are held."""

    def __init__(self, instance: str, held: list[str], pids: list[int]) -> None:
        self.held = held
        who = f" (process {', '.join(map(str, pids))})" if pids else " in a process that cannot be seen from here"
        super().__init__(instance, f"somebody still uses {', '.join(held)}{who}", "stop that process and do this again")


class OtherLayout(NotSaved):
    """The instance was made by a program with another layout of shared memory, which cannot be saved here."""

    def __init__(self, instance: str, error: SegmentError) -> None:
        super().__init__(
            instance,
            str(error).partition(" (")[0],
            f"the program that started it can stop it, or `ctl clean --instance {instance}` removes it once nobody uses"
            " it",
        )


def stop_instance(instance: str, timeout: float = 60.0, discard: bool = False) -> list[str]:
    """Stop an instance, with or without a living supervisor, and remove its segments. What was done, in words.

    `timeout` is how long a supervisor may take; then it is killed and its children are stopped here. Raises
    InstanceBusy if the lock is held by somebody who does not end, ForeignFile if it is another user's instance, and
    NotSaved, with the segments still there, if experiences cannot be saved; with `discard` they are thrown away.
    """
    refuse_foreign(instance)
    _ask_to_discard(instance, discard)
    done = stop_supervisor(instance, timeout)
    with InstanceLock(instance, timeout=5.0):
        done += stop_children(instance)
        done += clean_up(instance, save=not discard, force=discard, patience=RELEASE)
    return done


def _ask_to_discard(instance: str, discard: bool) -> None:
    """Tell a living supervisor, which saves and removes what it leaves, whether to save it."""
    try:
        control = status.open_control(instance, writable=True)
    except (SegmentError, PermissionError):
        return
    if control is not None:
        control.set("command.discard", int(discard))
        control.close()


def clean_up(
    instance: str, save: bool = True, force: bool = False, other_layout: bool = False, patience: float = 0.0
) -> list[str]:
    """Save the experiences of an instance in its data folder and remove its segments. The caller holds its lock.

    Nothing is removed while somebody uses it (unless `force`), nor when what should be saved cannot be: NotSaved is
    raised then. What another layout version left cannot be saved, and is removed if `other_layout` says so. Nobody can
    begin to use the instance meanwhile: every flock is held until all is removed. `patience`: seconds to wait for them.
    """
    done = []
    with _claim(instance, 0.0 if force else patience) as claimed:
        if claimed.held and not force:
            raise InUse(instance, claimed.held, _owners(instance))
        if save:
            done += _save(instance, other_layout)
        removed = remove_instance(instance)
    if removed:
        done.append(f"removed {len(removed)} segments")
    done += [f"left {error}" for error in foreign_segments(instance)]
    return done


def _claim(instance: str, patience: float) -> Claimed:
    deadline = time.monotonic() + patience
    while True:
        claimed = Claimed(instance)
        if not claimed.held or time.monotonic() >= deadline:
            return claimed
        claimed.__exit__()
        time.sleep(0.02)


def _owners(instance: str) -> list[int]:
    try:
        control = status.open_control(instance)
    except SegmentError:
        return []
    if control is None:
        return []
    try:
        return living(control)
    finally:
        control.close()


def _save(instance: str, other_layout: bool) -> list[str]:
    """Save what there is to save; what was done, in words. Raises NotSaved."""
    try:
        control = status.open_control(instance, whose=OWN)
    except SegmentError as error:
        if other_layout:
            return [f"saved nothing: the control segment {error.args[0].partition(': ')[2].partition(';')[0]}"]
        raise OtherLayout(instance, error) from None
    if control is None:
        return []  # it was never complete, or is of before the machine's last start
    from ..shared.saved_state import save

    data_dir = None
    try:
        data_dir = control.schema.get("data_dir")
        if data_dir is None:
            return []
        own_folder(data_dir, make=False)
        folder = os.path.join(data_dir, "kept")
        save(control, Path(folder))
        return [f"saved its experiences in {folder}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error.strerror or error) if isinstance(error, OSError) else repr(error)
        raise NotSaved(
            instance,
            f"its experiences could not be saved in {data_dir} ({why})",
            "mend that and do this again, or `ctl up` goes on with it",
        ) from error
    finally:
        control.close()


def stop_supervisor(instance: str, timeout: float) -> list[str]:
    """Ask the holder of the instance's lock to end and wait; kill it after `timeout` seconds."""
    pid, ticks = holder(instance)
    descriptor = process_tree.open_process(pid, ticks)
    if descriptor is None:
        return []
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        # A stopped supervisor would never see the request.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(timeout * 1000):
            return [f"stopped by its supervisor, process {pid}"]
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll.poll(2000)
        return [f"killed its supervisor, process {pid}, which did not end within {timeout:g} s"]
    except ProcessLookupError:
        return []
    finally:
        os.close(descriptor)


def stop_children(instance: str) -> list[str]:
    """Stop the children that the control segment names, with their groups. The caller holds the instance's lock."""
    try:
        control = status.open_control(instance, whose=OWN)
    except SegmentError:
        return []  # of another layout: nobody can be found in it, and whoever lives holds a flock
    if control is None:
        return []
    try:
        alive = [identity for name in layout.PROCESSES if (identity := process_tree.child(control, name))[0]]
    finally:
        control.close()
    if not alive:
        return []
    everyone = sorted({member for pid, ticks in alive for member in process_tree.members(pid, ticks)})
    for identity in everyone:
        process_tree.send(identity, signal.SIGTERM)
        process_tree.send(identity, signal.SIGCONT)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(start_ticks(pid) == ticks for pid, ticks in everyone):
        time.sleep(0.02)
    process_tree.kill(everyone)
    while any(start_ticks(pid) == ticks for pid, ticks in everyone):
        time.sleep(0.02)
    return [f"stopped process {pid}, which had no supervisor" for pid, _ in alive]
