"""The client for code that waits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from . import answers
from .answers import AGAIN, NOT_TAKEN, ApiError, Decision

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Client:
    """Calls one server. Safe to use from several threads.

    A call that gets no answer, or one that says so, is sent again up to `tries` times with growing pauses: every call
    carries an id, so that the server counts it once. A reward by key has none, and is sent again only if it is certain
    that it was not taken. `timeout` is that of one try, seconds. Raises ApiError for what the server refuses, and
    httpx.TransportError if no try was answered.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 5.0, tries: int = 8) -> None:
        self._tries = tries
        self._http = httpx.Client(base_url=url, headers=answers.headers(token), timeout=timeout)

    def decide(self, observation: Any, key: str | None = None, **options: Any) -> Decision:
        """A decision. `options`: request_id, allowed, candidates."""
        return Decision.of(self._call("/v1/decide", answers.question(observation, key, **options)))

    def decide_many(self, observations: Iterable[Any]) -> list[Decision | ApiError]:
        """A decision for each observation, up to 256, or what was wrong with it."""
        return answers.each(self._call("/v1/decide/batch", answers.questions(observations)), Decision.of)

    def reward(
        self,
        decision: Decision | str | None,
        value: float,
        key: str | None = None,
        final: bool = True,
        reward_id: str | None = None,
    ) -> bool:
        """What a decision earned, by the decision, its id, or (decision None) the key: True if the server has it.

        Raises ApiError 404 or 410 for an id whose decision does not wait; False for a key under which none does.
        """
        return answers.matched(self._call("/v1/reward", answers.reward(decision, value, key, final, reward_id)))

    def reward_many(self, rewards: Sequence[tuple[Decision | str, float]]) -> list[bool | ApiError]:
        """What each of up to 256 decisions earned, or why it was not taken."""
        return answers.each(self._call("/v1/reward/batch", answers.rewards(rewards)), answers.matched)

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        again, unanswered = retries(body)
        for pause in answers.pauses(self._tries):
            try:
                response = self._http.post(path, json=body)
            except unanswered:
                pass
            else:
                if response.status_code not in again:
                    return content(response)
            time.sleep(pause)
        return content(self._http.post(path, json=body))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def retries(body: dict[str, Any]) -> tuple[frozenset[int], tuple[type[httpx.TransportError], ...]]:
    """The statuses and the exceptions after which a call is sent again."""
    if answers.is_idempotent(body):
        return AGAIN, (httpx.TransportError,)
    return NOT_TAKEN, NEVER_SENT


def content(response: httpx.Response) -> Any:
    """The body of an answer. Raises ApiError if the call was refused, or something else answered."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.status_code != 200 or body is None:
        raise ApiError.of(response.status_code, body, response.text)
    return body
