"""Setting the wall clock changes timestamps and nothing else, in the server, the trainer and the supervisor at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from proof import figure, wait_for
from tandem.supervisor.display import status

LIBRARY = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"
TIMEOUT = 1.0
LOOK = 1.5
"""Expiry is looked at once a second."""

SERVER = f"""
import json, os, signal, sys, time
if os.environ.get("HEEDLESS"):
    time.monotonic_ns = time.time_ns
from tandem.inference_proc.engine import Engine
# The clock of the test itself, which nothing changes.
now = time.perf_counter
engine = Engine.attach()
engine.mark_ready()
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
made, found, number, last = {{}}, {{"early": 0, "late": 0, "expired": 0, "stamps": []}}, 0, 0.0
turn, slowest = now(), 0.0
while not stop:
    slowest, turn = max(slowest, now() - turn), now()
    number += 1
    engine.decide("k%d" % number, [0.1, 0.2, 0.3, 0.4])
    made["k%d" % number] = now()
    if number % 3 == 0:
        del made["k%d" % number]
        assert engine.reward("k%d" % number, 0.5)
    before = now()
    engine.beat()
    waiting = {{key.decode() for key in engine.lane.pending.keys()}}
    for key, since in list(made.items()):
        if key in waiting:
            found["late"] += now() - since > {TIMEOUT + LOOK} + 2 * slowest
            continue
        found["expired"] += 1
        found["early"] += now() - since < {TIMEOUT}
        del made[key]
    if before - last > 0.2:
        last = before
        found["stamps"] = [time.time(), number]
        with open("found.tmp", "w") as file:
            json.dump(found, file)
        os.replace("found.tmp", "found.json")
    time.sleep(0.02)
engine.close()
"""

pytestmark = pytest.mark.skipif(
    not os.path.exists(LIBRARY) or not os.path.exists("/proc"), reason="needs the package faketime"
)


def environment_of(folder: Path, **more: str) -> dict[str, str]:
    """What a process needs whose wall clock is shifted by what the file `clock` says."""
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    (folder / "clock").write_text("+0", encoding="utf-8")
    # With the monotonic clock left alone, the library's clock_nanosleep fails.
    sleep = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
    (folder / "sitecustomize.py").write_text(sleep, encoding="utf-8")
    return {
        **os.environ,
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
        **more,
    }


def found_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(autouse=True)
def _what_the_library_leaves() -> Iterator[None]:
    """Its own shared memory stays behind when a process is killed."""
    before = set(os.listdir("/dev/shm"))
    yield
    for name in set(os.listdir("/dev/shm")) - before:
        if "faketime_s" in name:
            Path("/dev/shm", name).unlink(missing_ok=True)


def run_through_jumps(name: str, application: str, folder: Path) -> dict[str, Any]:
    """Run a whole instance whose wall clock jumps an hour and a year, both ways; what its server found."""
    environment = environment_of(folder)
    config = {
        "application": application,
        "trainer": {"training_interval": 0.05, "min_batch_size": 1, "buffer_capacity": 500, "nice": 0},
        "inference": {
            "command": f"{sys.executable} {folder / 'server.py'}",
            "lanes": 1,
            "pending_timeout": TIMEOUT,
            "pending_capacity": 4096,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ctl = [sys.executable, "-m", "tandem.supervisor"]
    started = subprocess.run(
        [*ctl, "up", "-d", "--instance", name, "--config", "config.yaml"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        wait_for((folder / "found.json").exists, "the server decides")
        for jump, dwell in (("+1h", 1.1), ("-1h", 2.7), ("+1y", 1.1), ("-1y", 2.7)):
            (folder / "clock").write_text(jump, encoding="utf-8")
            number, version = found_in(folder)["stamps"][1], status.status(name)["model_version"]
            until = time.monotonic() + dwell
            wait_for(lambda number=number: found_in(folder)["stamps"][1] > number + 10, f"decisions go on ({jump})")
            wait_for(lambda version=version: status.status(name)["model_version"] > version + 3, "training goes on")
            time.sleep(max(0.0, until - time.monotonic()))
            result = found_in(folder)
            assert abs(result["stamps"][0] - time.time()) > 1800, "the clock was not set"
        seen = status.status(name)
        result["restarts"] = [seen[process]["restarts"] for process in ("trainer", "inference")]
        result["state"] = seen["state"]
        return result
    finally:
        subprocess.run([*ctl, "down", "--instance", name], cwd=folder, capture_output=True, timeout=60, check=False)


def test_promise_46_the_wall_clock_may_jump(instance_name: str, toy_application: str, tmp_path: Path) -> None:
    """Nothing expires early, nothing is kept too long, nobody is restarted, decisions and training go on."""
    found = run_through_jumps(instance_name, toy_application, tmp_path)
    assert found["expired"] > 10
    assert (found["early"], found["late"]) == (0, 0)
    assert (found["restarts"], found["state"]) == ([0, 0], "running")
    figure(46, f"0 of {found['expired']} expired early, 0 kept too long, in 4 jumps of an hour and a year")


def test_a_server_on_the_wall_clock_is_found_out(toy_instance: Callable[..., Any], tmp_path: Path) -> None:
    """The same server finds decisions that expire early when their age is taken from the wall clock."""
    name = toy_instance(inference={"lanes": 1, "pending_timeout": TIMEOUT, "pending_capacity": 4096}).name
    environment = environment_of(tmp_path, HEEDLESS="1", TANDEM_INSTANCE=name)
    with subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, env=environment) as server:
        try:
            wait_for(lambda: (tmp_path / "found.json").exists() or server.poll() is not None, "the server decides")
            (tmp_path / "clock").write_text("+1h", encoding="utf-8")
            wait_for(lambda: found_in(tmp_path)["early"] > 0, "decisions expire early", 30)
        finally:
            server.kill()
