"""The lock of an instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from tandem.shared.memory.processes import own_identity, start_ticks
from tandem.shared.memory.segments import segment_path
from tandem.supervisor.lock import InstanceBusy, InstanceLock, holder


def test_a_second_holder_is_refused_by_name(instance_name: str) -> None:
    """While one process holds the lock another is refused, and is told who holds it."""
    with InstanceLock(instance_name):
        assert holder(instance_name) == own_identity()
        with pytest.raises(InstanceBusy, match=str(os.getpid())):
            InstanceLock(instance_name)


def test_release_removes_the_file(instance_name: str) -> None:
    """A released lock leaves no file behind, and releasing twice is harmless."""
    lock = InstanceLock(instance_name)
    lock.release()
    lock.release()
    assert not os.path.exists(segment_path(instance_name, "lock"))
    assert holder(instance_name) == (0, 0)


def test_a_dead_holder_holds_nothing(instance_name: str, wait_until: Any) -> None:
    """The lock of a killed process is free, though its file is still there."""
    program = (
        "import sys, time; from tandem.supervisor.lock import InstanceLock;"
        "lock = InstanceLock(sys.argv[1]); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, instance_name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        assert holder(instance_name) == (process.pid, start_ticks(process.pid))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.path.exists(segment_path(instance_name, "lock"))
    assert holder(instance_name) == (0, 0)
    InstanceLock(instance_name).release()


def test_a_lock_on_a_removed_file_is_not_a_lock(instance_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened the file before it was removed starts over with the new file."""
    path = segment_path(instance_name, "lock")
    real_open = os.open
    removed = []

    def open_then_remove(name: Any, *arguments: Any, **keywords: Any) -> int:
        descriptor = real_open(name, *arguments, **keywords)
        if name == path and not removed:
            removed.append(name)
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_then_remove)
    lock = InstanceLock(instance_name)
    monkeypatch.undo()
    assert removed
    with pytest.raises(InstanceBusy):
        InstanceLock(instance_name)
    lock.release()


def test_a_forged_holder_is_nobody(instance_name: str) -> None:
    """A lock file that names a living process which does not hold it names nobody."""
    with open(segment_path(instance_name, "lock"), "w", encoding="utf-8") as file:
        file.write("{} {}\n".format(*own_identity()))
    assert holder(instance_name) == (0, 0)
