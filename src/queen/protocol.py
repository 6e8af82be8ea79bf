"""The game's WebSocket protocol: gives meaning to frames, one reply for each request that has one.

The transport calls `handle` with one frame after the other. The engine is whatever has the methods used here, so that
the Queen depends on no process. State is keyed by client id and territory: every simulator calls its territory the
same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from ..shared.messages.batcher import Batcher
from ..shared.messages.envelope import (
    BadFrame,
    Code,
    MessageStatistics,
    Request,
    read_fields,
    read_request,
    write_error,
    write_reply,
)
from ..shared.rate_limit import RateLimit
from ..shared.telemetry.stats import training_stats
from . import replies, wire
from .features import ConfigSource
from .observation import SPAWN_TYPES, Observation, ObservationError, parse_observation

log = logging.getLogger(__name__)

INFERENCE_TIMEOUT = 2.0
"""Seconds after which a client no longer waits for its decision."""

_SILENT = frozenset({"spawn_result", "heartbeat_response"})
"""Requests that get no reply, not even an error: it would be taken for the answer to the next request."""

_KEYS_PER_CONNECTION = 256
_LONGEST_TERRITORY = 128

T = TypeVar("T")


@dataclass
class _Session:
    """One connection's keys, least recently used first, with the action sent last under each, if it is open."""

    sent: OrderedDict[str, tuple[int, ...] | None] = field(default_factory=OrderedDict)


# Many methods: one for each message of the protocol.
class QueenProtocol:
    """The message handler of the Queen. All calls come from one event loop."""

    def __init__(self, engine: Any, source: ConfigSource) -> None:
        self.engine = engine
        self.statistics = MessageStatistics()
        self._batcher = Batcher(engine.decide_many, engine.config.inference.max_batch, engine.forget)
        self._source = source
        self._reasons: Counter[str] = Counter()
        self._newest: tuple[Observation, Any] | None = None
        self._warn = RateLimit(10.0)
        self._uses_gpu: bool | None = None
        self.unmatched_results = 0
        self._answers: dict[str, Callable[[Any, Request], tuple[str, Any]]] = {
            "ping": self._ping,
            "health_check": self._health,
            "training_status_request": self._training_status,
            "background_training_stats_request": self._training_details,
            "gate_stats_request": self._gate_statistics,
            "reconnect": self._reconnect,
            "queen_death": self._queen_death,
            "queen_success": self._queen_success,
            "game_outcome": self._game_outcome,
            "difficulty_status_request": self._difficulty,
            "learning_progress_request": self._learning_progress,
        }
        self.supported = ("observation_data", *self._answers, "reset_nn", *sorted(_SILENT))

    def connected(self, client: Any) -> bytes | None:
        """Begin a session; the greeting for a client that has a name."""
        client.state = _Session()
        self._batcher.callers += 1
        data = {"clientId": client.id, "status": "reconnected", "queuedMessages": 0}
        return msgspec.json.encode({"type": "reconnect_confirmation", "timestamp": time.time(), "data": data})

    def heartbeat(self, client: Any) -> bytes | None:
        """The frame that a browser answers with `heartbeat_response`."""
        return msgspec.json.encode({"type": "heartbeat", "timestamp": time.time(), "data": {"status": "alive"}})

    def disconnected(self, client: Any) -> None:
        """An anonymous client's state dies with its connection; a named one may come back."""
        self._batcher.callers -= 1
        if not client.named:
            for key in client.state.sent:
                self.engine.forget(key)

    async def handle(self, client: Any, frame: str | bytes) -> bytes | None:
        """Answer one frame."""
        message_id = None
        try:
            request = read_request(frame)
            message_id = request.messageId
            answer = self._answers.get(request.type)
            kind: str
            data: Any
            if request.type == "observation_data":
                kind, data = await self._decide(client, request)
            elif answer is not None:
                kind, data = answer(client, request)
            elif request.type == "reset_nn":
                kind, data = await self._reset(client, request)
            elif request.type in _SILENT:
                if request.type == "spawn_result":
                    self._spawn_result(client, frame)
                self.statistics.successful += 1
                return None
            else:
                raise BadFrame("VALIDATION_ERROR", f"type: {request.type[:64]!r} is unknown")
        except BadFrame as error:
            self.statistics.failed(error.code)
            if error.kind in _SILENT:
                return None
            return write_error(error.code, str(error), message_id or error.message_id, client.id, self.supported)
        self.statistics.successful += 1
        return write_reply(kind, data, message_id, client.id)

    def refuse(self, client: Any, frame: str | bytes, code: Code, text: str) -> bytes | None:
        """The error frame for a frame that was turned down; None for one that gets no reply."""
        self.statistics.failed(code)
        try:
            request = read_request(frame)
            kind, message_id = request.type, request.messageId
        except BadFrame as error:
            kind, message_id = error.kind or "", error.message_id
        return None if kind in _SILENT else write_error(code, text, message_id, client.id, self.supported)

    def panels(self) -> dict[str, Any]:
        """What the dashboard shows of the game."""
        config = self._source.current
        weights = {
            "survival": config.survival_weight,
            "disruption": config.disruption_weight,
            "location": config.location_weight,
        }
        seen, decision = self._newest or (None, None)
        return {
            "decision_reasons": {"positive_reward": 0, "negative_reward": 0, "insufficient_energy": 0, **self._reasons},
            "game_state": replies.game_state(seen),
            "pipeline": None
            if seen is None
            else replies.pipeline(seen, decision, self.engine.application.gate_components, weights),
            "grid": {"chunks_per_axis": config.chunks_per_axis},
        }

    async def _decide(self, client: Any, request: Request) -> tuple[str, Any]:
        try:
            seen = parse_observation(_object(request))
        except ObservationError as error:
            raise BadFrame("VALIDATION_ERROR", f"data.{error}") from None
        if len(seen.territory_id) > _LONGEST_TERRITORY:
            raise BadFrame("VALIDATION_ERROR", f"data.territoryId: is longer than {_LONGEST_TERRITORY} characters")
        # A client id from the path holds no slash, so that no two pairs make the same key.
        # Keys hold no NUL: it becomes a character for private use, which no text has a meaning for.
        territory_id = seen.territory_id.replace("\0", "\ue000")
        key = f"{client.id}/{territory_id}"
        started = time.perf_counter()
        try:
            decision = await self._batcher.decide(key, seen, territory_id)
        except ValueError as error:
            raise BadFrame("VALIDATION_ERROR", f"data: {str(error)[:300]}") from error
        except Exception as error:
            self._warn.exception(log, "an observation could not be decided")
            raise BadFrame("NN_NOT_AVAILABLE", "the neural network could not decide") from error
        if time.perf_counter() - started > INFERENCE_TIMEOUT:
            # The client has given up on it: what it does next is no consequence of this decision.
            self.engine.forget(key)
            raise BadFrame("INFERENCE_TIMEOUT", f"the decision took longer than {INFERENCE_TIMEOUT:g} s")
        self._remember(client.state, key, decision.action if decision.send else None)
        self._reasons[decision.reason] += 1
        self._newest = seen, decision
        return replies.decision_reply(decision, seen.territory_id)

    def _remember(self, session: _Session, key: str, action: tuple[int, ...] | None) -> None:
        session.sent[key] = action
        session.sent.move_to_end(key)
        if len(session.sent) > _KEYS_PER_CONNECTION:
            oldest, _ = session.sent.popitem(last=False)
            self.engine.forget(oldest)

    def _spawn_result(self, client: Any, frame: str | bytes) -> None:
        """The newest decision of this connection with that chunk and type was not executed."""
        try:
            result = read_fields(frame, wire.SpawnResult)
        except BadFrame as error:
            self._warn.warning(log, "a spawn_result is ignored: %s", error)
            raise BadFrame(error.code, str(error), None, "spawn_result") from None
        if result.success:
            return
        action = (result.spawnChunk, SPAWN_TYPES.index(result.spawnType))
        for key, sent in reversed(client.state.sent.items()):
            if sent == action:
                client.state.sent[key] = None
                self.engine.failed(key, action)
                return
        self.unmatched_results += 1

    def _ping(self, client: Any, request: Request) -> tuple[str, Any]:
        return "pong", replies.pong(client.id, request.timestamp, self.statistics.to_dict())

    def _health(self, client: Any, request: Request) -> tuple[str, Any]:
        is_degraded = bool(self.engine.troubles())
        handler = {"supportedMessageTypes": self.supported, "statistics": self.statistics.to_dict()}
        training = {
            "enabled": self.engine.enabled,
            "isRunning": self.engine.trainer_alive,
            "modelVersion": self.engine.model_version,
        }
        return "health_response", replies.health(is_degraded, self._has_gpu(), handler, training)

    def _has_gpu(self) -> bool:
        if self._uses_gpu is None:
            import torch

            self._uses_gpu = self.engine.config.trainer.device != "cpu" and torch.cuda.is_available()
        return self._uses_gpu

    def _stats(self) -> dict[str, Any]:
        if self.engine.control is None:
            raise BadFrame("TRAINER_NOT_AVAILABLE", "; ".join(self.engine.troubles()))
        try:
            return training_stats(self.engine.control)
        except Exception as error:
            self._warn.exception(log, "the training statistics could not be read")
            raise BadFrame("TRAINER_NOT_AVAILABLE", "the training statistics cannot be read") from error

    def _training_status(self, client: Any, request: Request) -> tuple[str, Any]:
        return "training_status", replies.training_status(self._stats())

    def _training_details(self, client: Any, request: Request) -> tuple[str, Any]:
        return "background_training_stats_response", replies.training_details(self._stats())

    def _gate_statistics(self, client: Any, request: Request) -> tuple[str, Any]:
        if self.engine.gate is None:
            raise BadFrame("GATE_NOT_AVAILABLE", "this server has no gate")
        return "gate_stats_response", self.engine.gate.statistics()

    async def _reset(self, client: Any, request: Request) -> tuple[str, Any]:
        wanted = wire.ResetNn() if request.data is None else _data(request, wire.ResetNn)
        if not wanted.confirm:
            message = "send data.confirm true to replace the network's weights and to empty its memory"
            return "reset_nn_response", {"status": "confirmation_required", "message": message}
        if not client.trusted:
            raise BadFrame("RESET_ERROR", "resetting needs the token")
        try:
            version = await asyncio.to_thread(self.engine.reset)
        except Exception as error:
            log.exception("the reset failed")
            raise BadFrame("RESET_ERROR", "the reset failed") from error
        return "reset_nn_response", {"status": "success", "model_version": version}

    def _reconnect(self, client: Any, request: Request) -> tuple[str, Any]:
        return "reconnect_response", {
            "status": "reconnected",
            "clientId": client.id,
            "originalClientId": _data(request, wire.Reconnect).clientId,
            "missedMessages": [],
            "serverStatus": "healthy",
        }

    # What follows belongs to parts of the game that this server has no opinion about: valid answers without content.

    def _queen_death(self, client: Any, request: Request) -> tuple[str, Any]:
        death = _data(request, wire.QueenDeath)
        generation = death.generation + 1
        return "queen_strategy", {
            "queenId": death.queenId,
            "generation": generation,
            "strategies": {},
            "strategy": {"generation": generation},
            "learningInsights": {},
        }

    def _queen_success(self, client: Any, request: Request) -> tuple[str, Any]:
        success = _data(request, wire.QueenSuccess)
        return "success_training_result", {
            "queenId": success.queenId,
            "generation": success.generation,
            "reinforcement_type": "positive",
            "training_metrics": {"success": True},
        }

    def _game_outcome(self, client: Any, request: Request) -> tuple[str, Any]:
        _data(request, wire.GameOutcome)
        result = {"current_difficulty": 0.5, "adjustment_made": False, "adjustment_reason": ""}
        return "difficulty_adjustment", {"difficultyResult": result}

    def _difficulty(self, client: Any, request: Request) -> tuple[str, Any]:
        return "difficulty_status", {"currentDifficulty": 0.5, "difficultyModifiers": {}, "difficultyInsights": {}}

    def _learning_progress(self, client: Any, request: Request) -> tuple[str, Any]:
        queen_id = _data(request, wire.LearningProgress).queenId
        return "learning_progress", {"queen_id": queen_id, "queenId": queen_id, "current_generation": 1, "progress": {}}


def _object(request: Request) -> dict[str, Any]:
    if request.data is None:
        raise BadFrame("MISSING_DATA", f"{request.type}: data is missing")
    if not isinstance(request.data, dict):
        raise BadFrame("VALIDATION_ERROR", "data: must be an object")
    return request.data


def _data(request: Request, kind: type[T]) -> T:
    """The request's data as `kind`. Raises BadFrame naming the field that is missing or mistyped."""
    try:
        return msgspec.convert(_object(request), kind)
    except ValueError as error:
        raise BadFrame("VALIDATION_ERROR", f"data: {error}") from None
