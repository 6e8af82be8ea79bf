"""The bundled server as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_kit import ask, browser_observation
from websockets.sync.client import connect


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def start_process(instance_name: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`start_process(**sections)` creates an instance and starts its server: the process and its port."""
    from tandem.shared.configuration.config import parse
    from tandem.shared.instance import create_instance

    started: list[subprocess.Popen[str]] = []

    def start(**sections: Any) -> tuple[subprocess.Popen[str], int]:
        (tmp_path / "simulation_gate.yaml").write_text("reward_threshold: -100.0\n", encoding="utf-8")
        port = sections.pop("port", None) or free_port()
        plain = {"data_dir": str(tmp_path / "data"), "inference": {"port": port, "seed": 1}, **sections}
        create_instance(instance_name, parse(plain, "the test's configuration", str(tmp_path)))
        command = [sys.executable, "-W", "error", "-m", "tandem.inference_proc", "--instance", instance_name]
        log = (tmp_path / "server.log").open("w")
        started.append(subprocess.Popen(command, stdout=log, stderr=log, text=True))
        log.close()
        return started[-1], port

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def is_ready(port: int) -> bool:
    """True once the server answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_serves_beats_and_ends_cleanly(
    start_process: Callable[..., Any], instance_name: str, wait_until: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    """It announces readiness when it listens, answers, makes progress, and a signal ends it with status 0."""
    from tandem.shared.memory.control import Control

    process, port = start_process(logging={"format": "json"})
    control = Control.attach(instance_name)
    wait_until(lambda: is_ready(port), "the server answers", 60)
    assert control.get("lane.0.ready") == process.pid
    beats = control.get("lane.0.progress")
    wait_until(lambda: control.get("lane.0.progress") >= beats + 2, "the event loop makes progress")
    with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as client:
        assert ask(client, browser_observation())["type"] in ("spawn_decision", "no_action")
        assert ask(client, "no json")["type"] == "error"
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    control.close()
    events = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    assert any("serving on http://127.0.0.1" in event["message"] for event in events)
    assert {event["level"] for event in events} == {"info"}


def test_killed_and_started_again_it_keeps_the_experiences(
    start_process: Callable[..., Any], instance_name: str, wait_until: Callable[..., Any]
) -> None:
    """After kill -9 a new process on the same instance has what was completed, and completes what was pending."""
    from tandem.shared.memory.control import Control

    process, port = start_process()
    control = Control.attach(instance_name)
    wait_until(lambda: is_ready(port), "the server answers", 60)
    with connect(f"ws://127.0.0.1:{port}/ws/game_client_1", proxy=None) as client:
        client.recv(timeout=10)
        for _ in range(20):
            ask(client, browser_observation())
    head, pending = control.get("lane.0.head"), control.get("lane.0.pending")
    process.kill()
    process.wait()
    again = subprocess.Popen([sys.executable, "-m", "tandem.inference_proc", "--instance", instance_name])
    try:
        wait_until(lambda: is_ready(port), "the server answers again", 60)
        assert control.get("lane.0.head") == head
        with connect(f"ws://127.0.0.1:{port}/ws/game_client_1", proxy=None) as client:
            client.recv(timeout=10)
            ask(client, browser_observation(queen=0.0))
        assert control.get("lane.0.head") == head + pending + 1
    finally:
        again.terminate()
        assert again.wait(timeout=30) == 0
    control.close()


def test_a_port_that_is_taken_is_one_clear_line(
    start_process: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """The process ends with status 1 and one message naming the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, _ = start_process(port=port)
        assert process.wait(timeout=60) == 1
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert len(lines) == 1
    assert f"127.0.0.1:{port}" in lines[0]


def test_an_ipv6_address_is_served_and_shown_as_a_browser_takes_it(
    start_process: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """`host: "::1"` listens there, and its address is written with brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    _, port = start_process(inference={"host": "::1", "port": (chosen := free_port())}, port=chosen)

    def answers() -> bool:
        try:
            return httpx.get(f"http://[::1]:{port}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "the server answers", 60)
    assert httpx.post(f"http://[::1]:{port}/api/training/pause", trust_env=False).status_code == 200
    assert f"serving on http://[::1]:{port}" in (tmp_path / "server.log").read_text()


def test_a_token_that_cannot_be_shown_is_one_clear_line(instance_name: str) -> None:
    """The process ends with status 1 before it waits for anything, and never shows the token."""
    done = subprocess.run(
        [sys.executable, "-m", "tandem.inference_proc", "--instance", instance_name],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "TANDEM_TOKEN": "s3cret "},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "TANDEM_TOKEN" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_signal_while_it_waits_for_the_instance_ends_it(
    instance_name: str, wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """Before the instance is there, SIGTERM ends the process with status 0."""
    command = [sys.executable, "-m", "tandem.inference_proc", "--instance", instance_name]
    process = subprocess.Popen(command)
    wait_until(lambda: "torch" in Path(f"/proc/{process.pid}/maps").read_text(), "the process is up", 60)
    wait_until(lambda: handles_sigterm(process.pid), "its signal handler is set", 60)
    process.terminate()
    assert process.wait(timeout=30) == 0


def handles_sigterm(pid: int) -> bool:
    """True if the process catches SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_without_an_instance_the_descriptor_limit_is_all_that_changes() -> None:
    """The soft limit of open files is raised to the hard one, so that connections are bounded by configuration."""
    script = (
        "import resource; from tandem.inference_proc.__main__ import raise_descriptor_limit as r;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256)); r(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "(256, 256)"


@pytest.mark.parametrize("fallback", [True, False])
def test_without_an_instance_the_newest_checkpoint_decides_if_asked_for(
    instance_name: str, wait_until: Callable[..., Any], tmp_path: Path, fallback: bool
) -> None:
    """With `inference.static_fallback` the whole protocol is served, degraded; without it the process ends with 1."""
    from tandem.queen import create
    from tandem.shared.weights.checkpoints import CheckpointStore
    from tandem.shared.weights.flat_model import FlatModel

    model = FlatModel(create({}, tmp_path).build_model())
    CheckpointStore(tmp_path / "data" / instance_name / "checkpoints").save(7, model.state(), {}, {})
    port = free_port()
    plain = {
        "data_dir": str(tmp_path / "data"),
        "inference": {"port": port, "static_fallback": fallback, "attach_timeout": 0.1},
    }
    (tmp_path / "simulation_gate.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / "config.yaml").write_text(json.dumps(plain), encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "tandem.inference_proc", "--instance", instance_name]
    with subprocess.Popen([*command, "--config", "config.yaml"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            if not fallback:
                assert process.wait(60) == 1
                assert instance_name in process.stderr.read().decode()
                return
            wait_until(lambda: is_ready(port), "the server answers", 60)
            with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as client:
                decided = ask(client, browser_observation())
                assert decided["type"] in ("spawn_decision", "no_action")
                assert decided["data"]["modelVersion"] == 7
                status = ask(client, {"type": "training_status_request"})
                assert status["data"]["errorCode"] == "TRAINER_NOT_AVAILABLE"
                assert ask(client, {"type": "gate_stats_request"})["type"] == "gate_stats_response"
                assert ask(client, {"type": "health_check"})["data"]["status"] == "degraded"
                refused = ask(client, {"type": "reset_nn", "data": {"confirm": True}})
                assert refused["data"]["errorCode"] == "RESET_ERROR"
            (reason,) = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).json()["reasons"]
            assert "the saved weights of version 7 decide" in reason
            found = {
                path: httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code
                for path in ("/", "/system/status", "/openapi.json", "/reset-nn", "/dashboard", "/metrics")
            }
            assert list(found.values()) == [200, 200, 200, 503, 404, 404]
        finally:
            process.terminate()
        assert process.wait(30) == 0
