"""Ending what an instance left behind: a supervisor by its lock, children by what the control segment says of them.

Standard library only. Everything is identified by process id and start ticks, so a stale number is never signalled.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from ..shared.ownership import OWN, own_folder
from ..shared.processes import start_ticks
from ..shared.segments import foreign_segments, refuse_foreign, remove_instance
from . import family, view
from .lock import InstanceLock, holder

GRACE = 5.0
"""Seconds between asking an orphan to stop and killing it."""


def stop_instance(instance: str, timeout: float = 60.0) -> list[str]:
    """Stop an instance, with or without a living supervisor, and remove its segments. What was done, in words.

    `timeout` is how long a supervisor may take; then it is killed and its children are stopped here.
    Raises InstanceBusy if the lock is held by somebody who does not end, ForeignFile if it is another user's instance.
    """
    refuse_foreign(instance)
    done = stop_supervisor(instance, timeout)
    with InstanceLock(instance, timeout=5.0):
        done += stop_orphans(instance)
        done += put_away(instance)
    return done


def put_away(instance: str, keep: bool = True, spare: bool = False) -> list[str]:
    """Keep the experiences of an instance in its data folder and remove its segments. The caller holds its lock.

    They are not kept while somebody still writes, nor from an instance that was never complete. With `spare` nothing is
    removed while somebody uses it. Nobody can begin to use it meanwhile: every flock is held until all is removed.
    """
    done = []
    with view.Claimed(instance) as claimed:
        if claimed.held and spare:
            return [f"lives (somebody uses {', '.join(claimed.held)})"]
        control = view.open_control(instance, whose=OWN) if keep and not claimed.held else None
        if control is not None:
            from ..shared.keep import keep as keep_experiences

            try:
                folder = os.path.join(control.schema["data_dir"], "kept")
                own_folder(control.schema["data_dir"], make=False)
                keep_experiences(control, Path(folder))
                done.append(f"kept its experiences in {folder}")
            except (OSError, ValueError, KeyError) as error:
                done.append(f"its experiences could not be kept: {error}")
            finally:
                control.close()
        removed = remove_instance(instance)
    if removed:
        done.append(f"removed {len(removed)} segments")
    done += [f"left {error}" for error in foreign_segments(instance)]
    return done


def stop_supervisor(instance: str, timeout: float) -> list[str]:
    """Ask the holder of the instance's lock to end and wait; kill it after `timeout` seconds."""
    pid, ticks = holder(instance)
    descriptor = family.open_process(pid, ticks)
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


def stop_orphans(instance: str) -> list[str]:
    """Stop the children that the control segment names, with their groups. The caller holds the instance's lock."""
    control = view.open_control(instance, whose=OWN)
    if control is None:
        return []
    try:
        alive = [identity for name in ("trainer", "inference") if (identity := family.child(control, name))[0]]
    finally:
        control.close()
    if not alive:
        return []
    everyone = sorted({member for pid, ticks in alive for member in family.members(pid, ticks)})
    for identity in everyone:
        family.send(identity, signal.SIGTERM)
        family.send(identity, signal.SIGCONT)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(start_ticks(pid) == ticks for pid, ticks in everyone):
        time.sleep(0.02)
    family.kill(everyone)
    while any(start_ticks(pid) == ticks for pid, ticks in everyone):
        time.sleep(0.02)
    return [f"stopped process {pid}, which had no supervisor" for pid, _ in alive]
