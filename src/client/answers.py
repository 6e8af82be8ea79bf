"""What a client sends and what comes back, whatever carries it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which the same call is sent again."""
NOT_TAKEN = frozenset({429, 503})
"""Those of them after which it is certain that the call did nothing."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


@dataclass(frozen=True)
class Decision:
    """A decision of the server: one choice for each action head, with its label (None where it has none).

    `id` is None for a decision that was not recorded; `probability` is that of the whole action.
    """

    id: str | None
    action: tuple[int, ...]
    labels: tuple[str | None, ...] | None
    probability: float
    send: bool
    reason: str
    model_version: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Decision:
        """The decision that an answer describes."""
        labels = answer["labels"]
        return cls(
            answer["decision_id"],
            tuple(answer["action"]),
            None if labels is None else tuple(labels),
            answer["probability"],
            answer["send"],
            answer["reason"],
            answer["model_version"],
        )


class ApiError(Exception):
    """The server refused a call: `status` and what it said."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"{status}: {detail}")

    @classmethod
    def of(cls, status: int, body: Any, text: str) -> ApiError:
        """From an answer that is not what was asked for."""
        detail = body.get("detail") or body.get("error") if isinstance(body, Mapping) else None
        return cls(status, str(detail or text[:200]))


# Many parameters: the fields of the message.
def question(
    observation: Any,
    key: str | None = None,
    request_id: str | None = None,
    allowed: Any = None,
    candidates: Any = None,
) -> dict[str, Any]:
    """The body of a decide call. Without a `request_id` it gets one of its own: sent again, it is one question."""
    body = {"key": key, "allowed": allowed, "candidates": candidates}
    named = {name: value for name, value in body.items() if value is not None}
    return {"observation": observation, "request_id": request_id or uuid.uuid4().hex, **named}


def reward(
    decision: Decision | str | None,
    value: float,
    key: str | None = None,
    final: bool = True,
    reward_id: str | None = None,
) -> dict[str, Any]:
    """The body of a reward call. Raises ValueError unless one of decision and key names what is rewarded."""
    name = decision.id if isinstance(decision, Decision) else decision
    if (name is None) == (key is None):
        raise ValueError("name what is rewarded by one of decision (one that has an id) and key")
    body: dict[str, Any] = {"value": float(value), "final": final}
    body |= {"decision_id": name} if name is not None else {"key": key}
    if not final:
        body["reward_id"] = reward_id or uuid.uuid4().hex
    return body


def is_idempotent(body: Mapping[str, Any]) -> bool:
    """True if the server counts a call once, also if it is sent again after it was taken and the answer was lost.

    A reward by key is not such a call: by then another decision may wait under the key.
    """
    return "key" not in body or "request_id" in body


def pauses(tries: int) -> Iterator[float]:
    """Seconds before each further try: doubling, with chance in it, so that many clients do not come at once."""
    pause = _FIRST_PAUSE
    for _ in range(tries - 1):
        yield pause * random.uniform(0.5, 1.5)
        pause = min(2 * pause, _LONGEST_PAUSE)


def questions(observations: Iterable[Any]) -> dict[str, Any]:
    """The body of a decide call for several observations."""
    return {"requests": [question(observation) for observation in observations]}


def rewards(given: Iterable[tuple[Decision | str, float]]) -> dict[str, Any]:
    """The body of a reward call for several decisions. Raises ValueError as `reward`."""
    return {"rewards": [reward(decision, value) for decision, value in given]}


def each(content: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> list[T | ApiError]:
    """The answers of a batch as `read` gives them, an ApiError in place of each that was refused."""
    return [
        read(result["answer"])
        if "answer" in result
        else ApiError.of(result["problem"]["status"], result["problem"], "")
        for result in content["results"]
    ]


def matched(answer: Mapping[str, Any]) -> bool:
    """True if the server has the reward."""
    return bool(answer["matched"])


def headers(token: str | None) -> dict[str, str]:
    """What every call carries."""
    return {} if token is None else {"authorization": f"Bearer {token}"}
