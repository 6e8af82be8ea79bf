"""What the soak does to a running instance besides killing: operators' commands, a full disk, hostile clients."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import _hostile
import yaml
from tandem.inference_proc.engine import Engine
from tandem.shared.errors import TandemError
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

DISK_BYTES = 64_000_000


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of DISK_BYTES at `folder`; False (and a plain folder) if this user may not mount one."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no room on the file system of `folder` inside of the block."""
    filler = folder / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x")
        yield
    finally:
        filler.unlink(missing_ok=True)


def change_settings(config: Path, source: random.Random) -> None:
    """Give the configuration file another learning rate and another temperature."""
    plain = yaml.safe_load(config.read_text(encoding="utf-8"))
    plain["trainer"]["learning_rate"] = source.choice((0.001, 0.003, 0.01))
    plain["inference"]["temperature"] = source.choice((0.8, 1.0, 1.2))
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")


def hostile_frames(port: int, source: random.Random, count: int) -> int:
    """Send hostile frames over connections of their own; how many went out."""
    sent = 0
    for _ in range(count // 40):
        with (
            contextlib.suppress(OSError, WebSocketException, TimeoutError),
            connect(
                f"ws://127.0.0.1:{port}/ws", proxy=None, compression=None, open_timeout=5, close_timeout=0.2
            ) as channel,
        ):
            for _ in range(40):
                channel.send(_hostile.frame(source))
                sent += 1
    return sent


def hostile_calls(instance: str, source: random.Random, count: int, wrong: Callable[[str, str], None]) -> None:
    """Another server process whose host passes on nonsense, and rewards decisions of others out of all range."""
    try:
        engine = Engine.attach(instance, timeout=30)
    except TandemError as error:
        wrong("attach", repr(error))
        return
    try:
        for _ in range(count):
            key = source.choice((*_hostile.KEYS, *(f"key-{number}" for number in range(40))))
            try:
                if source.random() < 0.5:
                    engine.decide(key, _hostile.observation(source))
                else:
                    engine.reward(key, source.choice(_hostile.NUMBERS))
            except (ValueError, TypeError, ArithmeticError, TandemError):
                continue
            except Exception as error:
                wrong("a hostile call", repr(error))
    finally:
        engine.close()
