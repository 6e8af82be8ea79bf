"""Whether what a message brings as an observation is the numbers that the application expects."""

from __future__ import annotations

from typing import Any

from ..values import FLOAT32_MAX

_NUMBERS = frozenset({int, float})


def check_numbers(observation: Any, features: tuple[str, ...]) -> str | None:
    """What is wrong with an observation, naming the feature; None if it is a list of one number for each of them."""
    if type(observation) is not list or len(observation) != len(features):
        found = f"an array of {len(observation)}" if isinstance(observation, list) else type(observation).__name__
        return f"observation: must be an array of {len(features)} numbers, not {found}"
    if _NUMBERS.issuperset(map(type, observation)) and max(map(abs, observation), default=0) <= FLOAT32_MAX:
        return None
    for name, value in zip(features, observation, strict=True):
        if type(value) not in _NUMBERS:
            return f"observation: {name} must be a number, not {type(value).__name__}"
        if not abs(value) <= FLOAT32_MAX:
            return f"observation: {name} is too large (allowed: +-{FLOAT32_MAX:g})"
    return None
