"""Facts about processes: identity that a reused process id does not fake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tandem.shared.memory.processes import boot_id, is_same_process, own_identity, start_ticks


def test_own_identity_is_this_process() -> None:
    """Its id and start time are those the kernel knows."""
    pid, ticks = own_identity()
    assert pid == os.getpid()
    assert ticks == start_ticks(pid) > 0
    assert is_same_process(pid, ticks)


def test_another_start_time_is_another_process() -> None:
    """A reused id is not taken for the old process; 0 is nobody."""
    pid, ticks = own_identity()
    assert not is_same_process(pid, ticks + 1)
    assert not is_same_process(pid, 0)
    assert not is_same_process(0, ticks)


def test_a_zombie_is_not_alive(wait_until: Callable[..., Any]) -> None:
    """A dead child that nobody waited for has no start time."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert start_ticks(child.pid) > 0
    child.kill()
    wait_until(lambda: start_ticks(child.pid) == 0, "the child is dead")
    child.wait()
    assert start_ticks(child.pid) == 0
    assert child.stdin is not None
    child.stdin.close()


def test_the_boot_id_is_128_bits() -> None:
    """It is a UUID that does not change."""
    assert len(boot_id().replace("-", "")) == 32
    assert boot_id() == boot_id()
