"""Promise 48: every surface shows the same facts, with and without a supervisor, after kills."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from proof import figure
from tandem.shared.memory.durations import FRESHNESS, Scale
from tandem.supervisor.children import process_tree
from tandem.supervisor.display.top_sample import Reader

from tests.processes import conftest as processes

parser = pytest.importorskip("prometheus_client.parser")

ctl = processes.ctl
Wait = Callable[..., Any]

WORKER = """
import os, sys, time
from tandem.inference_proc.engine import Engine
from tandem.queen.world import World
engine, world = Engine.attach(sys.argv[1]), World(3)
engine.mark_ready()
for number in range(40):
    world.advance(15.0)
    engine.decide("worker", {**world.observation(), "timestamp": time.time(), "territoryId": "worker"})
engine.beat()
print("ready", flush=True)
while True:
    time.sleep(1)
"""
"""A second server process: it decides forty times, owns a lane, and then only sits there."""

SUMMED = ("decided", "expired", "superseded", "dropped", "rejected", "lost", "completed")
LATER = 3.0
"""Seconds by which two ages may differ that were asked for one after the other."""


class Surfaces:
    """Everything that shows an instance, asked one after the other."""

    def __init__(self, control: processes.Ctl) -> None:
        self._ctl = control
        self._url = control.status["url"]

    def get(self, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._url + path, timeout=20) as answer:
            return bytes(answer.read())

    def differences(self, spoil: Callable[[Any], None] = lambda live: None) -> list[str]:
        """Every fact that two surfaces show differently, with what each shows; `spoil` changes the dashboard's data."""
        status = processes.parsed(self._ctl.script("status", "--json"))
        top = Reader(self._ctl.instance).read()
        stats = json.loads(self.get("/api/training/stats"))
        live = json.loads(self.get("/api/training/live"))
        spoil(live)
        health = json.loads(self.get("/health"))
        metrics = Metrics(self.get("/metrics").decode())
        facts = self.facts(status, top, stats, live, metrics)
        found = [f"{name}: {values}" for name, values in facts.items() if any(value != values[0] for value in values)]
        found += [f"{name}: {values}" for name, values in ages(status, live, metrics).items() if differ(values)]
        missing = [reason for reason in status["reasons"] if reason not in health.get("reasons", ())]
        return found + [f"/health does not say {reason!r}" for reason in missing]

    @staticmethod
    def facts(status: Any, top: Any, stats: Any, live: Any, metrics: Metrics) -> dict[str, list[Any]]:
        """What each surface shows of one fact, in a list."""
        buffer, trainer = status["buffer"], live["processes"]["trainer"]
        servers = [server for name, server in live["processes"].items() if name != "trainer"]
        facts = {
            "version": [status["model_version"], top.status["model_version"], stats["model_version"],
                        live["stats"]["model_version"], metrics.value("tandem_model_version")],
            "size": [buffer["size"], top.status["buffer"]["size"], stats["buffer"]["size"],
                     metrics.sum("tandem_buffer_size")],
            "capacity": [buffer["capacity"], stats["buffer"]["capacity"], metrics.sum("tandem_buffer_capacity")],
            "pending": [buffer["pending"], top.lanes["pending"], stats["buffer"]["pending_count"],
                        metrics.sum("tandem_buffer_pending")],
            "utilization": [buffer["utilization"], round(stats["buffer"]["utilization"], 6)],
            "overwritten": [top.overwritten, stats["buffer"]["overwritten"], live["stats"]["buffer"]["overwritten"],
                            metrics.sum("tandem_buffer_overwritten_total")],
            "lanes": [stats["buffer"]["lanes"], metrics.count("tandem_buffer_size")],
            "servers": [len(servers), metrics.sum("tandem_lane_up")],
            "steps": [top.metrics["total_steps"], stats["training"]["total_steps"],
                      metrics.value("tandem_training_steps_total")],
            "paused": [status["paused"], stats["training"]["paused"], bool(metrics.value("tandem_trainer_paused"))],
            "trainer": [status["trainer"]["state"], top.status["trainer"]["state"], trainer["state"],
                        metrics.state("trainer")],
            "trainer's process": [status["trainer"]["pid"], trainer["pid"]],
            "trainer's restarts": [status["trainer"]["restarts"], trainer["restarts"],
                                   metrics.value("tandem_process_restarts_total", process="trainer")],
            "trainer trains": [status["trainer"]["state"] == "running", stats["is_running"],
                               stats["training"]["is_running"], live["stats"]["is_running"], trainer["healthy"],
                               bool(metrics.value("tandem_process_up", process="trainer"))],
            "server": [status["inference"]["state"], live["processes"]["server 0"]["state"],
                       metrics.state("inference")],
            "server's process": [status["inference"]["pid"], live["processes"]["server 0"]["pid"]],
            "supervisor": [status["supervisor"]["pid"] is not None,
                           bool(metrics.value("tandem_process_up", process="supervisor"))],
            "reasons": [len(status["reasons"]), metrics.sum("tandem_learning_problem")],
            "freshness": [stats["training"]["freshness"]["count"], live["stats"]["training"]["freshness"]["count"],
                          metrics.sum("tandem_freshness_seconds_count")],
            "durations": [sum(live["latency"]["counts"]), metrics.sum("tandem_decision_duration_seconds_count")],
        }  # fmt: skip
        for at_top, name, share in zip(top.freshness, ("p50_seconds", "p99_seconds"), (0.5, 0.99), strict=True):
            facts[f"freshness, {name}"] = [
                at_top,
                stats["training"]["freshness"][name],
                live["stats"]["training"]["freshness"][name],
                metrics.percentile("tandem_freshness_seconds", FRESHNESS, share),
            ]
        for name in SUMMED:
            shown = "tandem_experiences_decided_total" if name == "decided" else "tandem_experiences_settled_total"
            by = {} if name == "decided" else {"outcome": name}
            facts[name] = [top.lanes[name], stats["buffer"][name], metrics.sum(shown, **by)]
        return facts


class Metrics:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        families = parser.text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def _values(self, name: str, **labels: str) -> list[float]:
        found = [sample for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()]
        assert found, (name, labels)
        return [sample.value for sample in found]

    def value(self, name: str, **labels: str) -> float:
        """The only sample of that name."""
        (value,) = self._values(name, **labels)
        return value

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of that name."""
        return sum(self._values(name, **labels))

    def count(self, name: str) -> int:
        """How many samples have that name."""
        return len(self._values(name))

    def percentile(self, name: str, scale: Scale, share: float) -> float | None:
        """Of a histogram in the buckets of `scale`, all lanes together; None if nothing was counted."""
        cumulative: Counter[float] = Counter()
        for sample in self._samples:
            if sample.name == f"{name}_bucket":
                cumulative[float(sample.labels["le"])] += round(sample.value)
        assert sorted(cumulative) == pytest.approx([*scale.bounds, math.inf])
        below = [0, *(cumulative[bound] for bound in sorted(cumulative))]
        counts = [after - before for before, after in itertools.pairwise(below)]
        return scale.percentile(counts, share) if any(counts) else None

    def state(self, process: str) -> str:
        """The state of a process that is 1."""
        samples = [s for s in self._samples if s.name == "tandem_process_state" and s.labels["process"] == process]
        (state,) = [sample.labels["state"] for sample in samples if sample.value]
        return str(state)


def ages(status: Any, live: Any, metrics: Metrics) -> dict[str, list[float | None]]:
    """Seconds since the last turns, as each surface gives them; None where it says that the process is gone."""
    trainer, server = status["trainer"], live["processes"]["server 0"]
    turned = metrics.value("tandem_process_progress_age_seconds", process="trainer")
    return {
        "trainer's age": [trainer["progress_age_s"], live["processes"]["trainer"]["progress_age_s"]],
        "trainer's turn": [trainer["progress_age_s"], turned] if trainer["pid"] else [],
        "server's age": [status["inference"]["progress_age_s"], server["progress_age_s"]],
        "model's age": [status["model_age_s"], live["stats"]["model"]["age_seconds"],
                        metrics.value("tandem_model_version_age_seconds")],
    }  # fmt: skip


def differ(values: list[float | None]) -> bool:
    """True if one of these ages is further from the first than they were asked for apart."""
    if not values or None in values:
        return bool(values) and any(value is not None for value in values)
    return any(abs(value - values[0]) > LATER for value in values)  # type: ignore[operator]


def play(control: processes.Ctl) -> None:
    """Some seconds of the game: decisions, rewards, blocked and pending ones."""
    url = f"ws{control.status['url'][4:]}/ws"
    words = ["-m", "tandem.queen.game_client", "--url", url, "--seconds", "2", "--speed", "100", "--json"]
    subprocess.run([sys.executable, *words], capture_output=True, check=True, timeout=60)


def kill(control: processes.Ctl, name: str) -> None:
    assert process_tree.send(control.identity(name), signal.SIGKILL)


def test_promise_48_every_surface_shows_the_same(ctl: processes.Ctl, wait_until: Wait, tmp_path: Any) -> None:
    """`ctl status`, `top`, REST, the dashboard's data and Prometheus agree on everything, whoever has been killed."""
    started = ctl.up(trainer={"buffer_capacity": 60}, inference={"lanes": 3})
    assert started.returncode == 0, started.stderr
    play(ctl)
    assert ctl.script("pause").returncode == 0
    surfaces, compared = Surfaces(ctl), []

    def agree(when: str) -> None:
        last: list[str] = []

        def is_equal() -> bool:
            last[:] = surfaces.differences()
            return not last

        try:
            wait_until(is_equal, when, 20)
        finally:
            assert not last, (when, last)
        compared.append(when)

    fresh = json.loads(surfaces.get("/api/training/stats"))["training"]["freshness"]
    assert fresh["count"] > 0, "no reward of the game was learned from"
    agree("everything runs")
    words = [sys.executable, "-c", WORKER, ctl.instance]
    worker = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True, cwd=tmp_path)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        agree("a second server")
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
    agree("the second server is killed")
    kill(ctl, "trainer")
    wait_until(lambda: ctl.status["trainer"]["restarts"] == 1 and ctl.status["trainer"]["state"] == "running", "", 60)
    agree("the trainer was replaced")
    kill(ctl, "supervisor")
    wait_until(lambda: ctl.status["supervisor"]["pid"] is None, "the supervisor is gone")
    agree("no supervisor")
    kill(ctl, "trainer")
    wait_until(lambda: ctl.status["trainer"]["pid"] is None, "the trainer is gone")
    agree("no supervisor and no trainer")
    assert ctl.status["trainer"]["state"] == "stopped"
    figure(48, f"equal on every surface in {len(compared)} situations, {len(compared) - 2} of them after kills")


def test_a_surface_that_derives_by_itself_is_found(ctl: processes.Ctl, wait_until: Wait) -> None:
    """A trainer that counts as running by its last turn alone, as one surface had it, is noticed once it is killed."""
    assert ctl.up().returncode == 0
    play(ctl)
    wait_until(lambda: ctl.status["trainer"]["state"] == "running", "it runs")
    surfaces = Surfaces(ctl)
    kill(ctl, "supervisor")
    wait_until(lambda: ctl.status["supervisor"]["pid"] is None, "the supervisor is gone")
    kill(ctl, "trainer")
    wait_until(lambda: ctl.status["trainer"]["pid"] is None, "the trainer is gone")
    wait_until(lambda: not surfaces.differences(), "all agree", 20)

    def by_its_last_turn(live: Any) -> None:
        live["processes"]["trainer"].update(state="running", healthy=True)

    found = surfaces.differences(by_its_last_turn)
    assert [name.partition(":")[0] for name in found] == ["trainer", "trainer trains"]
