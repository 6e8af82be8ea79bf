"""Decides what arrives together in one forward pass; what arrives alone is decided at once.

For asyncio servers. Requests that the event loop takes up in the same turn are collected and handed to the engine
together at the end of it: nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

Request = tuple[Any, ...]
"""Key, observation, territory id, and whatever else the engine takes."""


class Batcher:
    """Collects the requests of one event loop for `decide_many`, at most `most` at a time.

    `decide_many(requests)` returns for each request a decision or the exception that it met. If it raises all the same,
    each request is decided on its own, so that the fault is that of its own request only.

    A caller that is cancelled before its turn is not decided for; if it is cancelled between the decision and its
    answer, `undelivered(key)` is called: nobody will act on that decision.
    """

    def __init__(
        self,
        decide_many: Callable[[Sequence[Request]], Sequence[Any]],
        most: int = 32,
        undelivered: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._decide_many = decide_many
        self._most = most
        self._undelivered = undelivered
        self._waiting: list[tuple[Request, asyncio.Future[Any]]] = []
        self.callers = 0
        """How many may ask at the same time; with one there is nobody to wait for. SavedState by the owner."""

    async def decide(self, key: str, observation: Any, territory_id: str = "") -> Any:
        """The decision for one request. Raises what deciding it raised."""
        return await self.ask((key, observation, territory_id), self._undelivered)

    async def ask(self, request: Request, undelivered: Callable[[str], None] | None = None) -> Any:
        """As `decide`; a caller that is cancelled has its decision reported to `undelivered`, if it is given."""
        if self.callers <= 1 and not self._waiting:
            result = self._decide_many([request])[0]
            if isinstance(result, Exception):
                raise result
            return result
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._decide_waiting, loop)
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((request, future))
        try:
            return await future
        except asyncio.CancelledError:
            was_decided = future.done() and not future.cancelled() and future.exception() is None
            if was_decided and undelivered is not None:
                undelivered(request[0])
            raise

    def _decide_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        taken = self._waiting[: self._most]
        del self._waiting[: self._most]
        if self._waiting:
            # The rest comes after whatever else the loop has to do: a turn stays as short as one batch.
            loop.call_soon(self._decide_waiting, loop)
        batch = [item for item in taken if not item[1].done()]  # the others' connections went away meanwhile
        if not batch:
            return
        try:
            results = self._decide_all([request for request, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(RuntimeError(f"the batch was interrupted by {error!r}"))
            raise
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _decide_all(self, requests: Sequence[Request]) -> Sequence[Any]:
        try:
            results = self._decide_many(requests)
            if len(results) != len(requests):
                raise RuntimeError(f"{len(results)} decisions were made for {len(requests)} requests")
            return results
        except Exception as error:
            if len(requests) == 1:
                return [error]
        return [self._decide_all([request])[0] for request in requests]
