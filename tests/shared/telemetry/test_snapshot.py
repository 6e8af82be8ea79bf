"""What a reading says of an instance's trainer and server: who they are, whether they live, when they turned."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from math import nan
from typing import Any

import pytest
from tandem.shared.memory import layout
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import own_identity, start_ticks
from tandem.shared.telemetry.lane_reading import read_lanes
from tandem.shared.telemetry.metric_families import FAMILIES
from tandem.shared.telemetry.snapshot import Snapshot, read_server, read_trainer
from tandem.shared.telemetry.stats import stats_of
from tandem.supervisor.children.probes import ServerProbe
from tandem.supervisor.display import status
from tandem.supervisor.display.top_sample import Reader, Reading

RUNNING, BACKOFF = layout.STATES.index("running"), layout.STATES.index("backoff")
Server = tuple[int, int]
"""Process ids of the leader of a session and of a worker in it."""


@pytest.fixture
def control(instance_name: str) -> Iterator[Control]:
    """The complete control segment of an instance with three lanes."""
    made = Control.create(instance_name, {"lanes": 3, "capacity": 10, "pending_capacity": 10}, {})
    made.finish()
    yield made
    made.close()


@pytest.fixture
def start() -> Iterator[Callable[[], Server]]:
    """`start()` starts a server of two processes in a session of its own; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def make() -> Server:
        command = ["sh", "-c", "sleep 600 & echo $!; wait"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        return process.pid, int(process.stdout.readline())

    yield make
    for process in started:
        os.killpg(process.pid, 9)
        process.communicate(timeout=20)


def ago(seconds: float) -> int:
    """A moment of the past on the monotonic clock, in nanoseconds."""
    return time.monotonic_ns() - int(seconds * 1e9)


def own(control: Control, index: int, pid: int, turned_s: float, turns: int = 100, ready: bool = True) -> None:
    """Let process `pid` own a lane, with its last of `turns` turns `turned_s` seconds ago."""
    values = {"owner": pid, "owner_ticks": start_ticks(pid), "ready": pid if ready else 0, "claims": 1}
    for name, value in {**values, "progress": turns, "progress_ns": ago(turned_s)}.items():
        control.set(f"lane.{index}.{name}", value)


def supervise(control: Control, name: str, pid: int, ticks: int | None = None, state: int = RUNNING) -> None:
    """Let the supervisor keep process `pid` as `name`, which it started a minute ago by its own account."""
    ticks = start_ticks(pid) if ticks is None else ticks
    values = {"pid": pid, "start_ticks": ticks, "state": state, "started_ns": ago(60), "restarts": 2}
    for field, value in values.items():
        control.set(f"process.{name}.{field}", value)


def server(control: Control) -> Any:
    """The reading of the server."""
    return read_server(control, read_lanes(control))


def test_nobody_was_ever_there(control: Control) -> None:
    """Of a new instance everything is stopped, and nothing is known."""
    snapshot = Snapshot(control)
    for reading in (snapshot.trainer, snapshot.server, snapshot.supervisor):
        assert (reading.state, reading.pid, reading.uptime_s, reading.turned_s) == ("stopped", None, None, None)
        assert not reading.is_progressing(1e9)
    assert snapshot.lanes == snapshot.servers == []


@pytest.mark.parametrize(("its", "others"), [(50, 0), (0, 50)])
def test_another_server_says_nothing_about_the_supervised_one(
    control: Control, start: Callable[[], Server], its: float, others: float
) -> None:
    """A server that hangs looks so beside one that attached by itself and turns, and the other way round."""
    kept, other = start()[0], start()[0]
    own(control, 0, kept, turned_s=its)
    own(control, 1, other, turned_s=others)
    supervise(control, "inference", kept)
    reading = server(control)
    assert (reading.pid, reading.state) == (kept, "running")
    assert reading.progress_age_s == reading.turned_s == pytest.approx(its, abs=5)
    assert reading.is_progressing(10) == (its == 0)
    assert ServerProbe(control).progress_ns(kept) == control.get("lane.0.progress_ns")


def test_one_hung_worker_counts(control: Control, start: Callable[[], Server]) -> None:
    """Of the processes of one server the oldest last turn is shown, which is the one that the supervisor goes by."""
    leader, worker = start()
    own(control, 0, leader, turned_s=0)
    own(control, 2, worker, turned_s=30)
    supervise(control, "inference", leader)
    assert server(control).progress_age_s == pytest.approx(30, abs=5)
    assert ServerProbe(control).progress_ns(leader) == control.get("lane.2.progress_ns")


def test_a_server_that_just_started_or_turns_rarely_is_seen(control: Control, start: Callable[[], Server]) -> None:
    """Before any process of it is known to turn regularly the newest turn is shown; the supervisor holds it to none."""
    leader, worker = start()
    own(control, 0, leader, turned_s=40, turns=1)
    own(control, 1, worker, turned_s=20, turns=2)
    supervise(control, "inference", leader)
    assert server(control).progress_age_s == pytest.approx(20, abs=5)
    assert ServerProbe(control).progress_ns(leader) is None


def test_a_lane_counts_once_its_owner_serves_and_lives(control: Control, start: Callable[[], Server]) -> None:
    """Neither a claim without readiness nor a lane whose owner died makes a server ready or gives it an age."""
    leader, worker = start()
    own(control, 0, leader, turned_s=5, ready=False)
    own(control, 1, worker, turned_s=5)
    control.set("lane.1.owner_ticks", start_ticks(worker) + 1)
    supervise(control, "inference", leader)
    probe = ServerProbe(control)
    assert not probe.ready(leader)
    assert server(control).progress_age_s is None
    own(control, 0, leader, turned_s=5)
    assert probe.ready(leader)
    assert server(control).progress_age_s == pytest.approx(5, abs=5)


def test_each_worker_is_read_by_itself(control: Control, start: Callable[[], Server]) -> None:
    """The processes of `inference.workers` in their order, each with its own lane's turns; the first is the server."""
    pids = [start()[0] for _ in range(3)]
    for index, (pid, name) in enumerate(zip(pids, layout.SERVERS, strict=False)):
        own(control, index, pid, turned_s=10 * index)
        supervise(control, name, pid)
    control.set("process.inference-2.state", BACKOFF)
    control.set("process.inference-2.pid", 0)
    workers = Snapshot(control).workers
    assert [worker.name for worker in workers] == list(layout.SERVERS[:3])
    assert [worker.state for worker in workers] == ["running", "backoff", "running"]
    assert [worker.pid for worker in workers] == [pids[0], None, pids[2]]
    assert workers[2].progress_age_s == pytest.approx(20, abs=5)
    shown = status.status_of(control, Snapshot(control))
    assert list(status.servers(shown)) == list(layout.SERVERS[:3])
    assert shown["state"] == "degraded"


@pytest.mark.parametrize("state", [RUNNING, BACKOFF])
def test_a_dead_supervised_server_is_no_other(control: Control, start: Callable[[], Server], state: int) -> None:
    """Another server that turns, or another process of its number, does not stand in for it."""
    other = start()[0]
    own(control, 0, other, turned_s=0)
    supervise(control, "inference", other, ticks=start_ticks(other) + 1, state=state)
    reading = server(control)
    assert (reading.pid, reading.uptime_s, reading.progress_age_s, reading.turned_s) == (None, None, None, None)
    assert reading.state == ("stopped" if state == RUNNING else "backoff")
    assert (reading.is_supervised, reading.restarts) == (True, 2)


def test_a_server_that_attached_by_itself(control: Control, start: Callable[[], Server]) -> None:
    """Without a supervised one the first that lives is shown: its process, state, turns and uptime."""
    gone, here = 2**22 + 1, start()[0]
    own(control, 0, gone, turned_s=0)
    own(control, 1, here, turned_s=7, ready=False)
    reading = server(control)
    assert (reading.pid, reading.state, reading.is_supervised) == (here, "starting", False)
    assert reading.progress_age_s == reading.turned_s == pytest.approx(7, abs=5)
    assert reading.uptime_s == pytest.approx(0, abs=20)
    own(control, 1, here, turned_s=7)
    assert server(control).state == "running"
    assert [lane.index for lane in Snapshot(control).servers] == [1]


def test_when_all_servers_are_gone(control: Control) -> None:
    """Nobody runs, and the last turn of any of them is known."""
    own(control, 0, 2**22 + 1, turned_s=90)
    own(control, 1, 2**22 + 1, turned_s=30)
    reading = server(control)
    assert (reading.state, reading.pid, reading.progress_age_s) == ("stopped", None, None)
    assert reading.turned_s == pytest.approx(30, abs=5)


def test_a_supervised_trainer(control: Control) -> None:
    """It is as the supervisor says while its process lives; a death is seen before the supervisor says so."""
    pid, ticks = own_identity()
    supervise(control, "trainer", pid)
    control.set("trainer.progress_ns", ago(3))
    reading = read_trainer(control)
    assert (reading.state, reading.pid, reading.restarts) == ("running", pid, 2)
    assert reading.progress_age_s == pytest.approx(3, abs=2)
    control.set("process.trainer.start_ticks", ticks + 1)
    control.set("trainer.progress_ns", ago(0))
    reading = read_trainer(control)
    assert (reading.state, reading.pid, reading.uptime_s, reading.progress_age_s) == ("stopped", None, None, None)
    assert reading.turned_s == pytest.approx(0, abs=2)


def test_a_trainer_that_said_who_it_is(control: Control, start: Callable[[], Server]) -> None:
    """Without a supervisor a process id is enough, however long ago it turned; once it is dead nothing else counts."""
    pid = start()[0]
    control.set("trainer.ready", pid)
    control.set("trainer.progress_ns", ago(500))
    reading = read_trainer(control)
    assert (reading.state, reading.pid, reading.is_supervised) == ("running", pid, False)
    assert reading.progress_age_s == pytest.approx(500, abs=5)
    assert reading.uptime_s == pytest.approx(0, abs=20)
    control.set("trainer.ready", 2**22 + 1)
    control.set("trainer.progress_ns", ago(0))
    reading = read_trainer(control)
    assert (reading.state, reading.pid, reading.progress_age_s) == ("stopped", None, None)


def test_a_trainer_that_is_a_thread_of_the_server(control: Control) -> None:
    """It has no process id: it runs for as long as it turns, since it began to."""
    control.set("metrics.started_ns", ago(70))
    control.set("trainer.progress_ns", ago(1))
    reading = read_trainer(control)
    assert (reading.state, reading.pid, reading.is_supervised) == ("running", None, False)
    assert reading.progress_age_s == pytest.approx(1, abs=2)
    assert reading.uptime_s == pytest.approx(70, abs=2)
    control.set("trainer.progress_ns", ago(60))
    reading = read_trainer(control)
    assert (reading.state, reading.uptime_s, reading.progress_age_s) == ("stopped", None, None)
    assert reading.turned_s == pytest.approx(60, abs=2)


def test_every_uptime_counts_from_the_start_of_the_process(control: Control) -> None:
    """Of the trainer, the server, the owner of a lane and the supervisor alike, however each is known."""
    pid, ticks = own_identity()
    expected = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    control.set("supervisor.pid", pid)
    control.set("supervisor.start_ticks", ticks)
    own(control, 0, pid, turned_s=0)
    control.set("trainer.ready", pid)
    for _ in range(2):  # at first without a supervisor's word
        snapshot = Snapshot(control)
        readings = (snapshot.trainer, snapshot.server, snapshot.supervisor, snapshot.lanes[0].owner)
        assert [reading.uptime_s for reading in readings] == pytest.approx([expected] * 4, abs=2)
        for name in ("trainer", "inference"):
            supervise(control, name, pid)


def test_what_was_learned_is_unknown_before_the_trainers_first_step(control: Control) -> None:
    """A trainer that took over has no means yet, whatever the one before it left; statistics, metrics, top say so."""
    for name, value in {"total_steps": 500, "training_steps": 0, "average_loss": 0.5, "lag_max": 3.0}.items():
        control.set(f"metrics.{name}", value)

    def shown() -> list[Any]:
        snapshot = Snapshot(control)
        scraped = {family.name: dict(family.read(snapshot)) for family in FAMILIES if "training_l" in family.name}
        reading = Reading(status.stopped(control.instance))
        Reader(control.instance)._fill(reading, snapshot)
        of_stats = stats_of(snapshot, {"trainer": {"enabled": True}, "supervisor": {"hang_timeout": 10.0}})["training"]
        return [
            (of_stats["average_loss"], of_stats["policy_lag"]["max"]),
            (scraped["tandem_training_loss"][()], scraped["tandem_training_lag_versions"][("max",)]),
            (reading.metrics["average_loss"], reading.metrics["lag_max"]),
        ]

    assert shown() == [(None, None), pytest.approx((nan, nan), nan_ok=True), pytest.approx((nan, nan), nan_ok=True)]
    control.set("metrics.training_steps", 1)
    assert shown() == [(0.5, 3.0)] * 3
    control.set("metrics.average_loss", nan)
    assert shown()[0] == (None, 3.0)


def test_up_is_said_of_every_process_that_lives(control: Control) -> None:
    """Supervised or not, also of a trainer that is a thread; never of one that is dead."""
    pid, ticks = own_identity()
    control.set("trainer.progress_ns", ago(0))
    own(control, 0, pid, turned_s=0)
    snapshot = Snapshot(control)
    assert (snapshot.trainer.is_up, snapshot.server.is_up, snapshot.supervisor.is_up) == (True, True, False)
    supervise(control, "trainer", pid, ticks=ticks + 1)
    control.set("lane.0.owner_ticks", ticks + 1)
    snapshot = Snapshot(control)
    assert (snapshot.trainer.is_up, snapshot.server.is_up) == (False, False)
