"""A real instance for each play of bandits.py: started by `ctl up -d`, decided for by an engine in this process.

The trainer is a process of its own, under a supervisor, with the settings that are installed; decisions are paced on
the monotonic clock.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _bandit_application as application
import numpy as np
import yaml
from _bandit_sets import Classes
from numpy.typing import NDArray
from tandem.inference_proc.engine import Engine
from tandem.supervisor import cleanup

BEAT = 0.5
"""Seconds between two beats."""
LATEST = 0.05
"""Seconds of delay after which the pace starts anew: what was missed is not made up for by a burst."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Played:
    """One play: its rewards, and how the instance fared."""

    rewards: NDArray[np.float64]
    figures: dict[str, Any]


class Live:
    """A running instance with a trainer that is ready, and the engine that decides for it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.engine = self._attach()

    def _attach(self) -> Engine:
        engine = Engine.attach(self.name)
        engine.mark_ready()
        return engine

    def attach_again(self) -> None:
        """End the engine and attach another, as a server does that is started anew."""
        self.engine.close()
        self.engine = self._attach()

    def restart_trainer(self) -> subprocess.Popen[str]:
        """`ctl restart trainer`; returns at once."""
        return _ctl(self.folder, "restart", "trainer", "--instance", self.name)

    def figures(self) -> dict[str, Any]:
        """What the trainer did so far, and whether it was in order."""
        get = self.engine.control.get
        stats = self.engine.get_stats()
        return {
            "version": self.engine.model_version,
            "steps": get("metrics.total_steps"),
            "samples": get("metrics.total_samples"),
            "refused_steps": get("metrics.refused"),
            "failed_steps": get("metrics.total_errors"),
            "rollbacks": get("metrics.guard_rollbacks"),
            "errors": stats["lane"]["errors"],
        }


def configuration(features: int, choices: int, changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration that says nothing but which application and that this process decides; `changes` are added."""
    plain: dict[str, Any] = {
        "application": application.__name__,
        "settings": {"features": features, "choices": choices},
        "inference": {"command": "none"},
    }
    for section, values in changes.items():
        plain[section] = {**plain.get(section, {}), **values} if isinstance(values, dict) else values
    return plain


def _ctl(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tandem.supervisor", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def running(features: int, choices: int, changes: dict[str, Any]) -> Iterator[Live]:
    """An instance of its own that is ready to decide and to train, gone afterwards with everything it learned.

    Raises RuntimeError with the words of `ctl up` if it does not come up.
    """
    name = f"bandits-{os.getpid()}-{next(_numbers)}"
    with tempfile.TemporaryDirectory(prefix="tandem-bandits-") as path:
        folder = Path(path)
        # Deciding and training process find it beside the configuration. Here the original is imported, and equal.
        shutil.copy(application.__file__, folder)
        plain = {**configuration(features, choices, changes), "data_dir": str(folder / "data")}
        (folder / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
        live = None
        try:
            up = _ctl(folder, "up", "-d", "--instance", name, "--config", "config.yaml")
            said = up.communicate()[0]
            if up.returncode:
                raise RuntimeError(said.strip())
            live = Live(folder, name)
            yield live
        finally:
            if live is not None:
                live.engine.close()
            cleanup.stop_instance(name, discard=True)


class Pace:
    """Moments at which decisions are due, on the monotonic clock."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.late = 0
        self.started = self.due = time.monotonic()

    def wait(self) -> float:
        """Sleep until the next decision is due; the seconds since the start at which it is made."""
        left = self.due - time.monotonic()
        if left > 0:
            time.sleep(left)
        now = time.monotonic()
        if now - self.due > LATEST:
            self.late += 1
            self.due = now
        self.due += 1.0 / self.rate
        return now - self.started


def pace_figures(durations: list[int], elapsed: float, pace: Pace) -> dict[str, Any]:
    """How fast it decided: the rate that was reached, and how long `decide` took, milliseconds."""
    values = np.asarray(durations, np.float64) / 1e6
    return {
        "decisions": len(durations),
        "rate": round(len(durations) / elapsed, 1) if elapsed else 0.0,
        "late": pace.late,
        "p50_ms": round(float(np.percentile(values, 50)), 3),
        "p99_ms": round(float(np.percentile(values, 99)), 3),
    }


def play(classes: Classes, seed: int, rate: float, limit: int, changes: dict[str, Any]) -> Played:
    """One pass of one set by a fresh instance: each reward is given at once, for the choice that was made."""
    order = classes.order(seed, limit)
    rows, answers = classes.x[order], classes.y[order].tolist()
    rewards = np.zeros(len(order))
    durations: list[int] = []
    with running(classes.x.shape[1], classes.choices, changes) as live:
        engine = live.engine
        pace, next_beat = Pace(rate), 0.0
        for number, answer in enumerate(answers):
            now = pace.wait()
            if now >= next_beat:
                engine.beat()
                next_beat = now + BEAT
            started = time.perf_counter_ns()
            decision = engine.decide("example", rows[number])
            durations.append(time.perf_counter_ns() - started)
            rewards[number] = float(decision.action[0] == answer)
            engine.reward("example", rewards[number])
        elapsed = time.monotonic() - pace.started
        return Played(rewards, {**pace_figures(durations, elapsed, pace), **live.figures()})
