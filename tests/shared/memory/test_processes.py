"""Facts about processes: identity that a reused process id does not fake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.memory.processes import boot_id, is_same_process, own_identity, own_uptime, start_ticks, uptime_of


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


def test_an_uptime_counts_from_the_start() -> None:
    """As the kernel counts the time since boot, and never below 0."""
    ticks = own_identity()[1]
    since_boot = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    assert uptime_of(ticks) == pytest.approx(since_boot - ticks / os.sysconf("SC_CLK_TCK"), abs=0.1)
    assert own_uptime() == pytest.approx(uptime_of(ticks), abs=0.1)
    before = time.monotonic()
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(child.pid)
    assert 0 <= uptime_of(ticks) <= time.monotonic() - before + 0.02
    child.communicate(b"\n", timeout=20)
    assert uptime_of(ticks + 10**9) == 0.0


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
