"""One evaluation: what a policy would have earned on logged decisions, and whether that is more than another one did.

Decisions that a gate held back (WAIT) have no actual reward. They count where the question is which decisions the
policy would have made, and never for what it would have earned: that is said for decisions that are let through.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .columns import Fits, PolicyColumns, columns_of, fitted
from .errors import EvaluationError
from .estimators import (
    DR,
    IPS,
    SNIPS,
    Estimate,
    difference,
    dr_terms,
    estimate,
    importance_weights,
    ips_terms,
    linearised,
    modelled,
    reward_limits,
    snips_terms,
)
from .intervals import BERNSTEIN, METHODS, Floats, Interval, Terms
from .log.decisions import LoggedDecisions
from .support import Support, effective_rows, support_of, why_not
from .target_policy import Target

LOGGED = "logged"
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "not distinguishable", "cannot tell"
MOST_MISSING = 0.01
"""The largest share of decisions without a propensity."""


@dataclass(frozen=True)
class Side:
    """One of the two policies that are compared: its estimates over the decisions with a reward, and its support.

    `waits` is the share of its decisions that the gate would have held back. `reason` says why nothing can be told of
    it; empty if something can. `weights` float64[m] and `terms` are of the m decisions with a reward.
    """

    name: str
    estimates: tuple[Estimate, ...]
    support: Support
    waits: float
    reason: str
    weights: Floats
    terms: Terms | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "policy": self.name,
            "estimates": [estimate.to_dict() for estimate in self.estimates],
            "support": self.support.to_dict(),
            "wait_share": self.waits,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Evaluation:
    """What came of it: both sides, the difference between them, and one word for it (`outcome`).

    `decisions`, `waits` (share), `unrewarded` (let through without a reward) and `unknown` (without a propensity)
    describe the log; `rewarded` are the m decisions that the estimates stand on.
    """

    decisions: int
    waits: float
    unrewarded: int
    unknown: int
    limits: Interval
    rewarded: LoggedDecisions
    policy: Side
    against: Side
    apart: Estimate | None
    outcome: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "decisions": self.decisions,
            "wait_share": self.waits,
            "unrewarded": self.unrewarded,
            "without_propensity": self.unknown,
            "rewarded": len(self.rewarded),
            "policy": self.policy.to_dict(),
            "against": self.against.to_dict(),
            "difference": None if self.apart is None else self.apart.to_dict(),
            "outcome": self.outcome,
            "reason": self.reason,
        }


def evaluate(
    log: LoggedDecisions,
    policy: Target,
    against: Target | None = None,
    limits: Interval | None = None,
    method: str = BERNSTEIN,
) -> Evaluation:
    """Compare `policy` with `against`, or, if that is None, with what was logged.

    `limits` are the least and the largest reward, if they are known; `method` is one of `intervals.METHODS`. What a log
    cannot say is no error: the outcome is "cannot tell" then, and `reason` says why. Raises EvaluationError for a
    policy that does not fit the log.
    """
    if method not in METHODS:
        raise EvaluationError(f"there is no interval {method!r} (there are {', '.join(METHODS)})")
    known = log.take(np.isfinite(log.propensities))
    rewarded = known.take(known.rewarded)
    bounds = reward_limits(rewarded.rewards, limits) if len(rewarded) else limits or (0.0, 1.0)
    is_gated = not bool(known.sent.all())
    at = _Setting(known, rewarded, None if is_gated else fitted(rewarded, bounds), bounds, method)
    sides = [_logged(at) if target is None else _side(target, at) for target in (policy, against)]
    unknown = len(log) - len(known)
    reason = _unusable(unknown, len(log)) or "; ".join(
        f"{side.name}: {side.reason}" if against is not None else side.reason for side in sides if side.reason
    )
    apart = None if reason else _apart(sides[0], sides[1], at)
    return Evaluation(
        decisions=len(log),
        waits=float((~log.sent).mean()) if len(log) else 0.0,
        unrewarded=int((log.sent & ~log.rewarded).sum()),
        unknown=unknown,
        limits=bounds,
        rewarded=rewarded,
        policy=sides[0],
        against=sides[1],
        apart=apart,
        outcome=_outcome(apart),
        reason=reason,
    )


def _unusable(unknown: int, count: int) -> str:
    if unknown > MOST_MISSING * count:
        return f"{unknown:,} of {count:,} decisions have no propensity: the log does not say how likely they were"
    return ""


def _outcome(apart: Estimate | None) -> str:
    if apart is None:
        return UNKNOWN
    if apart.low > 0.0:
        return BETTER
    return WORSE if apart.high < 0.0 else SAME


@dataclass(frozen=True)
class _Setting:
    """What both sides share: decisions with a propensity, those of them with a reward, and how to estimate."""

    known: LoggedDecisions
    rewarded: LoggedDecisions
    fits: Fits | None
    limits: Interval
    method: str

    @property
    def is_gated(self) -> bool:
        """True if a gate held decisions back."""
        return not bool(self.known.sent.all())


def _side(target: Target, at: _Setting) -> Side:
    """A target policy's side."""
    columns = columns_of(target, at.rewarded, at.fits)
    weights = importance_weights(columns.chosen, at.rewarded.propensities)
    # Of all decisions, whatever came of them: a gate looks at the action, and only all have weights of 1 on average.
    is_whole = len(at.rewarded) == len(at.known)
    whole = columns if is_whole else columns_of(target, at.known)
    everything = importance_weights(whole.chosen, at.known.propensities)
    support = dataclasses.replace(
        support_of(everything, at.known.propensities, whole.overlap),
        rows=len(weights),
        effective=effective_rows(weights),
        largest_weight=float(weights.max(initial=0.0)),
    )
    total = float(everything.sum())
    waits = 1.0 - float(everything[at.known.sent].sum()) / total if total else math.nan
    reason = why_not(support, at.rewarded.rewards)
    if not weights.any():
        return Side(target.name, (), support, waits, reason, weights, None)
    estimates, terms = _estimates(weights, columns, at, support.unsupported)
    if reason:
        # Only their values are shown: intervals would pretend that something can be told.
        why = "none: the log cannot tell"
        estimates = tuple(dataclasses.replace(e, low=math.nan, high=math.nan, interval=why) for e in estimates)
    return Side(target.name, estimates, support, waits, reason, weights, terms)


def _estimates(
    weights: Floats, columns: PolicyColumns, at: _Setting, unsupported: float
) -> tuple[tuple[Estimate, ...], Terms]:
    """The estimates that can be made, the best one last, and the terms of a mean with which policies are compared.

    Where a gate held decisions back, the self-normalised one alone is an estimate of what is let through.
    """
    rewards, slack = at.rewarded.rewards, unsupported * (at.limits[1] - at.limits[0])
    normalised = _estimate(SNIPS, snips_terms(rewards, weights, at.limits), at.method, slack)
    if at.is_gated:
        return (normalised,), linearised(rewards, weights, at.limits)
    plain = _estimate(IPS, ips_terms(rewards, weights, at.limits), at.method, slack)
    if columns.expected is None or columns.predicted is None:
        return (plain, normalised), linearised(rewards, weights, at.limits)
    model = modelled(float(columns.expected.mean()))
    terms = dr_terms(rewards, weights, columns.expected, columns.predicted, at.limits)
    return (plain, normalised, model, _estimate(DR, terms, at.method, slack)), terms


def _logged(at: _Setting) -> Side:
    """What was logged, as a side: every weight is 1."""
    rewards = at.rewarded.rewards
    ones = np.ones(len(rewards))
    known = np.ones(len(at.known))
    support = dataclasses.replace(support_of(known, at.known.propensities), rows=len(rewards), effective=len(rewards))
    waits = 1.0 - float(at.known.sent.mean()) if len(known) else math.nan
    if len(rewards) < 2:
        return Side(LOGGED, (), support, waits, "", ones, None)
    terms = ips_terms(rewards, ones, at.limits)
    return Side(LOGGED, (_estimate(LOGGED, terms, at.method, 0.0),), support, waits, "", ones, terms)


def _estimate(name: str, terms: Terms, method: str, slack: float) -> Estimate:
    """An estimate whose interval is `slack` wider on each side: what was never tried may earn anything."""
    found = estimate(name, terms, method)
    low, high = max(found.low - slack, terms.limits[0]), min(found.high + slack, terms.limits[1])
    return dataclasses.replace(found, low=low, high=high)


def _apart(first: Side, second: Side, at: _Setting) -> Estimate:
    """How much more the first side earns."""
    assert first.terms is not None
    assert second.terms is not None
    gaps = [first.weights - second.weights, _shares(first.weights) - _shares(second.weights)]
    found = difference(first.terms, second.terms, float(np.abs(gaps).max()), at.method)
    slack = (first.support.unsupported + second.support.unsupported) * (at.limits[1] - at.limits[0])
    return dataclasses.replace(found, low=found.low - slack, high=found.high + slack)


def _shares(weights: Floats) -> Floats:
    """The weights that the self-normalised estimate gives the rows: 1 on average."""
    shares: Floats = weights / float(weights.mean())
    return shares
