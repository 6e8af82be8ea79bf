"""The record of one experience, byte for byte, and the pending entry that it grows from.

A record is `sequence, checksum, payload`. The writer stores sequence 0, the payload, the checksum, then the sequence:
a reader that finds the expected sequence before and after copying a row has a whole one. The checksum is
seeded with the sequence: it detects a damaged row, and on machines with weak store ordering also a torn one.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory.rows import PREFIX_BYTES
from ..values import all_fit_float32
from ..values import key_hash as key_hash

KEY_BYTES = 64
PENDING_KEY_BYTES = 128
REASON_BYTES = 56
WAIT, SEND = 0, 1

TICKET_BITS = 48
"""A ticket is the lane's index above this many bits, and the lane's count of decisions in them."""

_NUL, _CUT = b"\xff", b"\xfe"
"""Bytes that UTF-8 never uses: they stand for a zero byte, which numpy strips from the end of a text, and for a cut."""
_DIGEST = 32


def encode_key(key: str, width: int) -> bytes:
    """`key` as at most `width` bytes without a zero byte, different for different keys.

    UTF-8, a zero byte as 0xFF; a key that is too long is cut and ends in 0xFE and 32 hexadecimal digits of its SHA-256.
    """
    data = key.encode("utf-8", "surrogatepass")
    if b"\0" in data:
        data = data.replace(b"\0", _NUL)
    if len(data) <= width:
        return data
    return data[: width - 1 - _DIGEST] + _CUT + hashlib.sha256(data).hexdigest()[:_DIGEST].encode()


def decode_key(data: bytes) -> str:
    """The key that `encode_key` made `data` of; of a cut one its beginning, `~` and the digest."""
    data = data.rstrip(b"\0").replace(_NUL, b"\0").replace(_CUT, b"~")
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


@dataclass(frozen=True)
class RecordLayout:
    """Sizes and dtypes of records and pending entries for one application.

    `record` fields: sequence u8, checksum u8, ticket u8 (names the decision: lane and count), version u8 (the
    weights that decided), timestamp f8 (seconds since 1970), expected_reward f4, actual_reward f4 (NaN: none),
    probability f4 (with which the action was drawn), confidence f4, decision u4 (0 WAIT, 1 SEND), action
    i4[heads], observation f4[features], components f4[components], key S64, value f4[1] (a GaussianHead's number; with
    one only), candidates f4[M, C] and candidate_ids u8[M] (`key_hash` of their ids; with a CandidateHead only), allowed
    u1[(choices + 7) // 8] (bit c % 8 of byte c // 8 says whether choice c was allowed, the heads' choices one after the
    other, or whether candidate c was there), and padding to whole words.
    `pending` is a record followed by `owner_hash` u8 (`key_hash` of the owner), `decided_ns` i8 (time of the decision
    on the monotonic clock, nanoseconds; negative: before this boot), `request` u8 (hash of the id of the request that
    it answered; 0: none), `reason` S56 (the gate's, if there is a request), `owner` S128 (the key that a reward will
    name) and `context` (opaque bytes with which the application computes the reward), padded.
    """

    features: int
    heads: int
    components: int
    context_bytes: int = 0
    choices: int = 0
    candidates: int = 0
    candidate_features: int = 0
    values: int = 0

    def __post_init__(self) -> None:
        offered = np.dtype(self._offered_fields()).itemsize
        body = f"<QQd4fI{self.heads}i{4 * self.features}s{self.components}f{KEY_BYTES}s{offered}s"
        size = PREFIX_BYTES + struct.calcsize(body)
        pad = -size % 8
        fields: list[Any] = [
            ("sequence", "<u8"),
            ("checksum", "<u8"),
            ("ticket", "<u8"),
            ("version", "<u8"),
            ("timestamp", "<f8"),
            ("expected_reward", "<f4"),
            ("actual_reward", "<f4"),
            ("probability", "<f4"),
            ("confidence", "<f4"),
            ("decision", "<u4"),
            ("action", "<i4", (self.heads,)),
            ("observation", "<f4", (self.features,)),
            ("components", "<f4", (self.components,)),
            ("key", f"S{KEY_BYTES}"),
        ]
        fields += self._offered_fields()
        if pad:
            fields.append(("padding", f"V{pad}"))
        record = np.dtype(fields)
        tail: list[Any] = [
            ("owner_hash", "<u8"),
            ("decided_ns", "<i8"),
            ("request", "<u8"),
            ("reason", f"S{REASON_BYTES}"),
            ("owner", f"S{PENDING_KEY_BYTES}"),
            ("context", f"V{max(1, self.context_bytes)}"),
        ]
        pad = -(record.itemsize + 24 + REASON_BYTES + PENDING_KEY_BYTES + max(1, self.context_bytes)) % 8
        if pad:
            tail.append(("tail", f"V{pad}"))
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "pending", np.dtype([*fields, *tail]))
        object.__setattr__(self, "_payload", struct.Struct(f"{body}{record.itemsize - size}x"))
        object.__setattr__(self, "everything", self.everything_allowed.tobytes().rjust(offered, b"\0"))

    def _offered_fields(self) -> list[Any]:
        most, fields = self.candidates, list[Any]()
        if self.values:
            fields.append(("value", "<f4", (self.values,)))
        if most:
            fields += [("candidates", "<f4", (most, self.candidate_features)), ("candidate_ids", "<u8", (most,))]
        return [*fields, ("allowed", "u1", (-(-self.choices // 8),))]

    record: np.dtype[Any] = None  # type: ignore[assignment]
    pending: np.dtype[Any] = None  # type: ignore[assignment]
    _payload: struct.Struct = None  # type: ignore[assignment]
    everything: bytes = b""
    """`offered` of a decision for which every choice was allowed."""

    # Many parameters: the columns of a record, in their order; an object in between would cost a third of the packing.
    def pack(
        self,
        ticket: int,
        version: int,
        timestamp: float,
        expected_reward: float,
        actual_reward: float,
        probability: float,
        confidence: float,
        decision: int,
        action: Sequence[int],
        observation: NDArray[np.float32],
        components: Sequence[float],
        key: bytes,
        offered: bytes = b"",
    ) -> bytes:
        """The payload of a record: everything after the checksum. `offered`: value, candidates, their ids and what was
        allowed (default: everything).

        Raises struct.error or ValueError for a value that does not fit.
        """
        if observation.nbytes != 4 * self.features:
            raise ValueError(f"observation: {observation.size} numbers, expected {self.features} (float32)")
        return self._payload.pack(
            ticket,
            version,
            timestamp,
            expected_reward,
            actual_reward,
            probability,
            confidence,
            decision,
            *action,
            observation.tobytes(),
            *components,
            key,
            offered or self.everything,
        )

    @property
    def everything_allowed(self) -> NDArray[np.uint8]:
        """The field `allowed` of a decision for which every choice was allowed: uint8[(choices + 7) // 8]."""
        return np.packbits(np.ones(self.choices, np.bool_), bitorder="little")

    def of_number(self, number: float) -> bytes:
        """`offered` of a decision for this number."""
        return _FLOAT.pack(number) + self.everything[_FLOAT.size :]

    def allowed(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """What was allowed when these records (structured [n]) were decided: bool[n, choices]."""
        bits = np.unpackbits(rows["allowed"], axis=1, count=self.choices, bitorder="little")
        return bits.view(np.bool_)

    def schema(self) -> dict[str, int]:
        """What another process needs to rebuild this layout."""
        return {
            "features": self.features,
            "heads": self.heads,
            "components": self.components,
            "context_bytes": self.context_bytes,
            "choices": self.choices,
            "candidates": self.candidates,
            "candidate_features": self.candidate_features,
            "values": self.values,
        }


ACTUAL_AT = 28
"""Where in a payload the actual reward lies (see RecordLayout)."""

_FLOAT = struct.Struct("<f")


def with_reward(payload: bytes | memoryview, reward: float) -> bytes:
    """The payload with its actual reward filled in."""
    return b"".join((payload[:ACTUAL_AT], _FLOAT.pack(reward), payload[ACTUAL_AT + 4 :]))


def checksums(payloads: NDArray[np.uint8], sequences: NDArray[np.int64]) -> NDArray[np.int64]:
    """`memory.rows.checksum` of every row of uint8 [n, length] with its sequence int64 [n]: int64 [n].

    Rows are summed as float64, which holds the sums exactly for rows of up to 8 MiB.
    """
    length = payloads.shape[1]
    weights = np.stack([np.ones(length), np.arange(length, 0, -1.0)], axis=1)
    sums = (payloads.astype(np.float64) @ weights).astype(np.int64)
    low, high = (1 + sums[:, 0]) % 65521, (length + sums[:, 1]) % 65521
    return (high << 16 | low) ^ (sequences & 0xFFFFFFFF)


def is_finite_record(observation: NDArray[np.float32], *numbers: float) -> bool:
    """True if every number is finite, also as the 32-bit float that a record holds."""
    # A sum of squares is finite only if each of them is; of large numbers it need not be.
    is_finite = math.isfinite(observation.dot(observation)) or bool(np.isfinite(observation).all())
    return is_finite and all_fit_float32(numbers)
