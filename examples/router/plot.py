"""Draws what simulate.py wrote: python plot.py FILE PICTURE"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTH = 100

with open(sys.argv[1], encoding="utf-8") as file:
    rows = json.load(file)
names = sorted({row[0] for row in rows})
ends = list(range(WIDTH, len(rows) + 1, 10))
figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4.6), layout="constrained", sharex=True)
for name in names:
    shares = [100 * sum(row[0] == name for row in rows[end - WIDTH : end]) / WIDTH for end in ends]
    top.plot(ends, shares, linewidth=1.5, label=name)
top.set(ylabel="answers, %", xlim=(0, len(rows)), ylim=(0, 100))
top.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
lost = [sum(row[3] - row[2] for row in rows[end - WIDTH : end]) / WIDTH for end in ends]
bottom.plot(ends, lost, color="#1f6feb", linewidth=1.5)
bottom.set(xlabel="prompts", ylabel="worth lost to the best", ylim=(0, None))
for axes in (top, bottom):
    axes.axvline(len(rows) // 2, color="#888888", linewidth=1)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
figure.savefig(sys.argv[2], dpi=80)
