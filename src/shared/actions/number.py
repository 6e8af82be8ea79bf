"""Drawing a number from a range: the normal distribution, cut off at both ends, and its exact density."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from .heads import GaussianHead

LEAST_LOG = math.log(0.05)
"""The deviation is at least e to this, in halves of the range: something is always explored."""
LARGEST_LOG = math.log(10.0)
"""And at most e to this, which is as good as all numbers alike."""
_STANDARD = NormalDist()


def draw_number(
    head: GaussianHead,
    parameters: tuple[float, float],
    random: Callable[[], float],
    temperature: float = 1.0,
    floor: float = 0.0,
) -> tuple[float, float]:
    """A number from `head.low` to `head.high`, and the density (per unit) with which it was drawn.

    `parameters`: mean and logarithm of the deviation, both with `low` at -1 and `high` at 1; the temperature multiplies
    the deviation, and with probability `floor` all numbers are alike. `random()` gives floats from 0 to 1. Raises
    FloatingPointError if the parameters are no numbers.
    """
    if not (math.isfinite(parameters[0]) and math.isfinite(parameters[1])):
        raise FloatingPointError("the policy's mean or deviation is not a number")
    mean = min(max(parameters[0], -1.0), 1.0)
    deviation = math.exp(min(max(parameters[1], LEAST_LOG), LARGEST_LOG)) * max(temperature, 1e-6)
    middle, half = (head.high + head.low) / 2, (head.high - head.low) / 2
    begin, end = _STANDARD.cdf((-1.0 - mean) / deviation), _STANDARD.cdf((1.0 - mean) / deviation)
    if floor and random() < floor:
        place = 2.0 * random() - 1.0
    else:
        # Never the ends themselves, which the inverse takes for infinite.
        share = min(max(begin + random() * (end - begin), 1e-15), 1.0 - 1e-15)
        place = min(max(mean + deviation * _STANDARD.inv_cdf(share), -1.0), 1.0)
    # As it is recorded, so that what is trained on is what was done.
    number = min(max(float(np.float32(middle + half * place)), head.low), head.high)
    distance = ((number - middle) / half - mean) / deviation
    density = math.exp(-0.5 * distance * distance) / math.sqrt(2 * math.pi) / deviation / (end - begin)
    return number, ((1.0 - floor) * density + 0.5 * floor) / half
