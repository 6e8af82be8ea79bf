"""A shared-memory channel without an application, and records and weights that verify themselves.

Every part of a record follows from its version, every word of the weights from theirs: a reader can tell a torn
one without asking anybody.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tandem.shared.experiences.forwarded_rewards import CELL, cell_rows
from tandem.shared.experiences.lane import Lane
from tandem.shared.experiences.records import PENDING_KEY_BYTES, SEND, RecordLayout, encode_key
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.memory.arrays import create_array
from tandem.shared.memory.control import Control
from tandem.shared.weights.layout import TensorSpec, WeightsLayout
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.slots import Slots, create_slots
from tandem.shared.weights.subscriber import Subscriber

SPREAD = np.uint64(0x9E3779B97F4A7C15)


def flat_layout(size: int) -> WeightsLayout:
    """A model of `size` bytes (whole words) that is one tensor of int64."""
    return WeightsLayout((TensorSpec("words", "I64", (size // 8,), 0, size),))


def pattern(version: int) -> np.uint64:
    """The word that fills the weights of `version`."""
    with np.errstate(over="ignore"):
        return np.uint64(version + 1) * SPREAD


def fill(flat: torch.Tensor, version: int) -> torch.Tensor:
    """Make `flat` (uint8, whole words) the weights of `version`."""
    flat.numpy().view(np.uint64)[:] = pattern(version)
    return flat


def is_whole(flat: torch.Tensor, version: int) -> bool:
    """True if every word of `flat` is that of `version`."""
    return bool((flat.numpy().view(np.uint64) == pattern(version)).all())


@dataclass
class Channel:
    """The segments of one instance and how to open each end of them."""

    control: Control
    records: RecordLayout
    weights: WeightsLayout

    @property
    def name(self) -> str:
        return self.control.instance

    def claim(self, lane_class: type[Lane] = Lane) -> Lane:
        return lane_class.claim(self.control, self.records)

    def reader(self, seed: int = 1, verify: bool = False) -> ReplayReader:
        return ReplayReader(self.control, self.records, seed, verify)

    def slots(self) -> Slots:
        return Slots(self.control, self.weights)

    def publisher(self, publisher_class: type[Publisher] = Publisher) -> Publisher:
        return publisher_class(self.slots())

    def subscriber(self, subscriber_class: type[Subscriber] = Subscriber, verify: bool = False) -> Subscriber:
        return subscriber_class(self.slots(), verify)

    def room(self) -> torch.Tensor:
        """A private flat buffer, uint8 [bytes]."""
        return torch.zeros(self.weights.data_bytes, dtype=torch.uint8)

    def publish(self, publisher: Publisher, version: int) -> None:
        publisher.publish(fill(self.room(), version), version)


def record_layout(features: int = 28, heads: int = 2, components: int = 4) -> RecordLayout:
    return RecordLayout(features, heads, components, 16)


def make_channel(
    name: str,
    *,
    capacity: int = 64,
    lanes: int = 1,
    pending: int = 8,
    slots: int = 4,
    weights_bytes: int = 256,
    weights: WeightsLayout | None = None,
    records: RecordLayout | None = None,
    mode: int = 0o600,
    finish: bool = True,
    publish: bool = True,
) -> Channel:
    """Create every segment as `tandem.shared.instance` does, with weights of version 0 published."""
    records = records or record_layout()
    weights = weights or flat_layout(weights_bytes)
    header = len(weights.header())
    control = Control.create(
        name,
        {
            "slots": slots,
            "lanes": lanes,
            "capacity": capacity,
            "record_bytes": records.record.itemsize,
            "pending_capacity": pending,
            "pending_bytes": records.pending.itemsize,
            "weights_bytes": header + weights.data_bytes,
            "weights_offset": header,
        },
        {"records": records.schema(), "tensors": weights.schema()},
        mode,
    )
    for lane in range(lanes):
        create_array(name, f"ring{lane}", records.record, capacity, mode)
        create_array(name, f"pending{lane}", records.pending, pending, mode)
        create_array(name, f"mail{lane}", CELL, cell_rows(lanes, pending), mode)
    create_slots(control, weights, slots, mode)
    channel = Channel(control, records, weights)
    if publish:
        channel.publish(channel.publisher(), 0)
    if finish:
        control.finish()
    return channel


def attach_channel(name: str, timeout: float = 10.0) -> Channel:
    """Attach as an unrelated process would: everything follows from the control segment."""
    control = Control.attach(name, timeout=timeout)
    records = RecordLayout(**control.schema["records"])
    offset, specs = 0, []
    width = {"I64": 8, "F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "BOOL": 1}
    for tensor, dtype, shape in control.schema["tensors"]:
        length = width[dtype] * math.prod(shape)
        specs.append(TensorSpec(tensor, dtype, tuple(shape), offset, length))
        offset += length
    return Channel(control, records, WeightsLayout(tuple(specs)))


def payload(records: RecordLayout, ticket: int, stamp: int, reward: float | None = None) -> bytes:
    """The payload of a record whose every field follows from `stamp`; `reward` None: a pending SEND."""
    value = float(stamp % 1_000_003)
    return records.pack(
        ticket,
        stamp,
        time.time(),
        value,
        math.nan if reward is None else reward,
        value,
        value,
        SEND,
        [stamp % 1_000_003] * records.heads,
        np.full(records.features, value, np.float32),
        [value] * records.components,
        str(stamp).encode(),
    )


def add(lane: Lane, stamp: int) -> int:
    """Append one self-verifying record under the lane's lock; its number, or 0 if the lock was not to be had."""
    with lane.hold() as writer:
        if writer is None:
            return 0
        ticket = writer.next_ticket()
        return writer.append(payload(lane.records, ticket, stamp, value_of(stamp)))


def value_of(stamp: int) -> float:
    return float(stamp % 1_000_003)


def wait_for_reward(lane: Lane, key: str, stamp: int) -> None:
    """Store one self-verifying pending decision under `key`."""
    with lane.hold() as writer:
        assert writer is not None
        ticket = writer.next_ticket()
        writer.defer(ticket, payload(lane.records, ticket, stamp), key_of(key), b"")


def key_of(key: str) -> bytes:
    return encode_key(key, PENDING_KEY_BYTES)


def wrong_rows(rows: np.ndarray[Any, Any]) -> int:
    """How many of these records (structured [n]) do not agree with themselves."""
    value = (rows["version"] % 1_000_003).astype(np.float32)
    good = (rows["expected_reward"] == value) & (rows["probability"] == value) & (rows["confidence"] == value)
    good &= (rows["actual_reward"] == value) | np.isnan(rows["actual_reward"])
    good &= (rows["observation"] == value[:, None]).all(axis=1)
    good &= (rows["components"] == value[:, None]).all(axis=1)
    good &= (rows["action"] == value[:, None].astype(np.int32)).all(axis=1)
    good &= rows["key"] == rows["version"].astype("S64")
    return int(len(rows) - np.count_nonzero(good))


def batch_of(lane: Lane, stamp: int, size: int) -> np.ndarray[Any, Any]:
    """`size` self-verifying records from `stamp` on, ready for `append_many`."""
    rows = np.zeros(size, lane.records.record)
    for place in range(size):
        body = payload(lane.records, lane.counters.next_ticket(), stamp + place, value_of(stamp + place))
        rows[place] = np.frombuffer(bytes(16) + body, lane.records.record)[0]
    return rows


def balance(control: Control, lane: int = 0) -> int:
    """decided less the sum of everything that can become of a decision: 0 when nothing is in flight."""
    counts = control.lane(lane)
    kinds = ("completed", "pending", "expired", "superseded", "dropped", "rejected", "lost")
    return int(counts["decided"] - sum(counts[kind] for kind in kinds))
