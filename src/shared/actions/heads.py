"""The heads of an action: fixed choices, candidates that each request brings, or a number from a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ApplicationError


@dataclass(frozen=True)
class ActionHead:
    """One categorical choice of an action: its name, its number of choices, their labels if they have any."""

    name: str
    size: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, init=False)
class CandidateHead(ActionHead):
    """A choice among candidates that each request brings, at most `most` of them, each with these `features`.

    The action is the index into the request's list. Raises ApplicationError for no candidates or features, or a name
    that comes twice.
    """

    features: tuple[str, ...] = ()

    def __init__(self, name: str, most: int, features: Sequence[str]) -> None:
        names = tuple(features)
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise ApplicationError(f"CandidateHead {name}: most is {most!r}; it must be a whole number from 1")
        if isinstance(features, str) or not names or not all(isinstance(item, str) for item in names):
            raise ApplicationError(
                f"CandidateHead {name}: features are {features!r}; they must be the names of a candidate's numbers"
            )
        if len(set(names)) < len(names):
            raise ApplicationError(f"CandidateHead {name}: a feature comes twice in {list(names)}")
        for field, value in (("name", name), ("size", most), ("labels", ()), ("features", names)):
            object.__setattr__(self, field, value)

    @property
    def most(self) -> int:
        """Candidates of a request, at most."""
        return self.size


@dataclass(frozen=True, init=False)
class GaussianHead(ActionHead):
    """A number from `low` to `high`: a price, a bid, a set point. Drawn from a normal distribution cut off there.

    The model gives two numbers for it, mean and logarithm of the deviation, with `low` at -1 and `high` at 1. Raises
    ApplicationError unless both are finite and `low` is the lower one.
    """

    low: float = -1.0
    high: float = 1.0

    def __init__(self, name: str, low: float, high: float) -> None:
        try:
            fits = math.isfinite(low) and math.isfinite(high) and low < high
        except TypeError:
            fits = False
        if not fits:
            raise ApplicationError(
                f"GaussianHead {name}: low is {low!r} and high is {high!r}; they must be two finite numbers, the lower "
                "one first"
            )
        values = (("name", name), ("size", 2), ("labels", ()), ("low", float(low)), ("high", float(high)))
        for field, value in values:
            object.__setattr__(self, field, value)


def check_heads(application: str, heads: Sequence[ActionHead]) -> None:
    """Raises ApplicationError unless a head of candidates or of a number is the only one."""
    for head in heads:
        if type(head) is not ActionHead and len(heads) > 1:
            raise ApplicationError(
                f"application {application}: {type(head).__name__} {head.name} must be its only head, and there are "
                f"{len(heads)}; decide the others under keys of their own"
            )


def candidate_head(heads: Sequence[ActionHead]) -> CandidateHead | None:
    """The head of candidates, if that is what is chosen."""
    return heads[0] if len(heads) == 1 and isinstance(heads[0], CandidateHead) else None


def gaussian_head(heads: Sequence[ActionHead]) -> GaussianHead | None:
    """The head of a number, if that is what is chosen."""
    return heads[0] if len(heads) == 1 and isinstance(heads[0], GaussianHead) else None


def input_width(features: int, heads: Sequence[ActionHead]) -> int:
    """Numbers that a model is given of one request: the features, of candidates theirs, and 1 for each one there is."""
    head = candidate_head(heads)
    return features if head is None else features + head.most * (len(head.features) + 1)


def record_sizes(heads: Sequence[ActionHead]) -> dict[str, Any]:
    """What a record must have room for because of these heads (see RecordLayout)."""
    head = candidate_head(heads)
    return {
        "choices": sum(head.size for head in heads),
        "candidates": 0 if head is None else head.most,
        "candidate_features": 0 if head is None else len(head.features),
        "values": int(gaussian_head(heads) is not None),
    }


def schema_of(heads: Sequence[ActionHead]) -> list[list[Any]]:
    """The heads as JSON: name, size, labels, and what else there is of other kinds."""
    listed = []
    for head in heads:
        found: list[Any] = [head.name, head.size, list(head.labels)]
        if isinstance(head, CandidateHead):
            found.append(list(head.features))
        elif isinstance(head, GaussianHead):
            found += [head.low, head.high]
        listed.append(found)
    return listed
