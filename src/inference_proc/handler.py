"""What stands between the transport and an application: the message handler.

The transport (connection.py) moves frames; a handler gives them meaning. An application without a protocol of its
own gets `GenericHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from ..shared.batcher import Batcher
from ..shared.envelope import BadFrame, Code, MessageStatistics, Request, read_request, write_error, write_reply

if TYPE_CHECKING:
    from .engine import Engine
    from .static import StaticEngine


class Client(Protocol):
    """What a handler sees of a connection."""

    id: str
    """The client's name: from the path, or made up for an anonymous connection."""
    named: bool
    """True if the same client may come back under the same id."""
    trusted: bool
    """True if this client may change the instance (reset)."""
    state: Any
    """Free for the handler; None at first."""


class MessageHandler(Protocol):
    """Gives meaning to frames. All calls come from one event loop."""

    supported: tuple[str, ...]
    """The types of request that are understood."""
    statistics: MessageStatistics

    def connected(self, client: Client) -> bytes | None:
        """A client is there. The frame returned greets it; an anonymous client is never greeted."""

    def heartbeat(self, client: Client) -> bytes | None:
        """The frame that a named client gets every now and then."""

    async def handle(self, client: Client, frame: str | bytes) -> bytes | None:
        """Answer one frame, or return None for a frame that gets no answer. Must not raise for anything in `frame`."""

    def refuse(self, client: Client, frame: str | bytes, code: Code, text: str) -> bytes | None:
        """The error frame for a frame that the transport turned down, or that `handle` raised on."""

    def disconnected(self, client: Client) -> None:
        """The connection is gone; called once for each `connected`."""

    def panels(self) -> dict[str, Any]:
        """What the dashboard's data should show besides the core's own figures."""


class _Decide(msgspec.Struct):
    key: str
    observation: Any


class _Reward(msgspec.Struct):
    key: str
    value: float


class _Answer(msgspec.Struct):
    """A decision in plain numbers; `action` holds one choice for each head."""

    key: str
    action: tuple[int, ...]
    probability: float
    headProbabilities: tuple[float, ...]
    send: bool
    reason: str
    expectedReward: float
    modelVersion: int


_LONGEST_KEY = 256


class GenericHandler:
    """The protocol of applications that bring none: `decide`, `reward`, `ping`.

    `{"type":"decide","key":"k","observation":[..]}` is answered with a `decision`,
    `{"type":"reward","key":"k","value":0.5}` with a `reward_response`. The
    fields may also stand in `data`. Keys belong to the instance, not to a connection.
    """

    supported: tuple[str, ...] = ("decide", "reward", "ping")

    def __init__(self, engine: Engine | StaticEngine) -> None:
        self.engine = engine
        self.statistics = MessageStatistics()
        self._batcher = Batcher(engine.decide_many, engine.config.inference.max_batch)

    def connected(self, client: Client) -> bytes | None:
        """No greeting."""
        self._batcher.callers += 1
        return None

    def heartbeat(self, client: Client) -> bytes | None:
        """None."""
        return None

    def disconnected(self, client: Client) -> None:
        """Nothing is kept for a connection."""
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
            return "pong", {"modelVersion": self.engine.model_version}
        if request.type == "decide":
            decide = self._fields(request, frame, _Decide)
            self._check(decide.observation)
            decision = await self._batcher.decide(decide.key, decide.observation)
            return "decision", _Answer(
                decision.key,
                decision.action,
                decision.probability,
                decision.head_probabilities,
                decision.send,
                decision.reason,
                decision.expected_reward,
                decision.version,
            )
        if request.type == "reward":
            reward = self._fields(request, frame, _Reward)
            return "reward_response", {"key": reward.key, "matched": self.engine.reward(reward.key, reward.value)}
        raise BadFrame("VALIDATION_ERROR", f"unknown type {request.type[:64]!r}")

    def _check(self, observation: Any) -> None:
        """Raises BadFrame if the application cannot make its features of the observation."""
        application = self.engine.application
        try:
            with np.errstate(all="ignore"):
                features = application.encode(observation)
            shape, is_finite = features.shape, bool(np.isfinite(features).all())
        except Exception as error:
            raise BadFrame("VALIDATION_ERROR", f"observation: {str(error)[:200]}") from error
        if shape != (len(application.features),):
            raise BadFrame(
                "VALIDATION_ERROR", f"observation: has the shape {shape}, not ({len(application.features)},)"
            )
        if not is_finite:
            raise BadFrame("VALIDATION_ERROR", "observation: a number is missing or too large")

    @staticmethod
    def _fields(request: Request, frame: str | bytes, kind: type[Any]) -> Any:
        """The fields of a request, from `data` or from the top of the frame."""
        try:
            fields = (
                msgspec.json.decode(frame, type=kind) if request.data is None else msgspec.convert(request.data, kind)
            )
        except msgspec.ValidationError as error:
            raise BadFrame("VALIDATION_ERROR", str(error)) from None
        if len(fields.key) > _LONGEST_KEY:
            raise BadFrame("VALIDATION_ERROR", f"key: is longer than {_LONGEST_KEY} characters")
        return fields
