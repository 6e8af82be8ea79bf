"""What an operator waits for: `version`, `status`, a death's notice, the trainer's return, a rollback under load.

`./ctl bench ops [--json] [--rounds N]`. Times of commands are those of whole processes, medians of N (30);
`python_floor_ms` is `python3 -S -c pass`, measured in turn with them. Deaths are medians of 3 kills of the trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandem.shared.memory import layout
from tandem.shared.memory.control import Control
from tandem.supervisor import cleanup, operate
from tandem.supervisor.children import process_tree
from tandem.supervisor.display import status

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3
CONFIG = "trainer: {training_interval: 0.1}\ninference: {port: 0}\n"


def wall_ms(command: list[str]) -> float:
    """Milliseconds that a whole process takes."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3


def wait(condition: Callable[[], Any], timeout: float = 60.0) -> float:
    """Seconds until the condition is true."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > timeout:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.0005)
    return time.perf_counter() - began


def commands(instance: str, rounds: int) -> dict[str, float]:
    """Medians of the quick commands and of the interpreter's own start, measured in turn."""
    table = {
        "python_floor_ms": ["python3", "-S", "-c", "pass"],
        "version_ms": [str(ROOT / "ctl"), "version", "--instance", instance],
        "status_ms": [str(ROOT / "ctl"), "status", "--instance", instance],
    }
    times: dict[str, list[float]] = {name: [] for name in table}
    for command in table.values():
        wall_ms(command)
    for _ in range(rounds):
        for name, command in table.items():
            times[name].append(wall_ms(command))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def deaths(control: Control) -> dict[str, float]:
    """How fast a kill of the trainer is noticed, and how soon a version above the last one is there."""
    noticed, back = [], []
    running = layout.STATES.index("running")
    for _ in range(KILLS):
        wait(lambda: status.process(control, "trainer")["state"] == "running")
        pid, ticks = control.get("process.trainer.pid"), control.get("process.trainer.start_ticks")
        version = control.get("version")
        began = time.perf_counter()
        process_tree.send((pid, ticks), signal.SIGKILL)
        noticed.append(wait(lambda: control.get("process.trainer.state") != running) * 1e3)
        wait(lambda version=version: control.get("version") > version + 1)
        back.append(time.perf_counter() - began)
    torch = [wall_ms([sys.executable, "-c", "import torch"]) / 1e3 for _ in range(3)]
    return {
        "death_noticed_ms": round(statistics.median(noticed), 2),
        "trainer_back_s": round(statistics.median(back), 2),
        "import_torch_s": round(statistics.median(torch), 2),
    }


def rollback(control: Control, url: str) -> dict[str, float]:
    """A rollback while the game is played: how long it takes, and what the game's client misses."""
    command = [
        sys.executable,
        "-m",
        "tandem.queen.game_client",
        "--url",
        url,
        "--speed",
        "60",
        "--seconds",
        "8",
        "--json",
    ]
    game = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    decided = control.get("lane.0.decided")
    wait(lambda: control.get("lane.0.decided") > decided + 100)
    times = []
    for _ in range(3):
        saved = operate.ask(control, "checkpoint", timeout=30.0)
        wait(lambda saved=saved: control.get("version") > saved)
        began = time.perf_counter()
        operate.ask(control, "rollback", saved, timeout=30.0)
        times.append((time.perf_counter() - began) * 1e3)
    output, _ = game.communicate(timeout=60)
    result = json.loads(output.splitlines()[-1])
    return {"rollback_ms": round(statistics.median(times), 2), "failed_requests_during_rollback": result["errors"]}


def measure(rounds: int) -> dict[str, float]:
    """All figures, on an instance of their own that is gone afterwards."""
    instance = f"bench-ops-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(CONFIG, encoding="utf-8")
        words = ["up", "-d", "--instance", instance, "--config", "config.yaml"]
        try:
            subprocess.run(
                [sys.executable, "-m", "tandem.supervisor", *words], cwd=folder, stdout=subprocess.DEVNULL, check=True
            )
            control = operate.open_running(instance)
            url = f"ws://127.0.0.1:{control.get('supervisor.port')}/ws"
            figures = rollback(control, url)
            figures = {**commands(instance, rounds), **deaths(control), **figures}
            control.close()
        finally:
            cleanup.stop_instance(instance)
    return figures


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--rounds", type=int, default=30, help="processes started for each command (30)")
    options = parser.parse_args()
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<34}{value:>10}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
