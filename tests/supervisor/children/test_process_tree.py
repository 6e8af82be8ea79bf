"""Who belongs to a child, and who must never be signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from tandem.shared.memory.processes import start_ticks
from tandem.supervisor.children import process_tree


def test_number_zero_has_no_family() -> None:
    """Without a leader there is no family: 0 is the session of processes from outside a container."""
    assert process_tree.members(0, 0) == []
    assert process_tree.members(1, start_ticks(1)) == []
    assert process_tree.members(os.getpid(), 0) == []


def test_a_family_never_contains_its_own_observer() -> None:
    """Neither this process nor one that it descends from is ever a member."""
    session = os.getsid(0)
    found = {pid for pid, _ in process_tree.members(session, 1)} if session > 1 else set()
    assert not found & {os.getpid(), os.getppid()}


def test_grandchildren_in_other_sessions_are_members() -> None:
    """Descent counts as well as session and group."""
    program = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen(['sleep', '600'], start_new_session=True); print(p.pid, flush=True); time.sleep(600)"
    )
    leader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    with leader.stdout:
        grandchild = int(leader.stdout.readline())
    members = process_tree.members(leader.pid, start_ticks(leader.pid))
    assert {pid for pid, _ in members} == {leader.pid, grandchild}
    process_tree.kill(members)
    assert leader.wait() == -signal.SIGKILL


def test_a_stale_identity_is_never_signalled(wait_until: Any) -> None:
    """A process with the right number and other start ticks gets no signal."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        ticks = start_ticks(stranger.pid)
        assert not process_tree.send((stranger.pid, ticks + 1), signal.SIGKILL)
        assert not process_tree.send((0, 0), signal.SIGCONT)
        assert stranger.poll() is None
        assert process_tree.send((stranger.pid, ticks), signal.SIGKILL)
        assert stranger.wait() == -signal.SIGKILL
        assert not process_tree.send((stranger.pid, ticks), signal.SIGKILL)
    finally:
        stranger.kill()
        stranger.wait()
