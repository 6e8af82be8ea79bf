"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from . import answers
from .answers import ApiError, Decision
from .synchronous import content, retries


class AsyncClient:
    """As Client, with calls to be awaited."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 5.0, tries: int = 8) -> None:
        self._tries = tries
        self._http = httpx.AsyncClient(base_url=url, headers=answers.headers(token), timeout=timeout)

    async def decide(self, observation: Any, key: str | None = None, **options: Any) -> Decision:
        """A decision. `options`: request_id, allowed, candidates."""
        return Decision.of(await self._call("/v1/decide", answers.question(observation, key, **options)))

    async def decide_many(self, observations: Iterable[Any]) -> list[Decision | ApiError]:
        """A decision for each observation, up to 256, or what was wrong with it."""
        return answers.each(await self._call("/v1/decide/batch", answers.questions(observations)), Decision.of)

    async def reward(
        self,
        decision: Decision | str | None,
        value: float,
        key: str | None = None,
        final: bool = True,
        reward_id: str | None = None,
    ) -> bool:
        """See Client.reward."""
        return answers.matched(await self._call("/v1/reward", answers.reward(decision, value, key, final, reward_id)))

    async def reward_many(self, rewards: Sequence[tuple[Decision | str, float]]) -> list[bool | ApiError]:
        """See Client.reward_many."""
        return answers.each(await self._call("/v1/reward/batch", answers.rewards(rewards)), answers.matched)

    async def _call(self, path: str, body: dict[str, Any]) -> Any:
        again, unanswered = retries(body)
        for pause in answers.pauses(self._tries):
            try:
                response = await self._http.post(path, json=body)
            except unanswered:
                pass
            else:
                if response.status_code not in again:
                    return content(response)
            await asyncio.sleep(pause)
        return content(await self._http.post(path, json=body))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
