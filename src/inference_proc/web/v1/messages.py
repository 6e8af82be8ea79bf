"""What the two calls take and give. The OpenAPI document is made from these types."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ....shared.values import FLOAT32_MAX

MOST_AT_ONCE = 256

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Reward = Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]


class Candidate(msgspec.Struct, forbid_unknown_fields=True):
    """One of those that a request brings for a CandidateHead: its name, and one number for each of its features."""

    id: Name
    features: list[float]


Choice = int | str | bool


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A question. `observation` is what the application encodes: by default an array of its F features.

    With a `key` the newest decision under it is the one that a reward by this key completes; without one the decision
    stands alone. The same `request_id` is answered with the same decision as long as that waits for its reward.
    `allowed` are the choices to draw among, by index, label or candidate's id, or as bools; with several heads by the
    name of each. `candidates` are what a CandidateHead chooses from.
    """

    observation: Any
    key: Name | None = None
    request_id: Name | None = None
    allowed: list[Choice] | dict[str, list[Choice]] | None = None
    candidates: list[Candidate] | None = None


class DecideAnswer(msgspec.Struct):
    """A decision: one choice for each action head, with the label of each that has any (the id of a candidate).

    Of a GaussianHead the action is its number, and the probability its density per unit.

    `send` is false where the gate held the action back, `reason` says why. `decision_id` is null for a decision that
    was not recorded.
    """

    decision_id: str | None
    action: tuple[int | float, ...]
    labels: tuple[str | None, ...] | None
    probability: float
    send: bool
    reason: str
    model_version: int


class RewardRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a decision earned. With `final` false more may follow, each counted once for its `reward_id`."""

    value: Reward
    decision_id: Name | None = None
    key: Name | None = None
    final: bool = True
    reward_id: Name | None = None


class RewardAnswer(msgspec.Struct):
    """`matched`: there is such a decision. `counted`: this reward is part of what it earned, now and not before."""

    decision_id: str | None
    matched: bool
    counted: bool


class Problem(msgspec.Struct):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


class DecideBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Several questions, answered in their order."""

    requests: Annotated[list[DecideRequest], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class RewardBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Several rewards, taken in their order."""

    rewards: Annotated[list[RewardRequest], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class DecideResult(msgspec.Struct, omit_defaults=True):
    """One of the two: the answer to a question, or what was wrong with it."""

    answer: DecideAnswer | None = None
    problem: Problem | None = None


class RewardResult(msgspec.Struct, omit_defaults=True):
    """One of the two: the answer to a reward, or what was wrong with it."""

    answer: RewardAnswer | None = None
    problem: Problem | None = None


class DecideAnswers(msgspec.Struct):
    """A result for each question, in their order."""

    results: list[DecideResult]


class RewardAnswers(msgspec.Struct):
    """A result for each reward, in their order."""

    results: list[RewardResult]


CALLS: dict[str, tuple[type, type]] = {
    "/v1/decide": (DecideRequest, DecideAnswer),
    "/v1/decide/batch": (DecideBatch, DecideAnswers),
    "/v1/reward": (RewardRequest, RewardAnswer),
    "/v1/reward/batch": (RewardBatch, RewardAnswers),
}
"""What each call takes, and what it gives if all is well."""
