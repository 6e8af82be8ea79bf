"""Kill a running instance's processes at random, for as long as asked, and look whether the channel keeps its word.

`python benchmarks/soak.py --minutes N` starts a real instance by `ctl` in a folder of its own: trainer, a server that
decides and rewards at full speed and answers clients besides, supervisor. It kills each of them at random moments
(kill -9) and brings the supervisor back; between the kills it rolls back, resets, reloads, fills the disk of the data
folder (as root) and lets hostile clients and a hostile second server process have a go. Meanwhile it asserts, and
counts as violations what is not so:

- no weights are ever torn: their checksum agrees, the version never goes back (1, 2);
- after a publisher's death the announced version can be taken at the first look (4);
- no row is ever torn: its checksum agrees (10);
- a killed server loses at most one decision (13), and at quiet moments every decision and every record is accounted
  for (14);
- commands are answered, the versions rise also while the disk is full, and the weights move in every minute (41);
- no file is left: the instance's files stay the same through all restarts and are gone after `ctl down` (17).

One line of JSON with counts is printed at the end; the exit status is 1 if there was any violation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _disturbances import change_settings, full, hostile_calls, hostile_frames, small_disk
from tandem.shared.experiences.records import checksums
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import is_same_process
from tandem.shared.memory.rows import PREFIX_BYTES
from tandem.shared.memory.segments import FOLDER, PREFIX
from tandem.shared.telemetry.stats import buffer_stats
from tandem.shared.weights.slots import checksum
from tandem.shared.weights.subscriber import Look, Subscriber

ROOT = Path(__file__).resolve().parents[1]
APPLICATION = '''
"""Four numbers in, one of five places out."""
import torch
from tandem.shared.application import ActionHead, Application


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(4, 256), torch.nn.Tanh(), torch.nn.Linear(256, 256))
        self.place = torch.nn.Linear(256, 5)

    def forward(self, observations):
        return (self.place(torch.tanh(self.trunk(observations))),)


def create(settings, folder):
    return Application("soak_application", tuple("abcd"), (ActionHead("place", 5),), Model)
'''
VICTIMS = ("trainer", "inference", "supervisor")
DISTURBANCES = ("rollback", "reset", "reload", "full_disk", "clients", "server")


def serve(quiet: Path, port: int) -> None:
    """The server: decide and reward at full speed, and answer clients; idle while the file `quiet` exists."""
    import asyncio

    from tandem.inference_proc.engine import Engine
    from tandem.inference_proc.web.bundled_server import BundledServer
    from tandem.inference_proc.web.service import Service
    from tandem.inference_proc.workers.sockets import listen

    torch.set_num_threads(1)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop.append(number))
    engine = Engine.attach()
    service = Service(engine)
    server = BundledServer(service, listen("127.0.0.1", port, service.limits.write_timeout))
    clients = threading.Thread(target=lambda: asyncio.run(server.run_service()))
    clients.start()
    rng = np.random.default_rng()
    next_beat, turn = 0.0, 0
    while not stop:
        if time.monotonic() > next_beat:
            engine.beat()
            next_beat = time.monotonic() + 0.2
        if quiet.exists():
            time.sleep(0.01)
            continue
        for _ in range(50):
            turn += 1
            key = f"key-{turn % 40}"
            engine.decide(key, rng.random(4, np.float32))
            if turn % 3:
                engine.reward(key, float(rng.uniform(-1, 1)))
            if turn % 29 == 0:
                engine.forget(key)
    server.should_exit = True
    clients.join()
    engine.close()


class Soak:
    """One run: the instance, what is watched, what was counted."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.name = f"soak-{os.getpid()}"
        self.quiet = folder / "quiet"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self.examples: list[str] = []
        self.has_disk = False
        self.config = folder / "config.yaml"
        (folder / "soak_application.py").write_text(APPLICATION, encoding="utf-8")
        self.config.write_text(yaml.safe_dump(self._config()), encoding="utf-8")

    def _config(self) -> dict[str, Any]:
        return {
            "application": "soak_application",
            "data_dir": str(self.folder / "data"),
            "trainer": {"training_interval": 0.02, "buffer_capacity": 1000, "checkpoint_interval": 5.0},
            "inference": {
                "command": f"{sys.executable} {Path(__file__).resolve()} --serve {self.quiet} {self.port}",
                "lanes": 3,
                "pending_capacity": 32,
            },
            "supervisor": {"backoff_first": 0.05, "backoff_limit": 0.2, "max_restarts": 100_000},
            "logging": {"level": "error"},
        }

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command."""
        command = [sys.executable, str(ROOT / "ctl"), *words, "--instance", self.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=self.folder)

    def up(self) -> None:
        """Start the instance, or a supervisor for the one that runs."""
        done = self.ctl("up", "-d", "--config", str(self.config))
        if done.returncode != 0:
            self.wrong("up", f"status {done.returncode}: {done.stdout}{done.stderr}")

    def wrong(self, what: str, example: str) -> None:
        """Count a violation."""
        self.violations[what] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{what}: {example}")

    def files(self) -> list[str]:
        """The instance's segments, the supervisor's lock aside."""
        return sorted(
            entry
            for entry in os.listdir(FOLDER)
            if entry.startswith(f"{PREFIX}{self.name}.") and not entry.endswith(".lock")
        )

    def attach(self) -> None:
        """Open everything that is watched."""
        instance = Instance(self.name, timeout=60)
        self.control: Control = instance.control
        self.layout = instance.build_model().layout
        self.slots = instance.open_slots(self.layout)
        self.flat = torch.zeros(self.layout.data_bytes, dtype=torch.uint8)
        self.subscriber = Subscriber(self.slots)
        self.reader = ReplayReader(self.control, instance.records, seed=1, verify=False)
        self.all_files = self.files()
        self.moved_at: float | None = None
        self.last = self.flat.clone()

    def look(self) -> None:
        """One look at the weights and one sample."""
        before = self.subscriber.version
        found = self.subscriber.refresh(self.flat)
        if found is Look.TAKEN:
            self._check_weights(before)
        self.counts["misses"] += found is Look.BUSY
        rows = self.reader.sample(64)
        if len(rows):
            raw = rows.view(np.uint8).reshape(len(rows), -1)
            sums = checksums(raw[:, PREFIX_BYTES:], rows["sequence"].astype(np.int64))
            torn = int(np.count_nonzero(sums != rows["checksum"].astype(np.int64)))
            if torn:
                self.wrong("torn rows", f"{torn} of {len(rows)}")
            self.counts["rows"] += len(rows)

    def _check_weights(self, before: int) -> None:
        version = self.subscriber.version
        index = self.slots.find(version)
        stored = self.control.get(f"slot.{max(0, index)}.checksum")
        if index >= 0 and self.slots.find(version) == index:
            self.counts["reads"] += 1
            if checksum(self.flat) != stored:
                self.wrong("torn weights", f"version {version}")
        if version <= before:
            self.wrong("version went back", f"{before} to {version}")

    def watch(self, condition: Callable[[], Any], what: str, timeout: float = 60.0) -> bool:
        """Go on looking until `condition`; a violation if it does not come true in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.look()
            time.sleep(0.001)
            if time.monotonic() > deadline:
                self.wrong(what, f"not within {timeout:g} s")
                return False
        return True

    def pid(self, victim: str) -> int:
        """Process id of a living process of the instance, or 0."""
        name = "supervisor" if victim == "supervisor" else f"process.{victim}"
        pid, ticks = self.control.get(f"{name}.pid"), self.control.get(f"{name}.start_ticks")
        return pid if is_same_process(pid, ticks) else 0

    def owners(self) -> list[int]:
        """Process ids of the lanes' living and serving owners."""
        lanes = [self.control.lane(index) for index in range(self.control.get("lanes"))]
        return [
            lane["owner"]
            for lane in lanes
            if lane["ready"] and lane["ready"] == lane["owner"] and is_same_process(lane["owner"], lane["owner_ticks"])
        ]

    def lost(self) -> int:
        """Decisions lost so far."""
        return sum(self.control.get(f"lane.{index}.lost") for index in range(self.control.get("lanes")))

    def strike(self) -> None:
        """Kill one process and see that all is well."""
        victim = self.random.choice(VICTIMS)
        pid, lost = self.pid(victim), self.lost()
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.counts[f"killed {victim}"] += 1
        if victim == "trainer":
            self._publisher_died(pid)
        elif victim == "inference":
            self.watch(lambda: self.owners() and pid not in self.owners(), "the server came back")
            if self.lost() - lost > 1:
                self.wrong("lost", f"{self.lost() - lost} with one kill")
        else:
            before = {name: self.pid(name) for name in ("trainer", "inference")}
            self.watch(lambda: not self.pid("supervisor"), "the supervisor is dead")
            self.up()
            for name, child in before.items():
                if child and self.pid(name) != child:
                    self.counts[f"{name} replaced with its supervisor"] += 1
        if self.files() != self.all_files:
            self.wrong("files", f"{set(self.files()) ^ set(self.all_files)}")

    def disturb(self) -> None:
        """One thing besides a kill, and see that training goes on."""
        what = self.random.choice(DISTURBANCES)
        if what == "full_disk" and not self.has_disk:
            return
        self.watch(lambda: self.owners() and self.pid("trainer"), "everything runs")
        version = self.control.get("version")
        getattr(self, f"_{what}")()
        self.counts[what.replace("_", " ")] += 1
        self.watch(lambda: self.control.get("version") > version + 5, f"versions rise after {what}")

    def _rollback(self) -> None:
        self._answered("rollback", self.random.choice(("previous", "best")))

    def _reset(self) -> None:
        self._answered("reset", "--yes")

    def _reload(self) -> None:
        change_settings(self.config, self.random)
        self._answered("reload")

    def _answered(self, *words: str) -> None:
        done = self.ctl(*words)
        # There may be no checkpoint to go back to, and a trainer that was just killed does not answer.
        if done.returncode != 0 and "no such checkpoint" not in done.stderr and "no checkpoint" not in done.stderr:
            self.wrong(words[0], f"status {done.returncode}: {done.stdout}{done.stderr}")

    def _full_disk(self) -> None:
        with full(self.folder / "data"):
            version = self.control.get("version")
            self.watch(lambda: self.control.get("version") > version + 50, "versions rise while the disk is full")

    def _clients(self) -> None:
        self.counts["hostile frames"] += hostile_frames(self.port, self.random, 400)

    def _server(self) -> None:
        hostile_calls(self.name, self.random, 300, self.wrong)
        self.counts["hostile calls"] += 300

    def look_at_movement(self) -> None:
        """Once a minute: the weights are not those of a minute ago."""
        now = time.monotonic()
        if self.moved_at is not None and now < self.moved_at + 60:
            return
        if self.moved_at is not None:
            moved = float((self.flat.view(torch.float32) - self.last.view(torch.float32)).norm())
            self.counts["minutes in which the weights moved"] += moved > 1e-6
            if not moved > 1e-6:
                self.wrong("weights stood still", f"moved by {moved} in a minute, version {self.subscriber.version}")
        self.moved_at, self.last = now, self.flat.clone()

    def _publisher_died(self, pid: int) -> None:
        while is_same_process(pid, self.control.get("process.trainer.start_ticks")):
            time.sleep(0.001)
        if self.control.get("trainer.ready") != pid:
            return  # another one may be publishing already
        fresh = Subscriber(self.slots)
        if fresh.refresh(self.flat) is not Look.TAKEN:
            self.wrong("blocked", "the announced version could not be taken after the trainer's death")
        self.counts["taken after a death"] += 1

    def reconcile(self) -> None:
        """At a quiet moment everything adds up."""
        self.quiet.touch()
        try:
            if not self.watch(self._is_quiet, "a quiet moment"):
                return
            stats = buffer_stats(self.control)
            kinds = ("completed", "pending_count", "expired", "superseded", "dropped", "rejected", "lost")
            if stats["decided"] != sum(stats[kind] for kind in kinds):
                self.wrong("decisions", f"{stats}")
            if stats["total_added"] != stats["size"] + stats["overwritten"] + stats["cleared"]:
                self.wrong("records", f"{stats}")
            self.counts["quiet moments"] += 1
        finally:
            self.quiet.unlink()

    def _is_quiet(self) -> bool:
        if not self.owners():
            return False
        before = [self.control.lane(index)["decided"] for index in range(self.control.get("lanes"))]
        # The server looks for the file every 50 decisions.
        time.sleep(0.3)
        after = [self.control.lane(index)["decided"] for index in range(self.control.get("lanes"))]
        return before == after and bool(self.owners())

    def run(self, minutes: float) -> dict[str, Any]:
        """Start, strike for that long, stop; the counts."""
        with small_disk(self.folder / "data") as self.has_disk:
            return self._run(minutes)

    def _run(self, minutes: float) -> dict[str, Any]:
        started = time.monotonic()
        self.up()
        try:
            self.attach()
            self.watch(lambda: self.owners() and self.pid("trainer"), "everything runs")
            while time.monotonic() < started + 60 * minutes:
                until = time.monotonic() + self.random.uniform(0.1, 3.0)
                self.watch(lambda until=until: time.monotonic() > until, "time goes by")  # type: ignore[misc]
                self.strike()
                self.look_at_movement()
                if self.random.random() < 0.3:
                    self.disturb()
                if self.random.random() < 0.15:
                    self.reconcile()
            if not self.pid("supervisor"):
                self.up()
            self.reconcile()
            self.counts["versions"] = self.control.get("version")
            self.counts["records"] = buffer_stats(self.control)["total_added"]
            self.counts["lost"] = self.lost()
            if self.counts["versions"] == 0 or self.counts["reads"] == 0 or self.counts["rows"] == 0:
                self.wrong("nothing was proved", f"{dict(self.counts)}")
        finally:
            done = self.ctl("down")
            left = [entry for entry in os.listdir(FOLDER) if entry.startswith(f"{PREFIX}{self.name}.")]
            if left or done.returncode not in (0,):
                self.wrong("left behind", f"{left} {done.stdout}{done.stderr}")
        return {
            "minutes": round((time.monotonic() - started) / 60, 2),
            **self.counts,
            "violations": sum(self.violations.values()),
            "violated": dict(self.violations),
            "examples": self.examples,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tandem-soak-", ignore_cleanup_errors=True) as folder:
        sys.path.insert(0, folder)
        found = Soak(Path(folder), options.seed).run(options.minutes)
    print(json.dumps(found))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
