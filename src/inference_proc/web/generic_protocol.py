"""The message handler of applications that bring no protocol of their own: `GenericHandler`.

The transport (websocket.py) moves frames; a handler gives them meaning (shared/messages/handler.py says how).
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ...shared.application import ActionHead, Application
from ...shared.features import PlainFeatures
from ...shared.messages.batcher import Batcher
from ...shared.messages.envelope import (
    BadFrame,
    Code,
    MessageStatistics,
    Request,
    read_fields,
    read_request,
    write_error,
    write_reply,
)
from ...shared.messages.handler import Client, Decider, MessageHandler
from ...shared.messages.numbers import check_numbers
from ...shared.rate_limit import RateLimit
from ...shared.values import FLOAT32_MAX

log = logging.getLogger(__name__)


class _Decide(msgspec.Struct):
    key: str
    observation: Any


class _Reward(msgspec.Struct):
    key: str
    value: float
    final: bool = True


class _Answer(msgspec.Struct):
    """A decision in plain numbers; `action` holds one choice for each head, `labels` its label, null if it has none.

    Without `labels` no head has any.
    """

    key: str
    action: tuple[int, ...]
    probability: float
    headProbabilities: tuple[float, ...]
    send: bool
    reason: str
    expectedReward: float
    modelVersion: int
    labels: tuple[str | None, ...] | UnsetType = UNSET


_LONGEST_KEY = 256


class GenericHandler(MessageHandler):
    """The protocol of applications that bring none: `decide`, `reward`, `ping`.

    `{"type":"decide","key":"k","observation":[..]}` is answered with a `decision`,
    `{"type":"reward","key":"k","value":0.5}` with a `reward_response`. The
    fields may also stand in `data`. Keys belong to the instance, not to a connection. docs/protocol.md has the rest.
    At most `max_batch` observations that arrive together are decided in one forward pass.
    """

    supported: tuple[str, ...] = ("decide", "reward", "ping")

    def __init__(self, decider: Decider, application: Application, max_batch: int = 32) -> None:
        self.statistics = MessageStatistics()
        self._decider = decider
        self._batcher = Batcher(decider.decide_many, max_batch, decider.forget)
        self._features = application.features
        self._heads = application.heads
        self._is_plain = isinstance(application.encode, PlainFeatures)
        self._has_labels = any(head.labels for head in self._heads)
        self._warn = RateLimit(10.0)

    def connected(self, client: Client) -> bytes | None:
        """No greeting."""
        self._batcher.callers += 1
        return None

    def heartbeat(self, client: Client) -> bytes | None:
        """None."""
        return None

    def disconnected(self, client: Client) -> None:
        """A connection has no state here."""
        self._batcher.callers -= 1

    def panels(self) -> dict[str, Any]:
        """None of its own."""
        return {}

    async def handle(self, client: Client, frame: str | bytes) -> bytes | None:
        """Answer one frame."""
        message_id = None
        try:
            request = read_request(frame)
            message_id = request.messageId
            kind, data = await self._answer(request, frame)
        except BadFrame as error:
            self.statistics.failed(error.code)
            return write_error(error.code, str(error), message_id or error.message_id, client.id, self.supported)
        self.statistics.successful += 1
        return write_reply(kind, data, message_id, client.id)

    def refuse(self, client: Client, frame: str | bytes, code: Code, text: str) -> bytes | None:
        """The error frame for a frame that was turned down."""
        self.statistics.failed(code)
        try:
            message_id = read_request(frame).messageId
        except BadFrame as error:
            message_id = error.message_id
        return write_error(code, text, message_id, client.id, self.supported)

    async def _answer(self, request: Request, frame: str | bytes) -> tuple[str, Any]:
        if request.type == "ping":
            return "pong", {"modelVersion": self._decider.model_version}
        if request.type == "decide":
            return "decision", await self._decide(self._fields(request, frame, _Decide))
        if request.type == "reward":
            return "reward_response", self._reward(self._fields(request, frame, _Reward))
        raise BadFrame("VALIDATION_ERROR", f"type: {request.type[:64]!r} is unknown")

    async def _decide(self, decide: _Decide) -> _Answer:
        if self._is_plain:
            fault = check_numbers(decide.observation, self._features)
            if fault is not None:
                raise BadFrame("VALIDATION_ERROR", fault)
        try:
            decision = await self._batcher.decide(decide.key, decide.observation)
        except ValueError as error:
            raise BadFrame("VALIDATION_ERROR", str(error)[:300]) from error
        except Exception as error:
            self._warn.exception(log, "an observation could not be decided")
            raise BadFrame("NN_NOT_AVAILABLE", "the policy could not decide for this observation") from error
        return _Answer(
            decision.key,
            decision.action,
            decision.probability,
            decision.head_probabilities,
            decision.send,
            decision.reason,
            decision.expected_reward,
            decision.version,
            _labels(self._heads, decision.action) if self._has_labels else UNSET,
        )

    def _reward(self, reward: _Reward) -> dict[str, Any]:
        if not abs(reward.value) <= FLOAT32_MAX:
            raise BadFrame("VALIDATION_ERROR", f"value: {reward.value:g} is out of range (allowed: +-{FLOAT32_MAX:g})")
        try:
            matched = self._decider.reward(reward.key, reward.value, reward.final)
        except ValueError as error:
            raise BadFrame("VALIDATION_ERROR", str(error)[:300]) from error
        return {"key": reward.key, "matched": matched}

    @staticmethod
    def _fields(request: Request, frame: str | bytes, kind: type[Any]) -> Any:
        """The fields of a request, from `data` or from the top of the frame."""
        if request.data is None:
            fields = read_fields(frame, kind)
        else:
            try:
                fields = msgspec.convert(request.data, kind)
            except ValueError as error:
                raise BadFrame("VALIDATION_ERROR", f"data: {error}") from None
        if len(fields.key) > _LONGEST_KEY:
            raise BadFrame("VALIDATION_ERROR", f"key: is longer than {_LONGEST_KEY} characters")
        if "\0" in fields.key:
            raise BadFrame("VALIDATION_ERROR", "key: holds a NUL character")
        return fields


def _labels(heads: tuple[ActionHead, ...], action: tuple[int, ...]) -> tuple[str | None, ...]:
    return tuple([head.labels[choice] if head.labels else None for head, choice in zip(heads, action, strict=True)])
