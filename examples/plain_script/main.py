"""Moves a vent, and learns from how the greenhouse does."""

import os
import random
import statistics
import sys
import time

from tandem import Engine

engine = Engine.attach(os.environ.get("TANDEM_INSTANCE", "greenhouse"))
earned = []
end = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 10)
while time.monotonic() < end:
    inside, outside = random.random(), random.random()
    decision = engine.decide("vent", (inside, outside))
    wanted = 0 if inside < 0.4 else 1 if inside < 0.7 else 2
    earned.append(1.0 - abs(decision.action[0] - wanted))
    engine.reward("vent", earned[-1])
    time.sleep(0.002)
first, last = (statistics.fmean(part) for part in (earned[:200], earned[-200:]))
print(f"version {engine.model_version}: {len(earned)} decisions; the first 200 earned {first:.2f}, the last {last:.2f}")
engine.close()
