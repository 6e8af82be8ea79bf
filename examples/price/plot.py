"""Draws what simulate.py wrote: python plot.py FILE PICTURE"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTH = 200

with open(sys.argv[1], encoding="utf-8") as file:
    rows = json.load(file)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
ends = list(range(WIDTH, len(rows) + 1, 10))
for column, color, name in ((3, "#2da44e", "best prices"), (2, "#1f6feb", "Tandem")):
    means = [sum(row[column] for row in rows[end - WIDTH : end]) / WIDTH for end in ends]
    left.plot(ends, means, color=color, linewidth=1.5, label=name)
left.set(xlabel="customers", ylabel="earned by each", xlim=(0, len(rows)), ylim=(0, None))
left.legend(frameon=False, loc="lower right")
for part, color, name in ((rows[:300], "#bbbbbb", "first 300"), (rows[-300:], "#1f6feb", "last 300")):
    right.scatter([row[1] for row in part], [row[0] for row in part], s=6, color=color, label=name)
right.plot([6, 18], [6, 18], color="#2da44e", linewidth=1)
right.set(xlabel="best price", ylabel="price")
right.legend(frameon=False, loc="upper left")
for axes in (left, right):
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
figure.savefig(sys.argv[2], dpi=100)
