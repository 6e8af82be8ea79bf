"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from . import answers
from .answers import AGAIN, ApiError, Decision
from .synchronous import content


class AsyncClient:
    """As Client, with calls to be awaited."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 5.0, tries: int = 8) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._tries = tries
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)

    async def decide(self, observation: Any, key: str | None = None, **options: Any) -> Decision:
        """A decision. `options`: request_id, allowed, candidates."""
        return Decision.of(await self._call("/v1/decide", answers.question(observation, key, **options)))

    async def decide_many(self, observations: Iterable[Any]) -> list[Decision | ApiError]:
        """A decision for each observation, up to 256, or what was wrong with it."""
        body = {"requests": [answers.question(observation) for observation in observations]}
        found = answers.each((await self._call("/v1/decide/batch", body))["results"])
        return [answer if isinstance(answer, ApiError) else Decision.of(answer) for answer in found]

    async def reward(
        self,
        decision: Decision | str | None,
        value: float,
        key: str | None = None,
        final: bool = True,
        reward_id: str | None = None,
    ) -> bool:
        """See Client.reward."""
        answer = await self._call("/v1/reward", answers.reward(decision, value, key, final, reward_id))
        return bool(answer["matched"])

    async def reward_many(self, rewards: Sequence[tuple[Decision | str, float]]) -> list[bool | ApiError]:
        """See Client.reward_many."""
        body = {"rewards": [answers.reward(decision, value) for decision, value in rewards]}
        found = answers.each((await self._call("/v1/reward/batch", body))["results"])
        return [answer if isinstance(answer, ApiError) else bool(answer["matched"]) for answer in found]

    async def _call(self, path: str, body: dict[str, Any]) -> Any:
        for pause in answers.pauses(self._tries):
            try:
                response = await self._http.post(path, json=body)
            except httpx.TransportError:
                pass
            else:
                if response.status_code not in AGAIN:
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
