"""`inference.workers`: several processes of the bundled server on one port, seen from outside."""

from __future__ import annotations

import http.client
import json
import os
import signal
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proof import size
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance
from tandem.shared.memory.processes import start_ticks
from tandem.shared.telemetry.snapshot import Snapshot
from tandem.supervisor.children import process_tree
from tandem.supervisor.display import status as display
from traffic import Client, get

from tests.processes.conftest import Ctl

Wait = Callable[..., Any]

NAMES = ("inference", "inference-2")
KILLS = size(3, 10)


def up(ctl: Ctl, application: str, **supervisor: Any) -> str:
    """Two workers of the toy; where they answer."""
    started = ctl.up(
        application=application,
        trainer={"buffer_capacity": 20_000},
        inference={"workers": 2, "pending_timeout": 3600.0},
        supervisor={"max_restarts": 50, **supervisor},
    )
    assert started.returncode == 0, started.stderr
    assert "trainer, inference and inference-2 ready" in started.stdout
    return str(ctl.status["url"])


def worker(ctl: Ctl, name: str) -> dict[str, Any]:
    return display.servers(ctl.status)[name]


def kill(ctl: Ctl, name: str) -> None:
    pid = worker(ctl, name)["pid"]
    assert process_tree.send((pid, start_ticks(pid)), signal.SIGKILL)


def by_worker(url: str, path: str, wait_until: Wait) -> dict[int, Any]:
    """What each of the two workers answers to the same request: process id -> body."""
    found: dict[int, Any] = {}

    def both() -> bool:
        # What comes over one connection comes from one process, which says who it is.
        connection = http.client.HTTPConnection(url[7:], timeout=30)
        try:
            bodies = []
            for asked in ("/system/status", path):
                connection.request("GET", asked)
                bodies.append(json.loads(connection.getresponse().read()))
            found[bodies[0]["engine"]["lane"]["owner"]] = bodies[1]
        finally:
            connection.close()
        return len(found) == 2

    wait_until(both, "both workers answer", 60)
    return found


def facts(picture: dict[str, Any]) -> dict[str, Any]:
    """What a dashboard shows of the whole instance, without what changes with the time."""
    stats, processes = picture["stats"], picture["processes"]
    known = {name: [process[key] for key in ("state", "pid", "restarts")] for name, process in processes.items()}
    counts = picture["latency"]["counts"]
    return {**stats["buffer"], **known, "counts": counts, "reasons": [picture["troubles"], picture["notices"]]}


@pytest.fixture
def traffic(ctl: Ctl) -> Iterator[Callable[[str], list[Client]]]:
    """`traffic(url)` starts two clients; they are stopped after the test at the latest."""
    clients: list[Client] = []

    def start(url: str) -> list[Client]:
        clients.extend(Client(f"client{number}", url) for number in range(2))
        for client in clients:
            client.start()
        return clients

    yield start
    for client in clients:
        client.stop()


def test_kills_of_alternating_workers_lose_no_acknowledged_reward(
    ctl: Ctl, toy_application: str, wait_until: Wait, traffic: Callable[[str], list[Client]]
) -> None:
    """Clients see at most a failed request on the worker that was killed; each acknowledged reward is in the ring once,
    and no lane stays lost."""
    url = up(ctl, toy_application, backoff_limit=0.1)
    clients = traffic(url)
    wait_until(lambda: all(client.tally.acknowledged for client in clients), "traffic")
    for number in range(KILLS):
        name = NAMES[number % 2]
        restarts = worker(ctl, name)["restarts"]
        before = [client.tally.answered for client in clients]
        kill(ctl, name)

        def is_back(name: str = name, restarts: int = restarts) -> bool:
            now = worker(ctl, name)
            return bool(now["state"] == "running" and now["restarts"] > restarts)

        wait_until(is_back, f"{name} is back", 60)
        after = [client.tally.answered for client in clients]
        assert all(new > old for new, old in zip(after, before, strict=True)), "nobody answered meanwhile"
    tallies = [client.stop() for client in clients]
    assert [tally.wrong for tally in tallies] == [[], []]
    faults = [fault for tally in tallies for fault in tally.faults]
    # A client has one request at a time: a kill costs each at most the one that the victim had accepted.
    assert len(faults) <= len(clients) * KILLS, faults
    acknowledged = [key for tally in tallies for key in tally.acknowledged]
    unsure = {key for tally in tallies for key in tally.unsure}

    instance = Instance(ctl.instance)
    try:
        reader = ReplayReader(instance.control, instance.records)
        counted: Counter[str] = Counter()

        def are_all_there() -> bool:
            rows = reader.recent(100_000)
            counted.clear()
            counted.update(row["key"].decode() for row in rows if row["actual_reward"] == 1.0)
            return not set(acknowledged) - set(counted)

        wait_until(are_all_there, "every acknowledged reward is in a ring", 30)
        assert set(counted.values()) == {1}
        assert set(counted) <= set(acknowledged) | unsure
        lanes = Snapshot(instance.control).lanes
        assert sum(lane.values["reward_count"] for lane in lanes) == len(counted)
        assert sorted(lane.owner.pid or 0 for lane in lanes) == sorted(worker(ctl, name)["pid"] for name in NAMES)
    finally:
        instance.control.close()
    assert ctl.status["state"] == "running"


def test_whoever_answers_says_the_same_and_one_at_a_time_is_replaced(
    ctl: Ctl, toy_application: str, wait_until: Wait
) -> None:
    """Both workers give the same picture of the instance; a restart leaves one of them answering; the next supervisor
    adopts both and replaces what dies later; `down` ends all."""
    url = up(ctl, toy_application)
    shown = ctl.status
    assert shown["workers"]["inference"] == {**shown["inference"], **shown["workers"]["inference"]}
    pids = {name: worker(ctl, name)["pid"] for name in NAMES}
    assert len(set(pids.values())) == 2
    assert ctl("pause").returncode == 0
    pictures = by_worker(url, "/api/training/live", wait_until)
    assert set(pictures) == set(pids.values())
    for picture in pictures.values():
        servers = {process["pid"] for name, process in picture["processes"].items() if name != "trainer"}
        assert servers == set(pids.values())
        assert picture["stats"]["training"]["paused"]
        assert picture["troubles"] == []
    lines = ctl.script("status").stdout
    assert all(f"process {pid}" in lines for pid in pids.values())
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert all(f'tandem_process_up{{process="{name}"}} 1.0' in metrics for name in NAMES)

    client = Client("restarting", url)
    client.start()
    try:
        wait_until(lambda: client.tally.acknowledged, "traffic")
        before = client.tally.answered
        replaced = ctl("restart", "inference")
        assert replaced.returncode == 0, replaced.stderr
        assert client.tally.answered > before
    finally:
        tally = client.stop()
    shown_now = by_worker(url, "/api/nn-dashboard", wait_until)
    assert all(len(body["nn_decisions"]["recent_decisions"]) == 10 for body in shown_now.values())
    request = urllib.request.Request(f"{url}/api/nn-dashboard/reset", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    shown_now = by_worker(url, "/api/nn-dashboard", wait_until)
    assert all(body["nn_decisions"]["recent_decisions"] == [] for body in shown_now.values()), "both forget them"
    assert tally.wrong == []
    assert len(tally.faults) <= 2, tally.faults

    def agree() -> bool:
        first, second = (facts(picture) for picture in by_worker(url, "/api/training/live", wait_until).values())
        return first == second and first["decided"] >= tally.decided > 0

    wait_until(agree, "both workers show the same figures")
    now = {name: worker(ctl, name)["pid"] for name in NAMES}
    assert not set(now.values()) & set(pids.values())

    os.kill(ctl.status["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: ctl.status["supervisor"]["pid"] is None, "the supervisor is gone")
    adopted = ctl("up", "-d", "--config", "config.yaml")
    assert "adopted" in adopted.stdout, adopted.stderr
    assert {name: worker(ctl, name)["pid"] for name in NAMES} == now
    kill(ctl, "inference-2")
    wait_until(lambda: worker(ctl, "inference-2")["restarts"] == 2 and ctl.status["state"] == "running", "healed", 60)
    assert worker(ctl, "inference")["pid"] == now["inference"]
    for _ in range(20):
        assert get(url)[0] == 200
    assert set(by_worker(url, "/health", wait_until)) == {worker(ctl, name)["pid"] for name in NAMES}
    assert ctl("down").returncode == 0
