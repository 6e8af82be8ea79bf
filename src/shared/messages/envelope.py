"""The envelope of every message on a WebSocket: reading a request's, writing a reply's, counting both.

A request is one JSON object with `type` and, if it likes, `timestamp`, `messageId`, `clientId` and `data`. A reply has
`type`, `timestamp` (seconds since 1970), `messageId`, `clientId` and `data`. Strict JSON: what is not finite is null.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal, TypeVar

import msgspec

from ..errors import TandemError
from .json_faults import Fault, find_fault, is_text

Code = Literal[
    "VALIDATION_ERROR",
    "DESERIALIZATION_ERROR",
    "MISSING_DATA",
    "NN_NOT_AVAILABLE",
    "INFERENCE_TIMEOUT",
    "GATE_NOT_AVAILABLE",
    "TRAINER_NOT_AVAILABLE",
    "RESET_ERROR",
    "PROCESSING_ERROR",
    "CONNECTION_ERROR",
]

RETRYABLE: frozenset[Code] = frozenset({"PROCESSING_ERROR", "INFERENCE_TIMEOUT", "CONNECTION_ERROR"})
"""Errors after which the same frame may succeed."""

T = TypeVar("T")

_LONGEST_ID = 256
_LONGEST_TEXT = 300


class Request(msgspec.Struct):
    """The envelope of a request; keys that are not named here are ignored."""

    type: str
    timestamp: float | None = None
    messageId: str | None = None
    clientId: str | None = None
    data: Any = None


class BadFrame(TandemError, ValueError):
    """A frame was refused. `code` and the text go into the error reply; `kind` is the frame's type if it has one."""

    def __init__(self, code: Code, text: str, message_id: str | None = None, kind: str | None = None) -> None:
        self.code = code
        self.message_id = message_id
        self.kind = kind
        super().__init__(text)


class _Reply(msgspec.Struct):
    type: str
    timestamp: float
    messageId: str
    clientId: str
    data: Any


class _Error(msgspec.Struct):
    error: str
    errorCode: str
    status: str
    retryable: bool
    supportedMessageTypes: tuple[str, ...]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Request).decode
_decode_anything = msgspec.json.Decoder().decode


def read_request(frame: str | bytes) -> Request:
    """The envelope of a frame.

    Raises BadFrame: DESERIALIZATION_ERROR if the frame is not JSON, VALIDATION_ERROR if it is not an object, has no
    `type`, or a field of the envelope has the wrong type or is out of range. The text names the field.
    """
    try:
        request = _decode(frame)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
        raise _refused(frame, error) from None
    if request.messageId is not None and len(request.messageId) > _LONGEST_ID:
        raise BadFrame("VALIDATION_ERROR", f"messageId: is longer than {_LONGEST_ID} characters", None, request.type)
    return request


def read_fields(frame: str | bytes, kind: type[T]) -> T:
    """The top level of a frame as `kind`. Raises BadFrame as `read_request` does."""
    try:
        return msgspec.json.decode(frame, type=kind)
    except (ValueError, RecursionError) as error:
        raise _refused(frame, error) from None


def _refused(frame: str | bytes, error: Exception) -> BadFrame:
    """The refusal of a frame that could not be decoded, with what can be rescued for the reply."""
    if isinstance(error, RecursionError):
        return BadFrame("DESERIALIZATION_ERROR", "the frame is nested too deeply")
    text = str(error)[:_LONGEST_TEXT]
    if isinstance(error, msgspec.ValidationError) and "out of range" not in text:
        try:
            value = _decode_anything(frame)
        except (ValueError, RecursionError):
            pass  # the typed decoder stops at the first mismatch: the rest may not even be JSON
        else:
            if not isinstance(value, dict):
                text = f"the frame must be an object: {text}"
            return BadFrame("VALIDATION_ERROR", text, *_rescue(value))
    # Without a fault this parser is more lenient than the other, whose word counts.
    fault = find_fault(frame) or Fault(text, isinstance(error, msgspec.ValidationError))
    if fault.is_json:
        return BadFrame("VALIDATION_ERROR", fault.text, *_rescue(fault.value))
    message_id, _ = _rescue(fault.value)
    return BadFrame("DESERIALIZATION_ERROR", f"the frame is not JSON: {fault.text}", message_id)


def _rescue(value: Any) -> tuple[str | None, str | None]:
    """The message id and the type of a frame, if it has them."""
    if not isinstance(value, dict):
        return None, None
    message_id, kind = value.get("messageId"), value.get("type")
    if not (isinstance(message_id, str) and len(message_id) <= _LONGEST_ID and is_text(message_id)):
        message_id = None
    return message_id, kind if isinstance(kind, str) else None


def write_reply(kind: str, data: Any, message_id: str | None, client_id: str) -> bytes:
    """One reply as JSON. A request without `messageId` gets a fresh one."""
    return _encode(_Reply(kind, time.time(), str(uuid.uuid4()) if message_id is None else message_id, client_id, data))


def write_error(code: Code, text: str, message_id: str | None, client_id: str, supported: tuple[str, ...]) -> bytes:
    """One error reply as JSON."""
    data = _Error(text, code, "error", code in RETRYABLE, supported)
    return write_reply("error", data, message_id, client_id)


class MessageStatistics:
    """Counts of handled messages, under the names of status replies. Owned by one event loop."""

    def __init__(self) -> None:
        self.successful = 0
        self.validation_errors = 0
        self.processing_errors = 0

    def failed(self, code: Code) -> None:
        """Count a message that was answered with an error."""
        if code in ("VALIDATION_ERROR", "DESERIALIZATION_ERROR", "MISSING_DATA"):
            self.validation_errors += 1
        else:
            self.processing_errors += 1

    def to_dict(self) -> dict[str, int]:
        """`total_processed`, `successful`, `failed`, `validation_errors`, `processing_errors`."""
        failed = self.validation_errors + self.processing_errors
        return {
            "total_processed": self.successful + failed,
            "successful": self.successful,
            "failed": failed,
            "validation_errors": self.validation_errors,
            "processing_errors": self.processing_errors,
        }

    @property
    def success_rate(self) -> float:
        """Share of messages that were not answered with an error; 1 before the first."""
        total = self.successful + self.validation_errors + self.processing_errors
        return self.successful / total if total else 1.0
