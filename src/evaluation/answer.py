"""An evaluation in words: a table of the estimates, and one sentence that a person can act on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from .breakdown import Part
from .estimators import NAMES, Estimate
from .evaluation import BETTER, LOGGED, SAME, UNKNOWN, WORSE, Evaluation, Side
from .intervals import LEVEL


def verdict(evaluation: Evaluation) -> str:
    """The sentence: better, worse, not distinguishable, or "cannot tell, because ..."."""
    if evaluation.outcome == UNKNOWN:
        return f"cannot tell, because {evaluation.reason}"
    apart = evaluation.apart
    assert apart is not None
    other = "what was logged" if evaluation.against.name == LOGGED else evaluation.against.name
    size = f"{_signed(apart.value)} for each decision, {LEVEL:.0%} interval {_range(apart)}"
    words = {
        BETTER: f"{evaluation.policy.name} is better than {other}: {size}",
        WORSE: f"{evaluation.policy.name} is worse than {other}: {size}",
        SAME: f"{evaluation.policy.name} is not distinguishable from {other}: {size}",
    }
    return words[evaluation.outcome]


def lines(evaluation: Evaluation, parts: Sequence[Part] = ()) -> list[str]:
    """The whole answer, for a terminal."""
    text = [_log(evaluation), ""]
    text.append(f"{'mean reward of':<38}{'estimate':>11}   {LEVEL:.0%} interval")
    for side in (evaluation.against, evaluation.policy):
        text += [_row(_title(side, estimate), estimate) for estimate in side.estimates]
    text.append("")
    text += [_support(side) for side in (evaluation.policy, evaluation.against) if side.name != LOGGED]
    text += _gated(evaluation)
    intervals = {e.interval for e in evaluation.policy.estimates if not e.interval.startswith("none")}
    if intervals:
        text.append(f"intervals: {', '.join(sorted(intervals))}")
    if parts:
        text += ["", f"{'part':<38}{'rows':>9}{'counting':>10}{'logged':>11}{'estimate':>11}   {LEVEL:.0%} interval"]
        text += [_part(part) for part in parts]
    return [*text, "", verdict(evaluation)]


def _log(evaluation: Evaluation) -> str:
    stamps = evaluation.rewarded.timestamps
    text = f"log: {evaluation.decisions:,} decisions"
    if len(stamps):
        first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(stamps[index])) for index in (0, -1))
        text += f", {first} to {last} (UTC)"
    text += f"; {len(evaluation.rewarded):,} with a reward"
    if evaluation.waits:
        text += f", {evaluation.waits:.1%} held back (WAIT)"
    if evaluation.unrewarded:
        text += f", {evaluation.unrewarded:,} without a reward"
    if evaluation.unknown:
        text += f", {evaluation.unknown:,} without a propensity"
    return text


def _title(side: Side, estimate: Estimate) -> str:
    if side.name == LOGGED:
        return "what was logged"
    return f"{side.name}, {NAMES[estimate.estimator]}"


def _row(title: str, estimate: Estimate) -> str:
    return f"{title:<38}{_signed(estimate.value):>11}   {_range(estimate)}"


def _support(side: Side) -> str:
    found = side.support
    return (
        f"{side.name}: {found.effective:,.0f} of {found.rows:,} rows count, largest weight {found.largest_weight:,.4g},"
        f" overlap {found.overlap:.1%}, mean weight {found.mean_weight:.3f}"
    )


def _gated(evaluation: Evaluation) -> list[str]:
    if not evaluation.waits:
        return []
    return [
        f"{evaluation.policy.name} would have been held back in {evaluation.policy.waits:.1%} of its decisions; all"
        " estimates are for decisions that are let through"
    ]


def _part(part: Part) -> str:
    start = f"{part.label[:37]:<38}{part.rows:>9,}{part.effective:>10,.0f}{_signed(part.logged):>11}"
    if part.estimate is None:
        return f"{start}{'':>11}   cannot tell"
    return f"{start}{_signed(part.estimate.value):>11}   {_range(part.estimate)}"


def _range(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "none"
    return f"{_signed(estimate.low)} to {_signed(estimate.high)}"


def _signed(value: float) -> str:
    return f"{value:+.4g}" if math.isfinite(value) else "unknown"
