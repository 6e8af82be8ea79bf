"""Draws what simulate.py wrote: python plot.py FILE PICTURE"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTH = 500

with open(sys.argv[1], encoding="utf-8") as file:
    rows = json.load(file)
sums = [[0.0, 0.0, 0.0]]
for row in rows:
    sums.append([before + value for before, value in zip(sums[-1], row, strict=True)])
ends = range(WIDTH, len(rows) + 1)
shown, chance, best = (
    [100 * (sums[end][column] - sums[end - WIDTH][column]) / WIDTH for end in ends] for column in range(3)
)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for values, color, name in (
    (best, "#2da44e", "best possible"),
    (shown, "#1f6feb", "Tandem"),
    (chance, "#888888", "by chance"),
):
    axes.plot(ends, values, color=color, linewidth=1.5, label=name)
axes.set(xlabel="visits", ylabel="clicks, % of visits", xlim=(0, len(rows)), ylim=(0, 32))
axes.legend(loc="lower right", frameon=False, ncols=3)
axes.grid(alpha=0.25)
for side in ("top", "right"):
    axes.spines[side].set_visible(False)
figure.savefig(sys.argv[2], dpi=100)
