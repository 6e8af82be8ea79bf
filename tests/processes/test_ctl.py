"""Operating a real instance: start, look, kill, adopt, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandem.shared.memory.processes import start_ticks
from tandem.shared.memory.segments import list_segments
from tandem.supervisor.children import process_tree
from tandem.supervisor.display import status

from .conftest import Ctl, parsed

Wait = Callable[..., Any]

SERVER = """
import os, signal, sys, time
from tandem.inference_proc.engine import Engine
engine = Engine.attach(os.environ["TANDEM_INSTANCE"], timeout=30)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
engine.mark_ready()
number = 0
while not stop:
    number += 1
    engine.decide("key", [0.1, 0.2, 0.3, number % 7 / 7])
    engine.reward("key", number % 3 - 1.0)
    engine.beat()
    time.sleep(0.005)
engine.close()
"""
"""A server of the user's own: it decides and rewards as fast as a busy one."""


def own_server(ctl: Ctl, text: str = SERVER) -> str:
    """A command line for `inference.command`."""
    path = ctl.folder / "server.py"
    path.write_text(text, encoding="utf-8")
    return f"{sys.executable} {path}"


def gone(identity: tuple[int, int]) -> bool:
    return start_ticks(identity[0]) != identity[1]


def test_an_instance_serves_heals_and_goes(ctl: Ctl, wait_until: Wait) -> None:
    """`up` returns when all is ready; killed and stopped processes are replaced, nothing learned is lost; `down` leaves
    nothing."""
    started = ctl.up(supervisor={"hang_timeout": 2.0, "stop_grace": 3.0})
    assert started.returncode == 0, started.stderr
    assert "/dashboard" in started.stdout
    status = parsed(ctl.script("status", "--json"))
    assert status["state"] == "running"
    assert {"instance", "trainer", "inference", "model_version", "model_age_s", "buffer"} <= status.keys()
    for name in ("trainer", "inference"):
        assert status[name].keys() == {"state", "pid", "uptime_s", "restarts", "progress_age_s"}
    assert status["buffer"].keys() == {"size", "capacity", "pending", "utilization"}
    url = f"ws{status['url'][4:]}/ws"
    game = subprocess.run(
        [sys.executable, "-m", "tandem.queen.game_client", "--url", url, "--seconds", "4", "--speed", "60", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(game.stdout.splitlines()[-1])["errors"] == 0
    wait_until(lambda: ctl.status["model_version"] >= 5, "five versions")

    refused = ctl("up", "-d", "--config", "config.yaml")
    assert refused.returncode == 1
    assert str(status["supervisor"]["pid"]) in refused.stderr

    deaths = [(name, number) for number in (signal.SIGKILL, signal.SIGSTOP) for name in ("trainer", "inference")]
    for name, number in deaths:
        before = ctl.status
        process_tree.send(ctl.identity(name), number)

        def healed(name: str = name, before: dict[str, Any] = before) -> bool:
            now = ctl.status
            return bool(now["state"] == "running" and now[name]["restarts"] == before[name]["restarts"] + 1)

        wait_until(healed, f"{name} is back after {number.name}", 60)
        now = ctl.status
        assert now[name]["pid"] != before[name]["pid"]
        assert now["model_version"] >= before["model_version"]
        assert now["buffer"]["size"] >= before["buffer"]["size"] > 0

    version = ctl.status["model_version"]
    assert ctl.script("version", "--wait", str(version + 3), "--timeout", "30").returncode == 0
    plain = ctl.script("version")
    assert plain.stdout.strip().isdigit()
    assert int(plain.stdout) >= version + 3
    assert "ready" in ctl.script("logs", "supervisor").stdout

    stopped = ctl.script("down")
    assert stopped.returncode == 0, stopped.stderr
    assert not list_segments(ctl.instance)
    after = ctl.script("version")
    assert (after.returncode, after.stdout, len(after.stderr.splitlines())) == (1, "", 1)
    assert parsed(ctl.script("status", "--json"))["state"] == "stopped"


def test_children_outlive_their_supervisor_and_are_adopted(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """A killed or stopped supervisor stops nothing; the next `up` adopts the processes; after a crash of everything it
    goes on from what shared memory holds."""
    sections = {"application": toy_application, "inference": {"command": own_server(ctl)}}
    assert ctl.up(**sections).returncode == 0
    wait_until(lambda: ctl.status["model_version"] > 2, "it trains")
    children = {name: ctl.identity(name) for name in ("trainer", "inference")}

    supervisor = ctl.identity("supervisor")
    process_tree.send(supervisor, signal.SIGSTOP)
    version = ctl.status["model_version"]
    wait_until(lambda: ctl.status["model_version"] > version + 5, "it trains on while the supervisor is stopped")
    process_tree.send(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor), "the supervisor is dead")
    version = ctl.status["model_version"]
    wait_until(lambda: ctl.status["model_version"] > version + 5, "it trains on without the supervisor")
    assert ctl.status["state"] == "degraded"

    again = ctl("up", "-d", "--config", "config.yaml")
    assert again.returncode == 0, again.stderr
    assert "adopted" in again.stdout
    assert {name: ctl.identity(name) for name in children} == children
    assert ctl.status["state"] == "running"

    # The supervisor too: one that was killed and has not ended yet is rightly shown as living.
    everybody = [ctl.identity(name) for name in ("supervisor", *children)]
    for identity in everybody:
        process_tree.send(identity, signal.SIGKILL)
    wait_until(lambda: all(map(gone, everybody)), "everything is dead")
    assert ctl.status["state"] == "stopped"
    again = ctl("up", "-d", "--config", "config.yaml")
    assert again.returncode == 0, again.stderr
    assert ctl.status["model_version"] > version
    assert ctl.status["buffer"]["size"] > 0

    process_tree.send(ctl.identity("supervisor"), signal.SIGKILL)
    children = {name: ctl.identity(name) for name in children}
    assert ctl.script("down").returncode == 0
    assert all(map(gone, children.values()))
    assert not list_segments(ctl.instance)


def test_a_stopped_supervisor_does_not_prevent_down(ctl: Ctl, toy_application: str) -> None:
    """`down` wakes a stopped supervisor, and everything ends in the ordinary way."""
    assert ctl.up(application=toy_application, inference={"command": "none"}).returncode == 0
    process_tree.send(ctl.identity("supervisor"), signal.SIGSTOP)
    assert ctl.script("down").returncode == 0
    assert not list_segments(ctl.instance)


def test_a_crash_loop_makes_up_fail_with_the_reason(ctl: Ctl, toy_application: str) -> None:
    """A process that ends at once is given up; `up` exits 1 with its last words, and nothing is left."""
    command = own_server(ctl, "import sys; sys.exit('the disk is on fire')")
    result = ctl.up(
        application=toy_application,
        trainer={"enabled": False},
        inference={"command": command},
        supervisor={"max_restarts": 2, "backoff_first": 0.05},
    )
    assert result.returncode == 1
    assert "the disk is on fire" in result.stderr
    assert "3 times in a row" in result.stderr
    assert not list_segments(ctl.instance)


def test_many_ups_at_once_start_one_instance(ctl: Ctl, toy_application: str) -> None:
    """Of 20 parallel `up`s one starts the instance and the others are refused."""
    config = ctl.configure(application=toy_application, inference={"command": "none"})
    starts = [
        subprocess.Popen(
            ctl.arguments("up", "-d", "--config", config),
            cwd=ctl.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(20)
    ]  # fmt: skip
    results = [(start.communicate(timeout=120)[1], start.returncode) for start in starts]
    assert sorted(status for _, status in results) == [0] + [1] * 19
    assert all("already taken" in text for text, status in results if status)
    assert ctl.status["trainer"]["restarts"] == 0


def test_a_bad_configuration_is_refused_in_one_message(ctl: Ctl) -> None:
    """Unknown key, wrong type and value out of range are all listed with path, value and what is allowed."""
    path = ctl.folder / "bad.yaml"
    path.write_text("trainer: {batch_sise: 3, training_interval: soon}\ninference: {port: 99999}\n", encoding="utf-8")
    result = ctl("up", "-d", "--config", "bad.yaml")
    assert result.returncode == 2
    for part in ("trainer.batch_sise", "batch_size", "trainer.training_interval", "soon", "inference.port", "99999"):
        assert part in result.stderr
    assert not list_segments(ctl.instance)


def test_a_taken_port_is_named(ctl: Ctl) -> None:
    """A port that somebody listens on is refused before anything is started."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = ctl("up", "-d", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert not list_segments(ctl.instance)


def test_a_user_server_is_supervised_and_a_flood_of_logs_is_capped(
    ctl: Ctl, toy_application: str, wait_until: Wait
) -> None:
    """`inference.command` is run, found ready, started again; whatever it writes, its logs stay within their cap."""
    flood = SERVER.replace("number += 1", "number += 1; sys.stdout.write('x' * 65535 + chr(10))")
    result = ctl.up(
        application=toy_application,
        inference={"command": own_server(ctl, flood)},
        supervisor={"log_max_bytes": 100_000, "log_files": 2},
    )
    assert result.returncode == 0, result.stderr
    folder = ctl.folder / "data" / ctl.instance / "logs"
    rotated = folder / "inference.log.2"
    wait_until(rotated.exists, "the log was rotated twice")
    assert sum((folder / f"inference.log.{number}").stat().st_size for number in (1, 2)) <= 200_000
    first = ctl.identity("inference")
    process_tree.send(first, signal.SIGKILL)
    wait_until(lambda: ctl.status["state"] == "running" and ctl.identity("inference") != first, "it is back")


def test_servers_may_attach_by_themselves(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """With `inference.command: none` only the trainer is supervised, and a server that attaches is shown."""
    result = ctl.up(application=toy_application, inference={"command": "none"})
    assert result.returncode == 0, result.stderr
    assert ctl.status["inference"]["state"] == "stopped"
    server = subprocess.Popen(
        own_server(ctl).split(), env={**os.environ, "TANDEM_INSTANCE": ctl.instance}, start_new_session=True
    )
    try:
        wait_until(lambda: ctl.status["inference"]["state"] == "running", "the server is shown")
        assert ctl.status["inference"]["pid"] == server.pid
        wait_until(lambda: ctl.status["model_version"] > 2, "the trainer learns from it")
    finally:
        server.terminate()
        assert server.wait(20) == 0


def test_the_demo_reports_and_leaves_nothing(ctl: Ctl) -> None:
    """`demo --seconds` ends with one JSON object of exactly the promised keys, and leaves no segment and no folder."""
    result = ctl("demo", "--seconds", "6", "--speed", "30", "--json", "--config", ctl.configure())
    assert result.returncode == 0, result.stderr
    figures = parsed(result)
    assert list(figures) == [
        "decisions", "decisions_per_s", "latency_ms", "send", "wait", "completed", "pending", "errors",
        "model_version", "training_steps", "mean_reward",
    ]  # fmt: skip
    assert figures["latency_ms"].keys() == {"p50", "p99"}
    assert figures["mean_reward"].keys() == {"first_quarter", "last_quarter"}
    assert figures["errors"] == 0
    assert figures["decisions"] == figures["send"] + figures["wait"] > 50
    assert figures["model_version"]["first"] == 0
    assert figures["model_version"]["last"] == figures["training_steps"] > 10
    assert not [name for name in list_segments() if name.startswith("demo-")]
    assert not (ctl.folder / "data").exists()


def test_an_interrupted_demo_leaves_nothing(ctl: Ctl, wait_until: Wait, tmp_path: Path) -> None:
    """TERM and INT end the demo at any moment, with nothing left."""
    config = ctl.configure()
    for number, ready in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        errors = tmp_path / f"errors-{number}"
        with errors.open("wb") as file:
            demo = subprocess.Popen(
                ctl.arguments("demo", "--config", config), cwd=ctl.folder, stdout=subprocess.DEVNULL, stderr=file
            )
        name = f"demo-{demo.pid}"
        try:
            wait_until(lambda name=name: "lock" in list_segments(name).get(name, []), "it starts")
            if ready:
                wait_until(lambda name=name: (status.status(name)["model_version"] or 0) > 1, "it learns", 60)
                wait_until(lambda errors=errors: b"decisions/s" in errors.read_bytes(), "it tells how it goes")
            began = time.monotonic()
            demo.send_signal(number)
            assert demo.wait(30) == (0 if ready else 130), f"after {time.monotonic() - began:.1f} s"
        finally:
            # A demo that fails here must not play on beside the tests that follow.
            if demo.poll() is None:
                demo.kill()
                demo.wait()
        assert not list_segments(name)
