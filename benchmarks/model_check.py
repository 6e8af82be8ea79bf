"""What the check of a model adds to the creation of an instance: `python benchmarks/model_check.py [--json]`.

Each round is a process of its own, as the creator is: what the first training step imports counts. Timed is
`checked_model` with its helper process, from before the helper is forked until it is gone; not the import of torch. The
processor's time is that of both and, unlike the time on the clock, hardly depends on what else the machine does. The
memory is what the creator took at its peak beyond what it had before the first model; the helper's model comes on top.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from _kit import machine, rss_mb
from tandem.shared.application import ActionHead, Application
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.instance import seeded_model
from tandem.shared.model_checks.check import checked_model
from tandem.shared.model_checks.witness import witness

FEATURES = 40
WIDTHS = {"small": 100, "1 M": 1000, "25 M": 5000}
"""Units in each of two hidden layers; about 15 thousand, a million and 25 million parameters."""


class Network(torch.nn.Module):
    """Two hidden layers and one head of ten choices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()
        )
        self.head = torch.nn.Linear(width, 10)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.head(self.inner(observations)),)


def cpu_seconds() -> float:
    """Time that the processor spent on this process and on its children that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def once(width: int) -> dict[str, float]:
    """One check in this process: seconds on the clock and of the processor, parameters, megabytes."""
    names = tuple(f"f{index}" for index in range(FEATURES))
    application = Application("bench", names, (ActionHead("arm", 10),), functools.partial(Network, width))
    build = functools.partial(seeded_model, application)
    torch.set_num_threads(1)  # as the creator does
    before = rss_mb()
    started, used = time.perf_counter(), cpu_seconds()
    with witness(functools.partial(seeded_model, application, -1)) as other_process:
        flat = checked_model(application, ContinuousTrainingConfig(seed=1), build, other_process)
    seconds, used = time.perf_counter() - started, cpu_seconds() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before
    return {
        "parameters": sum(parameter.numel() for parameter in flat.model.parameters()),
        "seconds": seconds,
        "cpu_seconds": used,
        "weights_mb": flat.layout.data_bytes / 1e6,
        "peak_mb": peak,
    }


def run(rounds: int) -> dict[str, Any]:
    """The figures of every width, medians over `rounds` processes."""
    models = {}
    for name, width in WIDTHS.items():
        command = [sys.executable, __file__, "--once", str(width)]
        found = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(rounds)
        ]
        models[name] = {
            **{key: round(statistics.median(one[key] for one in found), 3) for key in found[0]},
            "seconds_least": round(min(one["seconds"] for one in found), 3),
            "seconds_most": round(max(one["seconds"] for one in found), 3),
        }
    return {"models": models, "rounds": rounds, "machine": machine()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", type=int, metavar="WIDTH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once is not None:
        print(json.dumps(once(options.once)))
        return 0
    result = run(options.rounds)
    if options.json:
        print(json.dumps(result))
        return 0
    for name, figures in result["models"].items():
        print(
            f"{name}: {figures['seconds']:.2f} s ({figures['seconds_least']:.2f} to {figures['seconds_most']:.2f}),"
            f" of the processor {figures['cpu_seconds']:.2f} s; {figures['peak_mb']:.0f} MB at the peak for"
            f" {figures['weights_mb']:.1f} MB of weights"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
