"""Several processes of the bundled server: one address, a lane each, no acknowledged reward lost in their deaths."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from proof import figure, size
from server_kit import LIGHTS
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance

from .conftest import Ctl

WaitUntil = Callable[..., Any]


class Client(threading.Thread):
    """Decides and rewards over HTTP, each call sent again until it is answered; keeps what was acknowledged."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__()
        self.url = url
        self.number = number
        self.stopped = threading.Event()
        self.counted: list[tuple[str, float, list[int]]] = []
        """Decision id, value, action."""
        self.doubtful: list[str] = []
        """Ids of decisions that were gone when their reward came again: an earlier try may have counted."""
        self.failures: Counter[str] = Counter()

    def run(self) -> None:
        """Until `stopped` is set."""
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            body = {"observation": [float(self.number), float(turn)], "request_id": f"{self.number}-{turn}"}
            made = self.call("/v1/decide", body)
            assert made.status_code == 200, made.text
            name, value = made.json()["decision_id"], turn % 1000 / 1000
            given = self.call("/v1/reward", {"decision_id": name, "value": value})
            if given.status_code == 200:
                self.counted.append((name, value, made.json()["action"]))
            else:
                assert given.status_code == 410, given.text
                self.doubtful.append(name)

    def call(self, path: str, body: Any) -> httpx.Response:
        """The answer; connections that break and servers that are not ready are tried again."""
        deadline = time.monotonic() + 60
        while True:
            try:
                # A connection of its own: which process answers is left to chance.
                response = httpx.post(self.url + path, json=body, timeout=10, trust_env=False)
                if response.status_code not in (502, 503):
                    return response
                self.failures[str(response.status_code)] += 1
            except httpx.TransportError as error:
                self.failures[type(error).__name__] += 1
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.01)


def owners(instance: Instance) -> list[int]:
    """Process ids of the workers that serve."""
    control = instance.control
    pairs = [(control.get(f"lane.{lane}.owner"), control.get(f"lane.{lane}.ready")) for lane in range(2)]
    return [owner for owner, ready in pairs if owner and owner == ready and os.path.exists(f"/proc/{owner}")]


def start(ctl: Ctl, **inference: Any) -> Instance:
    """An instance of the lights with two workers."""
    (ctl.folder / "lights_of_workers.py").write_text(LIGHTS, encoding="utf-8")
    settings = {"workers": 2, "lanes": 2, "pending_timeout": 600, **inference}
    # So many deaths in a row as are wanted here would end in the state fatal.
    patient, trainer = {"max_restarts": 1000, "backoff_limit": 0.2}, {"buffer_capacity": 200_000}
    started = ctl.up(application="lights_of_workers", inference=settings, trainer=trainer, supervisor=patient)
    assert started.returncode == 0, started.stderr
    return Instance(ctl.instance)


def replace_one(instance: Instance, clients: list[Client], wait_until: WaitUntil) -> None:
    """Kill the worker that has served longest, so that both are killed in turn, and wait until another serves."""
    victim = min(owners(instance), key=lambda pid: os.stat(f"/proc/{pid}").st_ctime)
    before = sum(len(client.counted) for client in clients)
    wait_until(lambda: sum(len(client.counted) for client in clients) > before + 20, "rewards are counted", 60)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in owners(instance) and len(owners(instance)) == 2, "it is replaced", 60)


@pytest.mark.timeout(900)
def test_no_acknowledged_reward_is_lost_or_counted_twice(ctl: Ctl, wait_until: WaitUntil) -> None:
    """Workers are killed one after the other under load; every reward that was acknowledged is in one record."""
    instance = start(ctl)
    wait_until(lambda: len(owners(instance)) == 2, "both workers serve", 60)
    clients = [Client(ctl.status["url"], number) for number in range(3)]
    for client in clients:
        client.start()
    kills = size(3, 20)
    for _ in range(kills):
        replace_one(instance, clients, wait_until)
    for client in clients:
        client.stopped.set()
    for client in clients:
        client.join(90)
        assert not client.is_alive()
    counted = [item for client in clients for item in client.counted]
    # A reward that came in at the other process is in its record with that process's next beat.
    wait_until(lambda: ctl.status["buffer"]["size"] >= len(counted), "all are complete", 30)
    rows = ReplayReader(instance.control, instance.records, verify=True).recent(10**6)
    by_ticket = {int(row["ticket"]): row for row in rows}
    assert len(by_ticket) == len(rows), "a decision has two records"
    for name, value, action in counted:
        row = by_ticket[int(name.partition("-")[2], 16)]
        assert abs(float(row["actual_reward"]) - value) < 1e-6
        assert row["action"].tolist() == action
    doubtful = sum(len(client.doubtful) for client in clients)
    assert len(counted) <= len(rows) <= len(counted) + doubtful
    assert doubtful <= kills
    broken = sum((client.failures for client in clients), Counter[str]())
    text = f"{len(counted):,} rewards acknowledged over HTTP, 0 lost, 0 twice, in {kills} kills of one of two workers"
    figure(47, f"{text}; {sum(broken.values())} calls were sent again")
    instance.control.close()


@pytest.mark.timeout(300)
def test_an_answer_survives_the_death_of_everything_but_the_memory(ctl: Ctl, wait_until: WaitUntil) -> None:
    """Decided, then both workers are killed: the same request gets the same answer, and its reward counts; after
    `ctl down` and `up` the id of another decision still names it.
    """
    instance = start(ctl)
    wait_until(lambda: len(owners(instance)) == 2, "both workers serve", 60)
    client = Client(ctl.status["url"], 0)
    first = client.call("/v1/decide", {"observation": [1.0, 2.0], "request_id": "a"}).json()
    second = client.call("/v1/decide", {"observation": [3.0, 4.0], "request_id": "b"}).json()
    for victim in owners(instance):
        os.kill(victim, signal.SIGKILL)
    assert client.call("/v1/decide", {"observation": [9.0, 9.0], "request_id": "a"}).json() == first
    given = client.call("/v1/reward", {"decision_id": first["decision_id"], "value": 0.5}).json()
    assert given == {"decision_id": first["decision_id"], "matched": True, "counted": True}
    instance.control.close()
    assert ctl("down").returncode == 0
    instance = start(ctl)
    client = Client(ctl.status["url"], 0)
    fresh = client.call("/v1/decide", {"observation": [5.0, 6.0]}).json()
    assert fresh["decision_id"] not in (first["decision_id"], second["decision_id"])
    assert client.call("/v1/decide", {"observation": [9.0, 9.0], "request_id": "b"}).json() == second
    for made, counted in ((first, False), (second, True)):
        given = client.call("/v1/reward", {"decision_id": made["decision_id"], "value": 0.25}).json()
        assert given == {"decision_id": made["decision_id"], "matched": True, "counted": counted}
    wait_until(lambda: ctl.status["buffer"]["size"] == 2, "both are complete", 30)
    rows = ReplayReader(instance.control, instance.records, verify=True).recent(10)
    assert {(row["observation"][0], row["actual_reward"]) for row in rows} == {(1.0, 0.5), (3.0, 0.25)}
    instance.control.close()


def test_fewer_lanes_than_workers_are_refused(ctl: Ctl) -> None:
    """Each process needs a lane: the message names both settings and their values."""
    started = ctl.up(inference={"workers": 3, "lanes": 2})
    assert started.returncode == 2
    assert "inference.lanes: 2 writer lanes are too few for 3 workers" in started.stderr
