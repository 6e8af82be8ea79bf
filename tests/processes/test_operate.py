"""Operating a running instance: pause, checkpoints, rollback, reload, restart, checks, and what systemd is told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_kit import ask, browser_observation
from tandem.shared.memory.segments import list_segments
from tandem.supervisor.children import process_tree
from tandem.supervisor.display import status
from websockets.sync.client import connect

from .conftest import ROOT, Ctl, parsed
from .test_ctl import own_server

Wait = Callable[..., Any]

LIGHT_SERVER = """
import os, signal, time
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import own_identity
control = Control.attach(os.environ["TANDEM_INSTANCE"], timeout=10)
pid, ticks = own_identity()
for name, value in (("owner_ticks", ticks), ("owner", pid), ("ready", pid)):
    control.set("lane.0." + name, value)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
while not stop:
    time.sleep(0.01)
"""
"""A server that says it is ready and needs no torch."""


def test_an_operator_has_the_trainer_in_hand(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """Pause, resume, checkpoint, rollback, reload and restart do what they say, and say what they did."""
    started = ctl.up(
        application=toy_application, inference={"command": own_server(ctl)}, trainer={"steps_per_interval": 1}
    )
    assert started.returncode == 0, started.stderr
    assert ctl.script("version", "--wait", "5").returncode == 0

    assert ctl.script("pause").returncode == 0
    wait_until(lambda: ctl.status["paused"] and (ctl.status["model_age_s"] or 0) > 0.5, "training is paused")
    late = ctl.script("check", "--max-age", "0.1")
    assert (late.returncode, len(late.stdout.splitlines())) == (2, 1)
    assert "paused" in late.stdout
    paused = ctl.status["model_version"]
    saved = ctl.script("checkpoint")
    assert saved.stdout.strip() == f"version {paused} is saved"
    assert ctl.script("resume").returncode == 0
    assert ctl.script("version", "--wait", str(paused + 5)).returncode == 0
    good = ctl.script("check", "--max-age", "30")
    assert good.returncode == 0
    assert good.stdout.startswith("OK")

    rolled = parsed(ctl.script("rollback", str(paused), "--json"))
    assert rolled["restored_version"] == paused
    assert rolled["model_version"] > rolled["before"] > paused
    missing = ctl.script("rollback", "999999999")
    assert missing.returncode == 1
    assert "no such checkpoint" in missing.stderr
    listed = parsed(ctl.script("checkpoints", "--json"))["checkpoints"]
    assert paused in [entry["version"] for entry in listed]

    text = (ctl.folder / "config.yaml").read_text(encoding="utf-8")
    changed = ctl.folder / "changed.yaml"
    changed.write_text(text.replace("buffer_capacity: 500", "buffer_capacity: 501\n  batch_size: 7"), encoding="utf-8")
    reloaded = ctl("reload", "--config", "changed.yaml")
    assert reloaded.returncode == 0, reloaded.stderr
    assert "trainer.batch_size: 32 -> 7" in reloaded.stdout
    assert "trainer.buffer_capacity: 500 -> 501 needs a restart" in reloaded.stdout
    wait_until(lambda: "batch 7" in ctl.script("logs", "trainer").stdout, "batches are smaller")
    changed.write_text("trainer: {batch_size: -1}", encoding="utf-8")
    assert ctl("reload", "--config", "changed.yaml").returncode == 2

    before = ctl.status
    assert ctl.script("restart", "inference").returncode == 0
    after = ctl.status
    assert after["inference"]["pid"] != before["inference"]["pid"]
    assert after["trainer"]["pid"] == before["trainer"]["pid"]
    assert after["state"] == "running"

    assert parsed(ctl("config", "--json"))["trainer.buffer_capacity"]["value"] == 500
    shown = ctl("top", "--count", "1")
    assert shown.returncode == 0
    assert "loss" in shown.stdout


def test_commands_take_effect_under_load_without_a_failed_request(ctl: Ctl, wait_until: Wait) -> None:
    """Two clients observe as fast as they are answered; each command is seen in their decisions, and none fails."""
    (ctl.folder / "simulation_gate.yaml").write_text("{}", encoding="utf-8")
    started = ctl.up()
    assert started.returncode == 0, started.stderr
    url = ctl.status["url"].replace("http", "ws") + "/ws"
    stop = threading.Event()
    versions: list[list[int]] = [[], []]
    failures: list[str] = []

    def play(number: int) -> None:
        with connect(url, proxy=None) as client:
            while not stop.is_set():
                reply = ask(client, browser_observation(territory=f"territory_{number}"))
                if reply["type"] not in ("spawn_decision", "no_action"):
                    failures.append(str(reply))
                versions[number].append(reply["data"]["modelVersion"])

    def decided() -> int:
        return versions[0][-1] if versions[0] else 0

    threads = [threading.Thread(target=play, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: decided() > 3, "new versions decide")
        assert ctl.script("checkpoint").returncode == 0
        kept = parsed(ctl.script("checkpoints", "--json"))["checkpoints"][-1]["version"]
        assert ctl.script("pause").returncode == 0
        wait_until(
            lambda: ctl.status["paused"] and decided() == ctl.status["model_version"], "the last version decides"
        )
        paused = decided()
        rolled = parsed(ctl.script("rollback", str(kept), "--json"))["model_version"]
        assert rolled > paused
        wait_until(lambda: decided() == rolled, "the restored weights decide while training is paused")
        assert ctl.script("reset").returncode == 2
        assert parsed(ctl.script("reset", "--yes", "--json"))["generation"] == 1
        wait_until(lambda: decided() == rolled + 1, "fresh weights decide")
        assert parsed(ctl.script("rollback", "--json"))["restored_version"] == kept
        assert ctl.script("resume").returncode == 0
        wait_until(lambda: decided() > rolled + 5, "training goes on")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    for mine in versions:
        assert mine == sorted(mine), "the version fell"
    lane = parsed(ctl.script("status", "--json"))["buffer"]
    assert lane["size"] > 0


def test_a_hundred_kills_leave_no_extra_file(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """After 100 kills of a supervised process each is replaced, and /dev/shm holds what it held before."""
    started = ctl.up(
        application=toy_application,
        trainer={"enabled": False},
        inference={"command": own_server(ctl, LIGHT_SERVER)},
        supervisor={"max_restarts": 1000, "backoff_first": 0.001, "backoff_limit": 0.001},
    )
    assert started.returncode == 0, started.stderr
    before = list_segments(ctl.instance)
    for number in range(100):
        process_tree.send(ctl.identity("inference"), signal.SIGKILL)

        def replaced(number: int = number) -> bool:
            process = ctl.status["inference"]
            return bool(process["restarts"] == number + 1 and process["state"] == "running")

        wait_until(replaced, f"restart {number + 1}")
    assert list_segments(ctl.instance) == before


def test_systemd_is_told(ctl: Ctl, toy_application: str, tmp_path: Path) -> None:
    """Under a service manager `up` reports readiness when everything is ready, feeds the watchdog, and says when it
    stops."""
    config = ctl.configure(application=toy_application, inference={"command": "none"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(str(tmp_path / "notify"))
        service = subprocess.Popen(
            ctl.arguments("up", "--config", config), cwd=ctl.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"},
        )  # fmt: skip
        seen = []
        while "READY=1" not in (seen or [""])[-1]:
            seen.append(manager.recv(4096).decode())
        assert f"MAINPID={service.pid}" in seen[-1]
        assert ctl.status["state"] == "running"
        while seen[-1] != "WATCHDOG=1":
            seen.append(manager.recv(4096).decode())
        service.terminate()
        while seen[-1] != "STOPPING=1":
            seen.append(manager.recv(4096).decode())
    assert service.wait(30) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_may_look_when_the_mode_allows_it(ctl: Ctl, toy_application: str) -> None:
    """With supervisor.mode 0644 `version`, `status` and `check` work for another user; nothing can be changed by it."""
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    new_enough = [python or "false", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
    if subprocess.run(new_enough, check=False).returncode:
        pytest.skip("there is no Python of the system's that another user may run")
    started = ctl.up(application=toy_application, inference={"command": "none"}, supervisor={"mode": "0644"})
    assert started.returncode == 0, started.stderr
    program = [str(python), "-S", str(ROOT / "ctl")]
    for command in (["version"], ["status", "--json"], ["check"]):
        result = subprocess.run(
            [*program, *command, "--instance", ctl.instance], user=65534, group=65534, extra_groups=[], cwd="/",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "Permission denied" in result.stderr and str(ROOT) in result.stderr:
            pytest.skip("the clone is not readable by other users")
        assert result.returncode == 0, result.stderr
    refused = subprocess.run(
        [*program, "pause", "--instance", ctl.instance], user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert not status.status(ctl.instance)["paused"]
