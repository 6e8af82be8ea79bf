"""Draws what play.py wrote: python plot.py FILE PICTURE"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTH = 200

with open(sys.argv[1], encoding="utf-8") as file:
    right = json.load(file)
sums = [0]
for value in right:
    sums.append(sums[-1] + value)
ends = range(WIDTH, len(right) + 1)
shares = [(sums[end] - sums[end - WIDTH]) / WIDTH for end in ends]
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
axes.plot(ends, shares, color="#1f6feb", linewidth=1.5)
axes.axhline(0.1, color="#888888", linestyle="--", linewidth=1)
axes.text(len(right), 0.115, "by chance", ha="right", va="bottom", color="#666666", fontsize=9)
axes.set(xlabel="images", ylabel=f"right, of the last {WIDTH}", xlim=(0, len(right)), ylim=(0, 1.0))
axes.grid(alpha=0.25)
for side in ("top", "right"):
    axes.spines[side].set_visible(False)
figure.savefig(sys.argv[2], dpi=100)
