"""What the measurements of decisions share: an instance of their own, observations, cores kept awake, percentiles."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tandem.queen.observation import Observation, parse_observation
from tandem.queen.world import World
from tandem.shared.configuration.config import parse
from tandem.shared.instance import create_instance
from tandem.shared.memory.segments import remove_instance

_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[2]):
    for _ in range(100000):
        pass
"""


@contextlib.contextmanager
def awake_cores() -> Iterator[None]:
    """Keep every core from halting with a process that runs only when nobody else wants to (SCHED_IDLE).

    A halted virtual core takes about 0.1 ms to wake, which would be measured with every paced decision.
    """
    spinners = [
        subprocess.Popen([sys.executable, "-c", _SPIN, str(core), str(os.getpid())])
        for core in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def end_like_ctrl_c() -> None:
    """From now on a time limit's SIGTERM ends this process as Ctrl-C does: what it started is stopped and removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextlib.contextmanager
def bench_instance(**sections: Any) -> Iterator[str]:
    """The name of a new instance of the Queen, removed afterwards; `sections` are merged into its configuration."""
    name = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        create_instance(name, parse(bench_config(Path(folder), **sections), "the benchmark's configuration", folder))
        try:
            yield name
        finally:
            remove_instance(name)


def bench_config(folder: Path, **sections: Any) -> dict[str, Any]:
    """A configuration as plain data; writes the gate's file beside it."""
    (folder / "simulation_gate.yaml").write_text("{}\n", encoding="utf-8")
    plain: dict[str, Any] = {"data_dir": str(folder / "data"), "logging": {"level": "error"}}
    for section, values in sections.items():
        plain[section] = {**plain.get(section, {}), **values}
    return plain


def write_config(folder: Path, **sections: Any) -> Path:
    """`bench_config` as a file."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(bench_config(folder, **sections)), encoding="utf-8")
    return path


def raw_observations(count: int, territories: int = 8, seed: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """`count` (territory, `data` object) of simulated worlds in which parasites are spawned now and then."""
    worlds = [World(seed * 100 + index) for index in range(territories)]
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        index = number % territories
        world = worlds[index]
        world.advance(15.0)
        data = {**world.observation(), "territoryId": f"territory_{index}"}
        world.spawn(int(rng.integers(400)), ("energy", "combat")[int(rng.integers(2))])
        found.append((f"territory_{index}", data))
    return found


def observations(count: int, territories: int = 8, seed: int = 1) -> list[tuple[str, Observation]]:
    """`raw_observations`, parsed."""
    return [(key, parse_observation(data)) for key, data in raw_observations(count, territories, seed)]


def percentiles(nanoseconds: Sequence[int], unit: float = 1e3) -> dict[str, float]:
    """p50, p99, p999 and the largest, in microseconds (or with `unit` 1e6 milliseconds)."""
    values = np.asarray(nanoseconds, dtype=np.float64) / unit
    cuts = np.percentile(values, (50, 99, 99.9)) if len(values) else np.zeros(3)
    figures = (*cuts, values.max() if len(values) else 0.0)
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "p999", "max"), figures, strict=True)}


def rss_mb() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2)


def machine() -> dict[str, Any]:
    """What was measured on."""
    import torch

    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }
