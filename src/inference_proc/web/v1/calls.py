"""`POST /v1/decide` and `POST /v1/reward`, one at a time and in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ....shared.actions.offer import Choices
from ....shared.features import PlainFeatures
from ....shared.ids.rewards_by_id import Outcome
from ....shared.messages.batcher import Batcher
from ....shared.messages.json_faults import is_text
from ....shared.messages.numbers import check_numbers
from ....shared.rate_limit import RateLimit
from ...turn import DecideRequest as Asked
from ..json_response import BadBody, read_body
from .messages import (
    DecideAnswer,
    DecideAnswers,
    DecideBatch,
    DecideRequest,
    DecideResult,
    RewardAnswer,
    RewardAnswers,
    RewardBatch,
    RewardRequest,
    RewardResult,
)
from .problems import Refused, refusal

if TYPE_CHECKING:
    from ..serving import Serving

log = logging.getLogger(__name__)

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode

_ENDED = {
    Outcome.GONE: (410, "the decision waits for no reward any more: it expired, was superseded, blocked or given up"),
    Outcome.UNKNOWN: (404, "no decision has this id"),
    Outcome.BUSY: (503, "the decision is being rewarded or settled at this moment; send it again"),
    Outcome.REFUSED: (400, "value: must be finite as a 32-bit number"),
}


class Calls:
    """The calls on one service's engine."""

    def __init__(self, service: Serving) -> None:
        engine = service.engine
        self._engine = engine
        self._access = service.access
        self._limit = service.limits.body_bytes
        self._most = engine.config.inference.max_batch
        self._batcher = Batcher(engine.decide_many, self._most)
        self._service = service
        self._heads = engine.application.heads
        self._has_labels = any(head.labels for head in self._heads)
        self._features = engine.application.features if isinstance(engine.application.encode, PlainFeatures) else None
        self._warn = RateLimit(10.0)

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("/v1/decide", self.decide, methods=["POST"]),
            Route("/v1/decide/batch", self.decide_batch, methods=["POST"]),
            Route("/v1/reward", self.reward, methods=["POST"]),
            Route("/v1/reward/batch", self.reward_batch, methods=["POST"]),
        ]

    async def decide(self, request: Request) -> Response:
        """Decide for one observation."""
        return await self._answered(request, DecideRequest, self._decide)

    async def decide_batch(self, request: Request) -> Response:
        """Decide for several observations, in their order; each is answered by itself."""
        return await self._answered(request, DecideBatch, self._decide_batch)

    async def reward(self, request: Request) -> Response:
        """Say what a decision earned, by its id or its key."""
        return await self._answered(request, RewardRequest, self._reward_one)

    async def reward_batch(self, request: Request) -> Response:
        """Say what several decisions earned, in their order; each is answered by itself."""
        return await self._answered(request, RewardBatch, self._reward_batch)

    async def _answered(self, request: Request, kind: type[T], answer: Callable[[T], Awaitable[Any]]) -> Response:
        """The response to a request whose body is a `kind`."""
        # A call runs to its end before the next one begins: only who is connected says that there may be more.
        self._batcher.callers = self._service.open_connections()
        try:
            if not self._access.may_change(request.scope):
                raise Refused(403, "needs the token (Authorization: Bearer ...), or a program on this machine")
            return _json(await answer(await self._body(request, kind)))
        except Exception as error:
            return self._refused(error).response()

    def _refused(self, error: Exception) -> Refused:
        """How a failure is answered, inside its handler; what no client could mend is logged."""
        refused = refusal(error)
        if refused is not None:
            return refused
        self._warn.exception(log, "a call could not be answered")
        return Refused(500, "the policy could not decide for this observation")

    async def _body(self, request: Request, kind: type[T]) -> T:
        try:
            body = await read_body(request, self._limit)
            return msgspec.json.decode(body, type=kind)
        except BadBody as error:
            raise Refused(error.status, str(error)) from None
        except msgspec.ValidationError as error:
            raise Refused(400, str(error)[:300]) from None
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON: {str(error)[:300]}") from None

    async def _decide(self, asked: DecideRequest) -> DecideAnswer:
        return self._answer(await self._batcher.ask(self._checked(asked)))

    async def _decide_batch(self, batch: DecideBatch) -> DecideAnswers:
        results: list[DecideResult] = []
        for start in range(0, len(batch.requests), self._most):
            if start:
                # Others are answered in between.
                await asyncio.sleep(0)
            results += self._decide_some(batch.requests[start : start + self._most])
        return DecideAnswers(results)

    def _decide_some(self, requests: list[DecideRequest]) -> list[DecideResult]:
        """At most a forward pass's worth of them."""
        results: list[DecideResult | None] = []
        sound = []
        for asked in requests:
            try:
                sound.append(self._checked(asked))
            except Refused as error:
                results.append(DecideResult(problem=error.problem))
            else:
                results.append(None)
        decided = iter(self._engine.decide_many(sound))
        return [self._result(next(decided)) if result is None else result for result in results]

    def _result(self, decision: Any) -> DecideResult:
        try:
            if isinstance(decision, Exception):
                raise decision
            return DecideResult(self._answer(decision))
        except Exception as error:
            return DecideResult(problem=self._refused(error).problem)

    def _checked(self, asked: DecideRequest) -> Asked:
        """The question as the engine takes it. Raises Refused for one that the application cannot be asked."""
        for name, text in (("key", asked.key), ("request_id", asked.request_id)):
            _check_text(name, text)
        if self._features is not None:
            fault = check_numbers(asked.observation, self._features)
            if fault is not None:
                raise Refused(400, fault)
        choices = None
        if asked.allowed is not None or asked.candidates is not None:
            brought = asked.candidates
            choices = Choices(
                asked.allowed, None if brought is None else [(item.id, item.features) for item in brought]
            )
        return Asked(asked.key, asked.observation, "", asked.request_id, choices)

    def _answer(self, decision: Any) -> DecideAnswer:
        labels = decision.labels or None
        if self._has_labels:
            choices = zip(self._heads, decision.action, strict=True)
            labels = tuple([head.labels[choice] if head.labels else None for head, choice in choices])
        return DecideAnswer(
            decision.id or None,
            decision.action,
            labels,
            decision.recorded_probability,
            decision.send,
            decision.reason,
            decision.version,
        )

    async def _reward_one(self, given: RewardRequest) -> RewardAnswer:
        return self._reward(given)

    async def _reward_batch(self, batch: RewardBatch) -> RewardAnswers:
        results: list[RewardResult] = []
        for number, given in enumerate(batch.rewards):
            if number % self._most == self._most - 1:
                await asyncio.sleep(0)
            try:
                results.append(RewardResult(self._reward(given)))
            except Exception as error:
                refused = refusal(error)
                if refused is None:
                    raise
                results.append(RewardResult(problem=refused.problem))
        return RewardAnswers(results)

    def _reward(self, given: RewardRequest) -> RewardAnswer:
        engine, name = self._engine, given.decision_id
        for field in ("key", "reward_id", "decision_id"):
            _check_text(field, getattr(given, field))
        if (name is None) == (given.key is None):
            raise Refused(400, "name the decision by one of decision_id and key")
        if name is None:
            assert given.key is not None
            name = engine.waiting_id(given.key) if given.reward_id is not None and not given.final else None
            if name is None:
                matched = engine.reward(given.key, given.value, given.final)
                return RewardAnswer(None, matched, matched)
        outcome = engine.reward_decision(name, given.value, given.final, given.reward_id)
        if outcome in _ENDED:
            raise Refused(*_ENDED[outcome])
        return RewardAnswer(name, True, outcome is Outcome.COUNTED)


def _json(content: Any) -> Response:
    return Response(_encode(content), 200, {"cache-control": "no-store"}, "application/json")


def _check_text(name: str, text: str | None) -> None:
    if text is not None and ("\0" in text or not is_text(text)):
        raise Refused(400, f"{name}: holds a NUL character or half of a surrogate pair")
