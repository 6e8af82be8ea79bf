"""The replay buffer: completed experiences to sample from, pending ones that wait for their reward.

It lives in shared memory: the server adds and rewards, the trainer samples, at the same time and without a lock
between them. Methods called by threads that may wait use a process-local lock with a timeout; on a timeout they log and
return False, None or nothing (requirements 1.1 to 1.5 and 7.1).
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .experiences.experience import WAIT_FLOOR, Experience
from .experiences.lane import Lane
from .experiences.records import KEY_BYTES, PENDING_KEY_BYTES, WAIT, encode_key, is_finite_record
from .experiences.sampler import ReplayReader
from .experiences.strategies import strategy_of
from .instance import Instance
from .learning import learner_name
from .memory.control import Control
from .memory.rows import PREFIX_BYTES
from .telemetry.stats import buffer_stats

log = logging.getLogger(__name__)


class ExperienceReplayBuffer:
    """The buffer of a running instance, seen from one process.

    Reading needs nothing; the first `add` or `update_pending_reward` claims a writer lane (raising LaneBusy if
    all have living owners).
    """

    def __init__(self, instance: Instance | str = "default", lane: Lane | None = None, seed: int | None = None) -> None:
        self.instance = Instance(instance) if isinstance(instance, str) else instance
        self.control: Control = self.instance.control
        config = self.instance.config.trainer
        learner = learner_name(config.learner, self.instance.application.heads)
        strategy = strategy_of(config, learner == "reward_regression")
        self.reader = ReplayReader(self.control, self.instance.records, seed, strategy=strategy)
        self._lane = lane
        self._claiming = threading.Lock()

    @property
    def lane(self) -> Lane:
        """The writer lane of this process, claimed at first use."""
        if self._lane is None:
            with self._claiming:
                if self._lane is None:
                    config = self.instance.config.trainer
                    rules = self.instance.reward_rules()
                    self._lane = Lane.claim(self.control, self.instance.records, config.lock_timeout, rules)
        return self._lane

    def add(self, experience: Experience) -> bool:
        """Add one experience: a completed one to the ring, another to the pending table under its territory.

        False if it was rejected (wrong length, non-finite; counted) or the lock was not to be had in time.
        """
        with self.lane.hold() as writer:
            if writer is None:
                return False
            ticket = writer.next_ticket()
            payload = self._packed(ticket, experience)
            if payload is None:
                writer.count("rejected")
                log.warning("an experience was rejected: its length is wrong or a value cannot be stored")
                return False
            writer.count("send" if experience.decision else "wait")
            if experience.is_completed:
                writer.append(payload)
            else:
                writer.defer(ticket, payload, encode_key(experience.territory_id, PENDING_KEY_BYTES), b"")
        return True

    def _packed(self, ticket: int, experience: Experience) -> bytes | None:
        """The experience as a record's payload; None if it is none: a wrong length, a value that cannot be stored."""
        records, actual = self.instance.records, experience.actual_reward
        expected = experience.expected_reward if experience.expected_reward != -math.inf else WAIT_FLOOR
        observation = np.ascontiguousarray(experience.observation, dtype=np.float32).reshape(-1)
        components = tuple(experience.gate_components.values())
        numbers = (expected, experience.probability, experience.nn_confidence, experience.timestamp, actual or 0.0)
        if observation.size != records.features or len(components) != records.components:
            return None
        if records.candidates or records.values:
            # It has no room for them: such decisions are made by an engine, or added as records.
            return None
        if not is_finite_record(observation, *numbers, *components):
            return None
        with contextlib.suppress(struct.error, ValueError, TypeError, OverflowError):
            return records.pack(
                ticket,
                experience.model_version,
                experience.timestamp or time.time(),
                expected,
                math.nan if actual is None else actual,
                experience.probability,
                experience.nn_confidence,
                experience.decision,
                experience.action[: records.heads],
                observation,
                components,
                encode_key(experience.territory_id, KEY_BYTES),
            )
        return None

    def add_batch(self, rows: NDArray[Any]) -> int:
        """Add many records at once and return how many were taken; the others were rejected and counted.

        `rows` is a structured array [n] of dtype `instance.records.record` with everything filled in but sequence,
        checksum and ticket; where `allowed` is all zeros, everything was. A SEND without an actual reward (NaN) waits
        for it under its key. 0 if the lock was not to be had in time. Raises TypeError for another dtype.
        """
        records = self.instance.records
        if rows.dtype != records.record:
            raise TypeError(f"rows have the dtype {rows.dtype}, expected {records.record}")
        waits = rows["decision"] == WAIT
        unknown = np.isnan(rows["actual_reward"])
        finite = np.isfinite(rows["actual_reward"]) | unknown
        for field in ("timestamp", "expected_reward", "probability", "confidence"):
            finite &= np.isfinite(rows[field])
        for field in ("observation", "components"):
            finite &= np.isfinite(rows[field]).all(axis=1)
        with self.lane.hold() as writer:
            if writer is None:
                return 0
            numbered = rows.copy()
            numbered["ticket"] = writer.next_tickets(len(rows))
            unsaid = ~numbered["allowed"].any(axis=1)
            numbered["allowed"][unsaid] = records.everything_allowed
            taken = int(np.count_nonzero(finite))
            writer.count("rejected", len(rows) - taken)
            blocked = int(np.count_nonzero(waits & finite))
            writer.count("wait", blocked)
            writer.count("send", taken - blocked)
            completed = numbered[finite & (waits | ~unknown)]
            if len(completed):
                writer.append_many(completed)
            for row in numbered[finite & ~waits & unknown]:
                key = bytes(row["key"])
                writer.defer(int(row["ticket"]), row.tobytes()[PREFIX_BYTES:], key, b"")
        return taken

    def update_pending_reward(self, territory_id: str, reward: float) -> Experience | None:
        """Complete the territory's pending experience and return it.

        None (counted) if there is none, it has its reward already, or the reward is not finite as a 32-bit number.
        """
        key = encode_key(territory_id, PENDING_KEY_BYTES)
        with self.lane.hold() as writer:
            if writer is None:
                return None
            if self.lane.forwarded.waiting:
                writer.collect()
            elsewhere = None if key in self.lane.pending else self.lane.forwarded.find(key)
            row: Any = writer.reward(key, reward)
        if row is False:
            log.warning("territory %r: the reward %r was not taken", territory_id, reward)
            return None
        if row is True:
            if elsewhere is None:
                return None
            elsewhere["actual_reward"] = reward
            row = elsewhere
        return Experience.from_record(row, self.instance.application.gate_components)

    def sample(self, count: int) -> list[Experience]:
        """`min(count, available)` completed experiences, uniformly and without repetition."""
        names = self.instance.application.gate_components
        return [Experience.from_record(row, names) for row in self.reader.sample(count)]

    def clear(self) -> None:
        """Forget everything in this process's lane, completed and pending."""
        with self.lane.hold() as writer:
            if writer is not None:
                writer.clear()

    def get_stats(self) -> dict[str, Any]:
        """Counts over all lanes, see `buffer_stats`."""
        return buffer_stats(self.control)

    def close(self) -> None:
        """Give the writer lane back. Idempotent."""
        if self._lane is not None:
            self._lane.release()
