"""How fresh the weights are: the time from a reward to the first decision by weights that were trained after it.

`python benchmarks/freshness.py [--seconds N] [--rates 200,1000] [--json]`: an application of 16 numbers and 6 choices
without a model of its own, a supervised instance, decisions at a steady rate, each rewarded at once; with the installed
settings and with `training_interval: 0.02`. The first 3 seconds, in which the trainer starts, do not count.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from _bandit_live import BEAT, Pace, running
from tandem.shared.memory.durations import FRESHNESS
from tandem.shared.telemetry.snapshot import Snapshot

FEATURES, CHOICES, WARM_UP = 16, 6, 3.0


def play(rate: float, seconds: float, trainer: dict[str, Any]) -> dict[str, Any]:
    """Decide at a steady rate; percentiles in milliseconds, and how many rewards they are of."""
    rng, before, decided, next_beat = np.random.default_rng(1), None, 0, 0.0
    with running(FEATURES, CHOICES, {"trainer": trainer}) as live:
        engine, pace = live.engine, Pace(rate)
        while (now := pace.wait()) < WARM_UP + seconds:
            if now >= next_beat:
                engine.beat()
                next_beat = now + BEAT
            if before is None and now >= WARM_UP:
                before, decided = Snapshot(engine.control).freshness_counts, 0
            observation = rng.random(FEATURES)
            decision = engine.decide("visitor", observation)
            engine.reward("visitor", float(decision.action[0] == int(observation[0] * CHOICES)))
            decided += 1
        counts = Snapshot(engine.control).freshness_counts
    fresh = [after - then for after, then in zip(counts, before or counts, strict=True)]
    shares = {name: round(1e3 * FRESHNESS.percentile(fresh, share), 1) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"rate": rate, "reached": round(decided / seconds, 1), "rewards": sum(fresh), **shares}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rates", default="200,1000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [
        {"settings": name, **play(float(rate), options.seconds, trainer)}
        for name, trainer in (("installed", {}), ("training_interval: 0.02", {"training_interval": 0.02}))
        for rate in options.rates.split(",")
    ]
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for row in found:
        print(
            f"{row['settings']:24} {row['rate']:6.0f}/s asked, {row['reached']:6.0f}/s reached:"
            f" p50 {row['p50']:.0f} ms, p99 {row['p99']:.0f} ms of {row['rewards']:,} rewards"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
