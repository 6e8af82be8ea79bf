"""What a policy would have earned: four estimates from the decisions of another one, each with where it comes from.

Arrays: `rewards` float64[n]; `weights` float64[n], the importance weights; `actions` int64[n], indices of the logged
actions among K; `probabilities` float64[n, K], with which the target policy takes each of them; `predictions`
float64[n, K] or [K], the rewards that a model expects of them. Rows are in the order of time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import EvaluationError
from .intervals import BERNSTEIN, METHODS, Floats, Interval, Terms, interval

IPS, SNIPS, DM, DR = "ips", "snips", "dm", "dr"
NAMES = {
    IPS: "inverse propensity",
    SNIPS: "self-normalised",
    DM: "direct method",
    DR: "doubly robust",
}


@dataclass(frozen=True)
class Estimate:
    """A policy's mean reward: `value`, and where it lies with the confidence asked for (NaN: that cannot be said).

    `interval` names the method of `low` and `high`.
    """

    estimator: str
    value: float
    low: float
    high: float
    interval: str

    def to_dict(self) -> dict[str, float | str | None]:
        """Plain data for JSON; what is not a number is None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        shown = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        return {"estimator": self.estimator, **shown, "interval": self.interval}


def importance_weights(target: Floats, propensities: Floats) -> Floats:
    """target / propensities, float64[n] each: how much more often the target policy takes the logged action.

    Raises EvaluationError for arrays of different lengths, probabilities outside 0..1, or propensities that are missing
    (NaN) or 0: an action of probability 0 cannot have been drawn.
    """
    target, propensities = np.asarray(target, np.float64), np.asarray(propensities, np.float64)
    if target.shape != propensities.shape or target.ndim != 1:
        raise EvaluationError(f"target {target.shape} and propensities {propensities.shape} must be of one length")
    if not ((target >= 0.0) & (target <= 1.0 + 1e-6)).all():
        raise EvaluationError("the target policy's probabilities must lie in 0..1")
    if not ((propensities > 0.0) & (propensities <= 1.0 + 1e-6)).all():
        wrong = int(np.argmin((propensities > 0.0) & (propensities <= 1.0 + 1e-6)))
        raise EvaluationError(
            f"row {wrong} has the propensity {propensities[wrong]}; a logged action's is above 0 and at most 1"
        )
    weights: Floats = target / propensities
    return weights


def reward_limits(rewards: Floats, given: Interval | None = None) -> Interval:
    """The least and the largest that a reward can be: what is `given`, or, without, what was seen; widened to both."""
    least, most = float(rewards.min()), float(rewards.max())
    return (least, most) if given is None else (min(least, given[0]), max(most, given[1]))


def inverse_propensity(
    rewards: Floats, weights: Floats, limits: Interval | None = None, method: str = BERNSTEIN
) -> Estimate:
    """mean(weights * rewards): Horvitz and Thompson, "A generalization of sampling without replacement from a finite
    universe", JASA 47, 1952, for policies as in Li et al., WSDM 2011. Unbiased where the log has support.
    """
    return estimate(IPS, ips_terms(rewards, weights, reward_limits(rewards, limits)), method)


def ips_terms(rewards: Floats, weights: Floats, limits: Interval) -> Terms:
    """The terms of `inverse_propensity`."""
    heaviest = float(weights.max())
    corners = ((0.0, 1.0), (heaviest * limits[0], 1.0), (heaviest * limits[1], 1.0))
    return Terms(weights * rewards, np.ones(len(rewards)), corners, limits)


def self_normalised(
    rewards: Floats, weights: Floats, limits: Interval | None = None, method: str = BERNSTEIN
) -> Estimate:
    """sum(weights * rewards) / sum(weights): Hesterberg, "Weighted average importance sampling and defensive mixture
    distributions", Technometrics 37, 1995; Swaminathan and Joachims, NeurIPS 2015. Inside the range of the rewards and
    no matter where their zero lies; its bias falls with the number of rows.
    """
    return estimate(SNIPS, snips_terms(rewards, weights, reward_limits(rewards, limits)), method)


def snips_terms(rewards: Floats, weights: Floats, limits: Interval) -> Terms:
    """The terms of `self_normalised`."""
    heaviest = float(weights.max())
    corners = ((0.0, 0.0), (heaviest * limits[0], heaviest), (heaviest * limits[1], heaviest))
    return Terms(weights * rewards, weights, corners, limits)


def direct_method(probabilities: Floats, predictions: Floats) -> Estimate:
    """The mean of what the model expects under the target policy (Dudik, Langford and Li, "Doubly robust policy
    evaluation and learning", ICML 2011, section 2.1). It has no interval: how wrong the model is cannot be seen from
    what it says.
    """
    return modelled(float(expected_under(probabilities, predictions).mean()))


def modelled(value: float) -> Estimate:
    """The direct method's estimate."""
    return Estimate(DM, value, math.nan, math.nan, "none: the model's own error is not known")


def expected_under(probabilities: Floats, predictions: Floats) -> Floats:
    """The reward that a model expects of the target policy's decision in each row: float64[n]."""
    expected: Floats = (probabilities * predictions).sum(axis=1)
    return expected


def predicted_for(actions: NDArray[np.int64], predictions: Floats) -> Floats:
    """The reward that a model expects of the logged action in each row: float64[n]."""
    table = np.broadcast_to(predictions, (len(actions), predictions.shape[-1]))
    predicted: Floats = table[np.arange(len(actions)), actions]
    return predicted


def doubly_robust(
    rewards: Floats,
    weights: Floats,
    expected: Floats,
    predicted: Floats,
    limits: Interval | None = None,
    method: str = BERNSTEIN,
) -> Estimate:
    """mean(expected + weights * (rewards - predicted)), with `expected_under` and `predicted_for` the target policy and
    the logged action (Dudik, Langford and Li, ICML 2011, equation 2). Unbiased as the inverse propensity estimate is,
    and the less uncertain the better the model, if the model was not fitted to the row it is used for
    (`fitted_rewards.cross_fitted`).
    """
    return estimate(DR, dr_terms(rewards, weights, expected, predicted, reward_limits(rewards, limits)), method)


def dr_terms(rewards: Floats, weights: Floats, expected: Floats, predicted: Floats, limits: Interval) -> Terms:
    """The terms of `doubly_robust`."""
    reach = float(weights.max()) * (limits[1] - limits[0])
    corners = ((limits[0] - reach, 1.0), (limits[1] + reach, 1.0))
    return Terms(expected + weights * (rewards - predicted), np.ones(len(rewards)), corners, limits)


def linearised(rewards: Floats, weights: Floats, limits: Interval) -> Terms:
    """The self-normalised estimate as a mean of rows, by the delta method (Owen, "Monte Carlo theory, methods and
    examples", 2013, section 9.2): each row is the estimate and its own pull on it.
    """
    shares = weights / float(weights.mean())
    value = np.full(len(rewards), snips_terms(rewards, weights, limits).ratio)
    return dr_terms(rewards, shares, value, value, limits)


def difference(first: Terms, second: Terms, apart: float, method: str = BERNSTEIN) -> Estimate:
    """How much more the first policy earns than the second, from the terms of two means over the same rows.

    Row by row, so that what is common to both cancels. `apart` is how far a row's weights under the two can be from
    each other: one row can then be off by the width of the rewards, and by as many times that.
    """
    width = first.limits[1] - first.limits[0]
    rows = first.numerators - second.numerators
    farthest = (1.0 + apart) * width
    corners = ((-farthest, 1.0), (farthest, 1.0))
    return estimate("difference", Terms(rows, np.ones(len(rows)), corners, (-width, width)), method)


def estimate(name: str, terms: Terms, method: str = BERNSTEIN) -> Estimate:
    """The estimate of this name that these terms make."""
    low, high = interval(terms, method)
    return Estimate(name, terms.ratio, low, high, METHODS[method])
