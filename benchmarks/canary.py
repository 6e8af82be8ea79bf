"""How a trial of a policy on a share of the decisions ends, in simulated time: `./ctl bench canary`.

Rewards are 0 or 1; the policy in force earns 0.3, and a tenth of the decisions is the trial's. Somebody looks every 500
decisions and stops as soon as the trial is decided. Asked for, of 100 trials of at most 1,000,000 decisions each: of a
policy that is no other at most 5 decided; of one that earns a tenth less at least 95 withdrawn; of one that earns a
tenth more at least 90 promoted.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from _kit import machine
from tandem.evaluation.sequential import PROMOTE, UNDECIDED, WITHDRAW, Trial

RATE, SHARE, LOOK = 0.3, 0.1, 500
CASES = {
    "the same policy": (1.0, UNDECIDED, 0.95),
    "a tenth less": (0.9, WITHDRAW, 0.95),
    "a tenth more": (1.1, PROMOTE, 0.90),
}
"""What is tried: times what the policy in force earns, how its trials must end, and in which share at least."""


def trial(factor: float, seed: int, most: int) -> Trial:
    """One trial, to its decision or the last of `most` decisions."""
    generator = np.random.default_rng(seed)
    found = Trial(SHARE)
    while found.decisions < most and found.decision == UNDECIDED:
        mine = generator.random(LOOK) < SHARE
        found.add(mine, (generator.random(LOOK) < np.where(mine, factor * RATE, RATE)).astype(float))
    return found


def case(name: str, runs: int, most: int) -> dict[str, Any]:
    """How the trials of one case ended, and after how many decisions those that were decided."""
    factor, wanted, least = CASES[name]
    ends: dict[str, int] = {UNDECIDED: 0, PROMOTE: 0, WITHDRAW: 0}
    lengths = []
    for run in range(runs):
        if sys.stderr.isatty():
            print(f"\r\033[K{name}: {run + 1} of {runs}", end="", file=sys.stderr, flush=True)
        found = trial(factor, run, most)
        ends[found.decision] += 1
        if found.decision != UNDECIDED:
            lengths.append(found.decisions)
    cuts = [int(cut) for cut in np.percentile(lengths, (50, 90))] if lengths else [0, 0]
    share = ends[wanted] / runs
    return {"case": name, "runs": runs, "ends": ends, "decisions_p50": cuts[0], "decisions_p90": cuts[1],
            "wanted": wanted, "share": share, "met": share >= least}  # fmt: skip


def main() -> int:
    """0 if every case ended as it is asked for, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="trials of each case (100)")
    parser.add_argument("--decisions", type=int, default=1_000_000, help="longest trial (1,000,000)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the machine last")
    options = parser.parse_args()
    is_met = True
    for name in CASES:
        line = case(name, options.runs, options.decisions)
        is_met &= line["met"]
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        ends = ", ".join(f"{count} {end}" for end, count in line["ends"].items())
        text = (
            f"{name:<18}{ends}; decided after {line['decisions_p50']:,} decisions (median), "
            f"{line['decisions_p90']:,} (90 %); {'as asked' if line['met'] else 'NOT as asked'}"
        )
        print(json.dumps(line) if options.json else text, flush=True)
    if options.json:
        print(json.dumps({"met": is_met, "machine": machine()}))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
