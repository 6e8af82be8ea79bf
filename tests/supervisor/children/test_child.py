"""One supervised process: ready, dead, stuck, stopped, given up, adopted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import start_ticks
from tandem.supervisor.children import process_tree
from tandem.supervisor.children.child import Child

Make = Callable[..., Child]
Turn = Callable[..., None]


def test_a_child_runs_once_it_says_that_it_is_ready(make_child: Make, turn_until: Turn, control: Control) -> None:
    """A child is starting until shared memory says that this process is ready."""
    child = make_child("ready(); work()")
    child.start(time.monotonic())
    assert child.state == "starting"
    turn_until(child, "running")
    assert control.get("trainer.ready") == child.pid
    assert os.getsid(child.pid) == child.pid


def test_a_killed_child_is_started_again(make_child: Make, turn_until: Turn) -> None:
    """A child killed from outside is replaced at once by another process, and the restart is counted."""
    child = make_child("ready(); work()")
    child.start(time.monotonic())
    turn_until(child, "running")
    first = child.pid
    os.kill(first, signal.SIGKILL)
    turn_until(child, "backoff")
    assert "killed by SIGKILL" in child.reason
    turn_until(child, "running")
    assert child.pid != first
    assert child.restarts == 1


def test_a_death_wakes_whoever_polls_the_pidfd(make_child: Make, turn_until: Turn) -> None:
    """The pidfd becomes readable when the child dies, without waiting for a turn."""
    import select

    child = make_child("ready(); work()")
    child.start(time.monotonic())
    turn_until(child, "running")
    os.kill(child.pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    assert poll.poll(5000)


def test_a_crash_loop_ends_fatal_with_the_last_words(make_child: Make, turn_until: Turn) -> None:
    """A child that exits at once is given up after max_restarts restarts; the reason holds the end of its log."""
    child = make_child("sys.exit('the disk is on fire')", max_restarts=2)
    child.start(time.monotonic())
    turn_until(child, "fatal")
    assert child.restarts == 2
    assert "ended with status 1" in child.reason
    assert "the disk is on fire" in child.reason


def test_pauses_between_restarts_double_up_to_the_limit(make_child: Make, turn_until: Turn) -> None:
    """The first restart is at once, the pauses after it double, and none is longer than backoff_limit."""
    child = make_child("sys.exit(1)", max_restarts=4, backoff_first=0.05, backoff_limit=0.15)
    child.start(time.monotonic())
    pauses = []
    while child.state != "fatal":
        turn_until(child, "backoff")
        now = time.monotonic()
        pauses.append(max(0.0, child._next_start - now))
        child.turn(child._next_start)
        if child.restarts == 4:
            turn_until(child, "fatal")
    assert pauses == pytest.approx([0.0, 0.05, 0.1, 0.15], abs=0.04)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("ready(); beat(); time.sleep(600)", id="stuck main loop"),
        pytest.param(
            """
            import threading
            ready()
            threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(10**6)], daemon=True).start()
            lock = threading.Lock(); lock.acquire(); lock.acquire()
            """,
            id="deadlock beside a living thread",
        ),
        pytest.param("ready(); os.kill(os.getpid(), signal.SIGSTOP); work()", id="stopped process"),
    ],
)
def test_a_child_without_progress_is_replaced(make_child: Make, turn_until: Turn, fault: str) -> None:
    """A process that lives but makes no progress for hang_timeout is killed and started again."""
    child = make_child(fault, hang_timeout=0.3)
    child.start(time.monotonic())
    turn_until(child, "running")
    first, ticks = child.pid, child.ticks
    turn_until(child, "backoff")
    assert "no progress" in child.reason
    assert start_ticks(first) != ticks


def test_a_child_that_never_gets_ready_is_replaced(make_child: Make, turn_until: Turn) -> None:
    """The limit for starting is its own: a process that is not ready within start_timeout is killed."""
    child = make_child("work()", start_timeout=0.5)
    child.start(time.monotonic())
    turn_until(child, "backoff")
    assert "not ready within 0.5 s" in child.reason


def test_an_excused_child_gets_a_new_timeout(make_child: Make, turn_until: Turn) -> None:
    """After the supervisor itself stood still, old progress is no proof of a hang."""
    child = make_child("ready(); time.sleep(600)", hang_timeout=5.0)
    child.start(time.monotonic())
    turn_until(child, "running")
    later = time.monotonic() + 6.0
    child.measure_anew(later)
    child.turn(later)
    assert child.state == "running"
    child.turn(later + 5.5)
    assert child.state == "backoff"


@pytest.mark.parametrize(
    "stubborn",
    [
        pytest.param("signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); work()", id="ignores TERM"),
        pytest.param("ready(); os.kill(os.getpid(), signal.SIGSTOP); work()", id="is stopped"),
        pytest.param(
            """
            subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            ready(); work()
            """,
            id="has grandchildren",
        ),
    ],
)
def test_stop_always_ends_and_leaves_nobody(make_child: Make, turn_until: Turn, stubborn: str) -> None:
    """Stopping ends within the grace time and leaves no process of the child's family."""
    child = make_child(stubborn)
    child.start(time.monotonic())
    turn_until(child, "running")
    members = process_tree.members(child.pid, child.ticks)
    child.stop(time.monotonic())
    turn_until(child, "stopped", timeout=child.settings.stop_grace + 5.0)
    left = [pid for pid, ticks in members if start_ticks(pid) == ticks]
    assert not left


def test_a_polite_child_is_not_killed(make_child: Make, turn_until: Turn, tmp_path: Path) -> None:
    """A child that ends when asked to has all of its grace time to do so."""
    child = make_child(
        """
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        ready()
        while not stop:
            beat(); time.sleep(0.01)
        print("said goodbye", flush=True)
        """,
        stop_grace=20.0,
    )
    child.start(time.monotonic())
    turn_until(child, "running")
    child.stop(time.monotonic())
    turn_until(child, "stopped")
    assert child.output.tail(1) == ["said goodbye"]


def test_the_rest_of_a_dead_childs_group_is_killed(make_child: Make, turn_until: Turn, wait_until: Any) -> None:
    """When the leader dies its workers go too: they would hold its port and its lane."""
    child = make_child(
        """
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
        ready(); work()
        """
    )
    child.start(time.monotonic())
    turn_until(child, "running")
    worker = int(child.output.tail(1)[0])
    ticks = start_ticks(worker)
    assert ticks
    os.kill(child.pid, signal.SIGKILL)
    turn_until(child, "backoff")
    wait_until(lambda: start_ticks(worker) != ticks, "the worker is gone")


def test_a_restart_by_an_operator_leaves_fatal(make_child: Make, turn_until: Turn, tmp_path: Path) -> None:
    """An operator's restart brings a child back that was given up."""
    mended = tmp_path / "mended"
    child = make_child(f"os.path.exists({str(mended)!r}) or sys.exit(1); ready(); work()", max_restarts=1)
    child.start(time.monotonic())
    turn_until(child, "fatal")
    mended.touch()
    child.restart(time.monotonic())
    turn_until(child, "running")


def test_a_restart_by_an_operator_replaces_a_running_child(make_child: Make, turn_until: Turn) -> None:
    """An operator's restart stops the process and starts another."""
    child = make_child("ready(); work()")
    child.start(time.monotonic())
    turn_until(child, "running")
    first = child.pid
    child.restart(time.monotonic())
    turn_until(child, "starting")
    turn_until(child, "running")
    assert child.pid != first
    assert child.restarts == 1


def test_a_living_child_is_adopted(make_child: Make, turn_until: Turn) -> None:
    """A second supervisor takes a living process over, watches it and starts it again when it dies."""
    first = make_child("ready(); work()")
    first.start(time.monotonic())
    turn_until(first, "running")
    second = make_child("ready(); work()")
    assert second.adopt(first.pid, first.ticks, first.started_ns, 3)
    turn_until(second, "running")
    assert second.pid == first.pid
    os.kill(first.pid, signal.SIGKILL)
    first._reap()
    turn_until(second, "backoff")
    turn_until(second, "running")
    assert second.restarts == 4


def test_a_stranger_under_a_used_number_is_not_adopted(make_child: Make) -> None:
    """A process with the right number and another start time is a stranger: it is not adopted."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        child = make_child("work()")
        assert not child.adopt(stranger.pid, start_ticks(stranger.pid) - 1, 0, 0)
        assert not child.adopt(0, 0, 0, 0)
        assert child.state == "stopped"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_is_not_there_is_a_death(make_child: Make, turn_until: Turn) -> None:
    """A command that cannot be started counts as a death and says why."""
    child = make_child("work()", max_restarts=1)
    child.command = ["/nowhere/at/all"]
    child.start(time.monotonic())
    turn_until(child, "fatal")
    assert "cannot be started" in child.reason


def test_a_child_that_takes_too_much_memory_is_replaced(make_child: Make, turn_until: Turn) -> None:
    """A process with more memory of its own than memory_limit (megabytes) is killed and started again."""
    child = make_child("hoard = bytearray(200_000_000); hoard[::4096] = b'x' * len(hoard[::4096]); ready(); work()",
                       memory_limit=150)  # fmt: skip
    child.start(time.monotonic())
    turn_until(child, "running")
    turn_until(child, "backoff")
    assert "MB of memory" in child.reason


def test_a_child_whose_log_cannot_be_written_runs_without_one(
    make_child: Make, turn_until: Turn, tmp_path: Path
) -> None:
    """A data folder that became a file costs the log: the process starts, and is started again after a death."""
    child = make_child("ready(); work()")
    (tmp_path / "folder").write_text("a file")
    child.output.path = tmp_path / "folder" / "child.log"
    child.start(time.monotonic())
    turn_until(child, "running")
    assert "cannot be opened" in child.output.fault
    os.kill(child.pid, signal.SIGKILL)
    turn_until(child, "backoff")
    turn_until(child, "running")
