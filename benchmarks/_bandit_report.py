"""The figures of bandits.py: means and ratios of a set, the sign test, the targets, the table and the plot."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from _bandit_peers import EXPLORATIONS, PEERS
from numpy.typing import NDArray

POINTS = 200
"""Points of a drawn curve."""
TANDEM = "tandem"


@dataclasses.dataclass
class Result:
    """One set: for every arm and seed the mean reward (None: it failed), and for Tandem how each play fared.

    `curves`: progressive reward by arm, the mean of the seeds, at POINTS places. `failures`: what did not end and why.
    """

    name: str
    decisions: int
    features: int
    choices: int
    means: dict[str, list[float | None]]
    plays: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    tenths: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    curves: dict[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)

    def mean(self, arm: str) -> float | None:
        """The mean over the seeds, if every seed was played to its end."""
        found = [value for value in self.means.get(arm, []) if value is not None]
        return statistics.fmean(found) if found and len(found) == len(self.means[arm]) else None

    @property
    def best(self) -> tuple[str, float] | None:
        """The peer with the highest mean over the seeds."""
        found = [(mean, peer) for peer in PEERS if (mean := self.mean(peer)) is not None]
        return (max(found)[1], max(found)[0]) if found else None

    @property
    def ratio(self) -> float | None:
        """Tandem's mean over that of the best peer."""
        mine = self.mean(TANDEM)
        return mine / self.best[1] if mine is not None and self.best is not None and self.best[1] > 0 else None

    def add(self, arm: str, rewards: list[NDArray[Any] | None]) -> None:
        """The rewards of all seeds of one arm."""
        self.means[arm] = [None if one is None else float(np.mean(one)) for one in rewards]
        ended = [np.asarray(one, np.float64) for one in rewards if one is not None]
        if ended:
            mean = np.mean(ended, axis=0)
            self.tenths[arm] = [round(float(part.mean()), 4) for part in np.array_split(mean, 10) if len(part)]
            places = np.unique(np.linspace(0, len(mean) - 1, POINTS).astype(int))
            self.curves[arm] = np.stack([places + 1.0, (np.cumsum(mean) / np.arange(1, len(mean) + 1))[places]])

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`."""
        return {
            "set": self.name,
            "decisions": self.decisions,
            "features": self.features,
            "choices": self.choices,
            "chance": 1 / self.choices,
            "rewards": self.means,
            "means": {arm: self.mean(arm) for arm in self.means},
            "best_peer": self.best and self.best[0],
            "ratio": self.ratio,
            "tenths": self.tenths,
            "plays": self.plays,
            "failures": self.failures,
        }


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p value of so many wins and losses if either were as likely; ties are left out."""
    rounds, fewer = wins + losses, min(wins, losses)
    if not rounds:
        return 1.0
    return min(1.0, 2.0 * sum(math.comb(rounds, number) for number in range(fewer + 1)) / 2.0**rounds)


def against(results: list[Result], peer: str) -> dict[str, Any] | None:
    """On how many sets Tandem's mean is above a peer's, and below; None where the peer did not play."""
    pairs = [(result.mean(TANDEM), result.mean(peer)) for result in results]
    known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    if not known:
        return None
    wins, losses = (sum(sign * (mine - theirs) > 0 for mine, theirs in known) for sign in (1, -1))
    return {"wins": wins, "losses": losses, "p": sign_test(wins, losses)}


def summary(results: list[Result], lacking: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """What all sets together say."""
    ratios = {result.name: result.ratio for result in results if result.ratio is not None}
    lowest = min(ratios, key=lambda name: ratios[name], default=None)
    plays = [play for result in results for play in result.plays]
    return {
        "sets": len(results),
        "mean_ratio": statistics.fmean(ratios.values()) if ratios else None,
        "lowest_ratio": ratios[lowest] if lowest else None,
        "lowest_set": lowest,
        "against": {peer: against(results, peer) for peer in PEERS},
        "missing_peers": {peer: package for peer, package in lacking.items() if package},
        "refused_steps": sum(play["refused_steps"] for play in plays),
        "failed_steps": sum(play["failed_steps"] for play in plays),
        "worst_p99_ms": max((play["p99_ms"] for play in plays), default=None),
        "lowest_rate": min((play["rate"] for play in plays), default=None),
        "failures": [f"{result.name}: {text}" for result in results for text in result.failures],
        "options": options,
    }


def target(figure: str, value: Any, text: str, met: bool | None) -> dict[str, Any]:
    """One target; `met` is None where the figure could not be measured."""
    return {"figure": figure, "value": value, "target": text, "met": met}


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold over the whole suite; a failed play fails the means that lack it."""
    mean, lowest, failed = found["mean_ratio"], found["lowest_ratio"], len(found["failures"])
    lines = [
        target("plays that did not end", failed, "0", failed == 0),
        target("mean ratio to the best peer", mean, ">= 1.00", None if mean is None else mean >= 1.0 and not failed),
        target("lowest ratio", lowest, ">= 0.90", None if lowest is None else lowest >= 0.9 and not failed),
    ]
    for peer in EXPLORATIONS:
        test = found["against"][peer]
        met = None if test is None else test["wins"] > test["losses"] and test["p"] < 0.05 and not failed
        text = "more wins than losses, p < 0.05"
        lines.append(target(f"sign test against {peer}", test and test["p"], text, met))
    refused = found["refused_steps"]
    return [*lines, target("refused steps", refused, "0", refused == 0)]


def number(value: float | None, width: int, digits: int = 3) -> str:
    """A cell of the table; a dash for what is not there."""
    return f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"


class Table:
    """The rows for people: one when a set has been played."""

    def __init__(self, peers: list[str], seeds: list[int]) -> None:
        self.peers, self.seeds = peers, seeds

    def head(self) -> str:
        """The names of the columns."""
        seeds = "".join(f"{f'seed {seed}':>8}" for seed in self.seeds)
        peers = "".join(f"{peer:>13}" for peer in self.peers)
        return (
            f"{'set':<16}{'decisions':>10}{'chance':>8}{peers}{seeds}{'tandem':>8}{'ratio':>7}{'p99 ms':>8}{'steps':>8}"
        )

    def row(self, result: Result) -> str:
        """One set; what failed follows in a line of its own."""
        peers = "".join(number(result.mean(peer), 13) for peer in self.peers)
        seeds = "".join(number(value, 8) for value in result.means[TANDEM])
        worst = max((play["p99_ms"] for play in result.plays), default=None)
        steps = statistics.fmean([play["steps"] for play in result.plays]) if result.plays else None
        line = (
            f"{result.name:<16}{result.decisions:>10}{1 / result.choices:>8.3f}{peers}{seeds}"
            f"{number(result.mean(TANDEM), 8)}{number(result.ratio, 7, 2)}{number(worst, 8, 2)}{number(steps, 8, 0)}"
        )
        return "\n".join([line, *(f"  failed: {text}" for text in result.failures)])

    def end(self, found: dict[str, Any], lines: list[dict[str, Any]]) -> str:
        """The summary and the targets."""
        text = [f"\nmean ratio to the best peer {number(found['mean_ratio'], 0)}"]
        if found["lowest_set"]:
            text[0] += f", lowest {found['lowest_ratio']:.3f} ({found['lowest_set']})"
        for peer, test in found["against"].items():
            if test is not None:
                text.append(f"against {peer}: {test['wins']} wins, {test['losses']} losses, p = {test['p']:.3g}")
        text += [f"{peer} did not play: {package} is missing" for peer, package in found["missing_peers"].items()]
        return "\n".join([*text, *map(shown, lines)])


def shown(line: dict[str, Any]) -> str:
    """A target as a line for people."""
    verdict = {True: "met", False: "NOT met", None: "not measured"}[line["met"]]
    value = f"{line['value']:.3g}" if isinstance(line["value"], float) else line["value"]
    return f"{line['figure']}: {value} (target {line['target']}): {verdict}"


def plot(results: list[Result], path: Path) -> None:
    """Draw the progressive reward of every set as small multiples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(6, len(results))
    rows = -(-len(results) // columns)
    size = max(8.0, 2.6 * columns), 2.1 * rows + 0.6
    figure, axes = pyplot.subplots(rows, columns, figsize=size, dpi=100, squeeze=False)
    for place, result in zip(axes.flat, results, strict=False):
        for arm, curve in result.curves.items():
            is_mine = arm == TANDEM
            place.plot(*curve, label=arm, color="black" if is_mine else None, linewidth=1.6 if is_mine else 0.9)
        place.axhline(1 / result.choices, color="gray", linestyle=":", linewidth=0.8)
        place.set_title(result.name, fontsize=8)
        place.tick_params(labelsize=6)
        place.set_ylim(0, 1)
    for place in axes.flat[len(results) :]:
        place.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), fontsize=8)
    figure.supylabel("mean reward so far, by decisions", fontsize=8)
    # The legend keeps its height, however many rows there are.
    figure.tight_layout(rect=(0.01, 0.35 / size[1], 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
