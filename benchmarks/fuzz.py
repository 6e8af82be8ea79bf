"""Feed hostile values to every entry of a running instance, and see that nobody else notices.

`python benchmarks/fuzz.py --minutes 10` starts a real instance by `ctl`: trainer, the bundled server, supervisor. A
client over WebSocket and an engine of this process play honestly the whole time; between their turns one entry after
the other gets hostile values: the engine's calls, WebSocket frames, HTTP requests, the files of the data folder, and
the shared memory itself (as a faulty process of the same user would write it). After each round:

- the honest client and the honest engine got every decision and every reward accepted (promise 43);
- the record of an honest decision holds its observation, its action and its reward;
- an engine can attach, a killed server comes back and loses at most one decision (promises 13 and 43);
- versions rise and the weights move (promise 41);
- while only the calls were fuzzed, every decision is accounted for.

One line of JSON with counts is printed at the end; the exit status is 1 if there was any violation. The same seed
gives the same hostile values.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _hostile
import numpy as np
import torch
import yaml
from tandem.inference_proc.engine import Engine
from tandem.shared.errors import TandemError
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.memory.processes import is_same_process
from tandem.shared.memory.rows import PREFIX_BYTES, checksum
from tandem.shared.memory.segments import FOLDER, PREFIX, segment_path
from tandem.shared.telemetry.stats import buffer_stats
from tandem.supervisor.display import status
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[1]
APPLICATION = '''
"""Which of three lights to switch on from how dark it is."""
import torch
from tandem.shared.application import ActionHead, Application


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def forward(self, observations):
        return (self.layers(observations),)


def create(settings, folder):
    return Application("fuzz_application", ("hour", "darkness"), (ActionHead("light", 3, ("a", "b", "c")),), Model)
'''
REFUSED = (ValueError, TypeError, ArithmeticError, TandemError)
"""What an entry may raise at whoever sends nonsense. (FloatingPointError is an ArithmeticError.)"""
HEADER = 4096


class HonestClient(threading.Thread):
    """Decides and rewards over WebSocket; `faults` says what was not as it should be."""

    def __init__(self, port: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.faults: list[str] = []
        self.turns = 0
        self.is_killed = threading.Event()
        """Set while the server is killed on purpose: a broken connection is no fault then."""
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._stop_asked.set()
        self.join(30)

    def run(self) -> None:
        """Play until `stop`."""
        source = random.Random(7)
        while not self._stop_asked.is_set():
            try:
                with connect(f"ws://127.0.0.1:{self._port()}/ws", proxy=None, compression=None) as channel:
                    while not self._stop_asked.is_set():
                        self._turn(channel, source)
                        self._stop_asked.wait(0.004)
            except (OSError, WebSocketException, TimeoutError) as error:
                if not self.is_killed.is_set():
                    self.faults.append(f"connection: {error!r}")
                self._stop_asked.wait(0.2)

    def _turn(self, channel: Any, source: random.Random) -> None:
        key, darkness = f"honest-{self.turns % 50}", source.random()
        channel.send(json.dumps({"type": "decide", "key": key, "observation": [0.5, darkness]}))
        answer = json.loads(channel.recv(timeout=10))
        if answer["type"] != "decision":
            self.faults.append(f"decide: {answer}")
            return
        value = float(answer["data"]["action"][0] == int(darkness * 3))
        channel.send(json.dumps({"type": "reward", "key": key, "value": value}))
        answer = json.loads(channel.recv(timeout=10))
        if not self.is_killed.is_set() and answer["data"].get("accepted", answer["data"].get("matched")) is False:
            self.faults.append(f"reward: {answer}")
        self.turns += 1


class Fuzz:
    """One run: the instance, the honest parties, the hostile rounds, and what was counted."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.name = f"fuzz-{os.getpid()}"
        self.source = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self.examples: list[str] = []
        self.is_counted = True
        """False once counters in shared memory were overwritten: the sums cannot agree any more."""
        (folder / "fuzz_application.py").write_text(APPLICATION, encoding="utf-8")
        config = {
            "application": "fuzz_application",
            "data_dir": str(folder / "data"),
            "trainer": {"training_interval": 0.05, "buffer_capacity": 500, "checkpoint_interval": 2.0},
            "inference": {"port": _free_port(), "lanes": 4, "pending_capacity": 256, "pending_timeout": 20.0},
            "supervisor": {"backoff_first": 0.05, "backoff_limit": 0.2, "max_restarts": 1000},
            "logging": {"level": "error"},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    # What is run and looked at.

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command."""
        command = [sys.executable, str(ROOT / "ctl"), *words, "--instance", self.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=self.folder)

    def wrong(self, what: str, example: object) -> None:
        """Count a violation."""
        self.violations[what] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{what}: {str(example)[:400]}")

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 60.0) -> bool:
        """True as soon as `condition` holds; a violation if it does not in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.wrong(what, f"not within {timeout:g} s")
                return False
            self.honest()
            time.sleep(0.005)
        return True

    def port(self) -> int:
        """The bundled server's port."""
        return int(self.control.get("supervisor.port"))

    def attach(self) -> Engine:
        """An engine of this process."""
        return Engine.attach(self.name, timeout=30)

    def honest(self) -> None:
        """One honest decision and its reward at the engine of this process."""
        darkness = self.source.random()
        try:
            decision = self.engine.decide("honest", [0.25, darkness])
            value = float(decision.action[0] == int(darkness * 3))
            if not self.engine.reward("honest", value):
                self.wrong("honest reward", "it was not accepted")
            self.engine.beat()
        except Exception as error:
            self.wrong("honest decision", repr(error))
            return
        self.counts["honest decisions"] += 1
        self.last = (np.array([0.25, darkness], np.float32), decision.action, value)

    def weights(self) -> torch.Tensor:
        """A copy of the newest weights: float32[n]."""
        state = self.engine.get_model_for_inference().state_dict()
        return torch.cat([tensor.detach().flatten().clone() for tensor in state.values()])

    # The hostile rounds.

    def round_engine(self) -> None:
        """The calls of an engine in the host's process."""
        for _ in range(60):
            way = self.source.randrange(6)
            key = self.source.choice(_hostile.KEYS) if self.source.random() < 0.4 else "hostile"
            if way == 0:
                self.call(self.engine.decide, key, _hostile.observation(self.source))
            elif way == 1:
                self.call(self.engine.reward, key, self.source.choice(_hostile.NUMBERS))
            elif way == 2:
                self.many()
            elif way == 3:
                self.call(self.engine.failed, key, self.source.choice(((0,), (5,), (), None, 1, (10**40,))))
            elif way == 4:
                self.call(self.engine.forget, key)
            else:
                self.call(self.hostile.reward, self.source.choice(("honest", "hostile", "honest-3")), 10**39)

    def call(self, entry: Callable[..., Any], *arguments: Any) -> None:
        """One hostile call: it may refuse, in one of the ways that are allowed."""
        self.counts["hostile calls"] += 1
        try:
            entry(*arguments)
        except REFUSED:
            self.counts["refused calls"] += 1
        except Exception as error:
            self.wrong(f"{entry.__name__} raised {type(error).__name__}", f"{arguments!r:.200} {error}")

    def many(self) -> None:
        """One batch with hostile requests in it: the honest ones are decided."""
        good = [(f"among-{index}", [0.5, self.source.random()], "") for index in range(3)]
        batch = [good[0], _hostile.request(self.source), good[1], _hostile.request(self.source), good[2]]
        self.counts["hostile calls"] += 1
        try:
            results = self.engine.decide_many(batch)
        except Exception as error:
            self.wrong("decide_many raised", f"{batch!r:.300} {error!r}")
            return
        for place in (0, 2, 4):
            if isinstance(results[place], Exception):
                self.wrong("an innocent of a batch failed", f"{batch!r:.300} {results[place]!r}")

    def round_websocket(self) -> None:
        """Frames of hostile clients."""
        for _ in range(6):
            with (
                contextlib.suppress(OSError, WebSocketException, TimeoutError),
                connect(f"ws://127.0.0.1:{self.port()}/ws", proxy=None, compression=None, close_timeout=0.2) as channel,
            ):
                for _ in range(40):
                    channel.send(_hostile.frame(self.source))
                    self.counts["hostile frames"] += 1
                if self.source.random() < 0.5:
                    channel.recv(timeout=5)
            self.honest()

    def round_http(self) -> None:
        """Requests of hostile clients."""
        for _ in range(40):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port()), 5) as channel:
                channel.settimeout(0.05 if self.source.random() < 0.5 else 0.3)
                channel.sendall(_hostile.http(self.source, self.port()))
                self.counts["hostile requests"] += 1
                channel.recv(65536)
        self.honest()

    def round_memory(self) -> None:
        """Rows, entries and forwarded rewards that a faulty process of the same user left in a lane of its own."""
        self.is_counted = False
        lane = self.hostile.lane.index
        for part in (f"ring{lane}", f"pending{lane}", f"mail{lane}"):
            self._spoil(part)
        for name in ("head", "floor", "mail_head", "pending", "decided"):
            if self.source.random() < 0.3:
                value = self.source.choice((0, 1, 499, 2**32, 2**63 - 1, 2**63, 2**64 - 1))
                self.control.set(f"lane.{lane}.{name}", value)
                self.counts["hostile words"] += 1
        self.honest()
        # Whoever takes the lane next finds all of that.
        self.hostile.close()
        try:
            self.hostile = self.attach()
        except Exception as error:
            self.wrong("attach after hostile memory", repr(error))
            return
        for index in range(20):
            self.call(self.hostile.decide, f"after-{index}", [0.5, 0.5])
            self.call(self.hostile.reward, f"after-{index}", 1.0)
        self.call(self.hostile.beat)

    def _spoil(self, part: str) -> None:
        """Fill some rows of a segment with hostile bytes under a number and a checksum that are right."""
        path = segment_path(self.name, part)
        with open(path, "r+b") as file:
            head = np.lib.format
            head.read_magic(file)
            shape, _, dtype = head.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
            size = dtype.itemsize
            for _ in range(20):
                place = self.source.randrange(shape[0])
                body = bytearray(self.source.randbytes(size - PREFIX_BYTES))
                for _ in range(3 if len(body) >= 4 else 0):
                    at = self.source.randrange(len(body) // 4) * 4
                    body[at : at + 4] = struct.pack("<f", self.source.choice((1e38, -1e38, float("nan"), 0.0, 1.0)))
                number = self.source.choice((place + 1, int.from_bytes(body[:8], "little"), 2**64 - 1))
                row = struct.pack("<QQ", number, checksum(bytes(body), number)) + bytes(body)
                file.seek(HEADER + place * size)
                file.write(row if self.source.random() < 0.8 else self.source.randbytes(size))
                self.counts["hostile rows"] += 1

    def round_files(self) -> None:
        """Damaged files in the data folder, and a trainer that has to start from them."""
        folder = self.folder / "data" / self.name
        files = [path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts]
        self.source.shuffle(files)
        for path in files[:3]:
            with contextlib.suppress(OSError):
                data = bytearray(path.read_bytes())
                way = self.source.randrange(4)
                if way == 0:
                    data = data[: self.source.randrange(len(data) + 1)]
                elif way == 1 and data:
                    data[self.source.randrange(len(data))] ^= 1 << self.source.randrange(8)
                elif way == 2:
                    data = bytearray(b"[]")
                path.write_bytes(data if way < 3 else self.source.randbytes(100))
                self.counts["hostile files"] += 1
        self._kill("trainer")

    def round_kill(self) -> None:
        """The server is killed under the fuzz."""
        before = self._lost()
        self.client.is_killed.set()
        self._kill("inference")
        self.wait(lambda: status.status(self.name)["inference"]["state"] == "running", "the server came back")
        time.sleep(0.5)
        self.client.is_killed.clear()
        if self.is_counted and self._lost() - before > 1:
            self.wrong("lost", f"{self._lost() - before} with one kill")

    def _lost(self) -> int:
        return sum(self.control.get(f"lane.{index}.lost") for index in range(self.control.get("lanes")))

    def _kill(self, name: str) -> None:
        pid, ticks = self.control.get(f"process.{name}.pid"), self.control.get(f"process.{name}.start_ticks")
        if is_same_process(pid, ticks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.counts[f"killed {name}"] += 1
            self.wait(lambda: self.control.get(f"process.{name}.pid") not in (0, pid), f"{name} is started again")

    # What must hold after each round.

    def look(self, what: str) -> None:
        """Everything that a round must have left as it was."""
        if self.client.faults:
            for fault in self.client.faults[:3]:
                self.wrong(f"the honest client, after {what}", fault)
            self.client.faults.clear()
        turns = self.client.turns
        self.wait(lambda: self.client.turns > turns + 5, f"the honest client plays on, after {what}")
        self._moves(what)
        self._record_is_right(what)
        try:
            fresh = self.attach()
            fresh.decide("fresh", [0.1, 0.2])
            fresh.forget("fresh")
            fresh.close()
        except Exception as error:
            self.wrong(f"a fresh engine, after {what}", repr(error))
        if self.is_counted:
            self._adds_up(what)
        self.counts["looks"] += 1

    def _moves(self, what: str) -> None:
        before, version = self.weights(), self.engine.model_version
        if not self.wait(lambda: self.engine.model_version >= version + 10, f"versions rise, after {what}"):
            return
        moved = float((self.weights() - before).norm())
        if not moved > 0.0:
            self.wrong(f"the weights move, after {what}", f"by {moved} in 10 versions")

    def _record_is_right(self, what: str) -> None:
        self.honest()
        lane = self.engine.lane
        observation, action, value = self.last
        row = lane.ring.record(lane.get("head"))
        seen = (row["observation"], tuple(int(choice) for choice in row["action"]), float(row["actual_reward"]))
        if not np.array_equal(seen[0], observation) or seen[1:] != (action, value):
            self.wrong(f"the record of a decision, after {what}", f"{seen} is not {self.last}")

    def _adds_up(self, what: str) -> None:
        """The lane of this process is quiet now: every decision made in it is accounted for."""
        lane = self.engine.get_stats()["lane"]
        kinds = ("completed", "pending", "expired", "superseded", "dropped", "rejected", "lost")
        if lane["decided"] != sum(lane[kind] for kind in kinds):
            self.wrong(f"the sums, after {what}", {name: lane[name] for name in ("decided", *kinds)})

    def run(self, seconds: float) -> dict[str, Any]:
        """Start, play hostile rounds for that long, stop; the counts."""
        started = time.monotonic()
        done = self.ctl("up", "-d", "--config", str(self.folder / "config.yaml"))
        try:
            if done.returncode != 0:
                self.wrong("up", f"{done.stdout}{done.stderr}")
                return self.found(started)
            self.engine, self.hostile = self.attach(), self.attach()
            self.control = self.engine.control
            self.reader = ReplayReader(self.control, self.engine.instance.records)
            self.client = HonestClient(self.port)
            self.client.start()
            rounds = [self.round_engine, self.round_websocket, self.round_http, self.round_kill, self.round_files]
            played: set[str] = set()
            while time.monotonic() < started + seconds or self.round_memory.__name__ not in played:
                if len(played) == len(rounds) and time.monotonic() > started + seconds / 2:
                    # Last, since the sums do not hold any more once the counters were overwritten.
                    rounds.append(self.round_memory)
                fresh = [play for play in rounds if play.__name__ not in played]
                play = fresh[0] if fresh else self.source.choice(rounds)
                played.add(play.__name__)
                play()
                self.counts["rounds"] += 1
                self.look(play.__name__.removeprefix("round_"))
            self.client.stop()
            self.counts["honest turns"] = self.client.turns
            self.counts["versions"] = self.control.get("version")
            self.counts["records"] = buffer_stats(self.control)["total_added"]
            self.engine.close()
            self.hostile.close()
        finally:
            self._end()
        return self.found(started)

    def _end(self) -> None:
        done = self.ctl("down")
        left = [entry for entry in os.listdir(FOLDER) if entry.startswith(f"{PREFIX}{self.name}.")]
        if left or done.returncode != 0:
            self.wrong("left behind", f"{left} {done.stdout}{done.stderr}")
            self.ctl("down", "--discard")

    def found(self, started: float) -> dict[str, Any]:
        """What is printed."""
        return {
            "minutes": round((time.monotonic() - started) / 60, 2),
            **self.counts,
            "violations": sum(self.violations.values()),
            "violated": dict(self.violations),
            "examples": self.examples,
        }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tandem-fuzz-") as folder:
        sys.path.insert(0, folder)
        found = Fuzz(Path(folder), options.seed).run(60 * options.minutes)
    print(json.dumps(found))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
