"""What the choices in reward regression are worth: `./ctl bench choices`.

Each row changes one thing of the learner and plays scenarios of bandits.py in simulated time (see _bandit_simulated),
the same visits for all. The figure is the share of the way from a choice by chance to the best one, the mean over the
seeds; docs/learning.md has the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from _bandit_scenarios import SCENARIOS
from _bandit_simulated import Draw, Simulation, half_recent, uniform
from tandem.trainer_proc.regression import linear, reward_regression, stacking

PLAYED = ("stationary", "noisy-clicks", "abrupt-drift", "slow-drift", "shop")


def _always(*shares: float) -> Any:
    return lambda _: torch.tensor(shares, dtype=torch.float64)


def _shares(*shares: float) -> tuple[Any, str, Any]:
    return stacking.Stacking, "shares", _always(*shares)


CHOICES: dict[str, list[tuple[Any, str, Any]]] = {
    "as installed": [],
    "the network alone": [_shares(0.0, 0.0, 1.0)],
    "the linear path alone": [_shares(1.0, 0.0, 0.0)],
    "half of each": [_shares(0.5, 0.0, 0.5)],
    "no short memory": [(stacking, "_CLEARLY", math.inf)],
    "the short memory at 2 standard errors": [(stacking, "_CLEARLY", 2.0)],
    "a short memory of 100": [(linear, "MEMORIES", (20_000, 100))],
    "a short memory of 1,000": [(linear, "MEMORIES", (20_000, 1000))],
    "gamma halved": [(reward_regression, "_SHARPNESS", 4.0)],
    "gamma doubled": [(reward_regression, "_SHARPNESS", 16.0)],
    "a ridge of 10": [(linear, "_RIDGE", 10.0)],
}
"""What is changed, and where: (owner, attribute, value)."""
DRAWS: dict[str, Draw] = {"uniform sampling": uniform}


@contextlib.contextmanager
def changed(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """With these values in place."""
    with contextlib.ExitStack() as stack:
        for owner, attribute, value in changes:
            stack.enter_context(mock.patch.object(owner, attribute, value))
        yield


def main(arguments: list[str] | None = None) -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(prog="ctl bench choices", description=(__doc__ or "").partition("\n")[0])
    names = [*CHOICES, *DRAWS]
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="passes of each scenario (3)")
    parser.add_argument("--scenarios", nargs="+", default=list(PLAYED), choices=PLAYED, metavar="NAME")
    parser.add_argument("--choices", nargs="+", default=names, choices=names, metavar="TEXT", help="only these rows")
    parser.add_argument("--json", action="store_true", help="one object a line, with the share of every seed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    width = max(map(len, names))
    if not options.json:
        print(" " * width, *(f"{name:>13}" for name in options.scenarios), flush=True)
    for name in options.choices:
        shares: dict[str, list[float]] = {}
        with changed(CHOICES.get(name, [])):
            for scenario in options.scenarios:
                shares[scenario] = [
                    Simulation(SCENARIOS[scenario], seed, DRAWS.get(name, half_recent)).run()
                    for seed in range(options.seeds)
                ]
        if options.json:
            print(json.dumps({"choice": name, "shares": shares}), flush=True)
        else:
            print(f"{name:{width}}", *(f"{statistics.fmean(found):13.2f}" for found in shares.values()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
