"""The recorder: what is remembered of each key between two observations, and where its decisions are stored.

A WAIT is complete at once; a SEND waits in the lane's pending table until its reward comes, here or at another server
process. Not thread-safe: the engine holds its lock around every call.
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..shared.actions.offer import Choices, named
from ..shared.configuration.config import Config
from ..shared.experiences.earnings import RewardRules
from ..shared.experiences.experience import WAIT_FLOOR
from ..shared.experiences.lane import Lane
from ..shared.experiences.lane_writer import LaneWriter
from ..shared.experiences.pending import NO_REQUEST
from ..shared.experiences.records import (
    KEY_BYTES,
    PENDING_KEY_BYTES,
    SEND,
    WAIT,
    RecordLayout,
    decode_key,
    encode_key,
    is_finite_record,
)
from ..shared.ids.decision_id import DecisionId
from ..shared.ids.requests import Requests, answer_of
from ..shared.ids.rewards_by_id import Outcome, RewardsById
from ..shared.instance import Instance
from ..shared.rate_limit import RateLimit
from ..shared.values import BAD_DATA, FLOAT32_TINY
from .decision import Decision
from .turn import Remembered, Turn

log = logging.getLogger(__name__)

_EXPIRY_INTERVAL = 1_000_000_000
"""Nanoseconds between two looks for what has waited too long."""
_EXPIRED_AT_ONCE = 64
"""Decisions that are given up before others are let through: each costs about 20 us, and a training step if coupled."""


class Recorder:
    """Stores decisions and completes them.

    `rewarded` is called for every reward that completed a decision of this lane, `completed` with every record that
    enters the ring trainable.
    """

    def __init__(
        self,
        instance: Instance,
        lane: Lane,
        rewarded: Callable[[], None],
        completed: Callable[[np.void], None] | None = None,
    ) -> None:
        self.lane = lane
        self._rewarded = rewarded
        self._max_keys = instance.config.inference.max_keys
        self._pending_timeout = instance.config.inference.pending_timeout
        self._train_on_wait = instance.config.trainer.train_on_wait
        self._context_dtype = instance.application.context_dtype
        self._no_components = (0.0,) * instance.records.components
        self._completed = completed
        self._keys: OrderedDict[str, Remembered] = OrderedDict()
        self._next_expiry = 0
        self._warn = RateLimit(10.0)
        self.requests = Requests(lane)
        self._by_id = RewardsById(lane)
        self._series: int = instance.control.get("series")

    def _from_entry(self, encoded: bytes, entry: np.void) -> Remembered:
        dtype = self._context_dtype
        context = None if dtype is None else np.frombuffer(entry["context"].tobytes(), dtype, 1).reshape(())
        return Remembered(encoded, deque(maxlen=10), context, _action(self.lane.records, entry), True)

    def reconfigure(self, config: Config) -> None:
        """Change what may change while the instance runs."""
        self._pending_timeout = config.inference.pending_timeout
        self._train_on_wait = config.trainer.train_on_wait
        self.lane.earnings.rules = RewardRules.of(config.inference)

    def answered(self, turn: Turn) -> Decision | None:
        """The decision that waits since the turn's request was answered, by this process or another."""
        entry = self.requests.find(turn.request)
        return None if entry is None else self.decision_of(entry, turn.choices)

    def decision_of(self, entry: np.void, choices: Choices | None = None) -> Decision:
        """The decision that a pending entry stands for, as it was answered: probabilities are those of the record.

        An entry does not hold the name of the candidate that was chosen: it is found among those of `choices`.
        """
        probability, first = float(entry["probability"]), float(entry["confidence"])
        heads = len(entry["action"])
        others = (probability / first,) if heads == 2 else (math.nan,) * (heads - 1)
        return Decision(
            key=decode_key(bytes(entry["owner"])),
            action=_action(self.lane.records, entry),
            labels=_labels(self.lane.records, entry, choices),
            probability=probability,
            head_probabilities=(first, *others),
            confidence=first,
            send=True,
            reason=bytes(entry["reason"]).decode("utf-8", "ignore"),
            expected_reward=float(entry["expected_reward"]),
            components=tuple(float(component) for component in entry["components"]),
            version=int(entry["version"]),
            timestamp=float(entry["timestamp"]),
            series=self._series,
            ticket=int(entry["ticket"]),
        )

    def known(self, key: str) -> Remembered | None:
        """What is remembered of the key in this process, or what waits under it in this lane; None without either."""
        remembered = self._keys.get(key)
        if remembered is None:
            encoded = encode_key(key, PENDING_KEY_BYTES)
            entry = self.lane.pending.entry(encoded)
            remembered = None if entry is None else self._from_entry(encoded, entry)
        return remembered

    def recall(self, key: str, is_single: bool = False) -> tuple[Remembered, str | None]:
        """What is remembered of the key (made empty if nothing is), and the key that had to go for it, if any.

        A key that is not remembered, or was decided by the lane's last owner or another server process, brings along
        what is pending. Nothing is remembered of a key that `is_single`: it will not come again.
        """
        if is_single:
            return Remembered(encode_key(key, PENDING_KEY_BYTES), deque(maxlen=1)), None
        remembered = self._keys.get(key)
        if remembered is not None:
            self._keys.move_to_end(key)
            if remembered.context is not None and remembered.executed and remembered.encoded not in self.lane.pending:
                self._follow(remembered)
            return remembered, None
        encoded = encode_key(key, PENDING_KEY_BYTES)
        entry = self.lane.pending.entry(encoded)
        if entry is None:
            entry = self.lane.forwarded.find(encoded)
        remembered = Remembered(encoded, deque(maxlen=10)) if entry is None else self._from_entry(encoded, entry)
        evicted = None
        if len(self._keys) >= self._max_keys:
            # What is pending under it goes on waiting.
            evicted = self._keys.popitem(last=False)[0]
        self._keys[key] = remembered
        return remembered, evicted

    def _follow(self, remembered: Remembered) -> None:
        """If the key was decided at another server process since, it is that decision that an observation rewards.

        One that was given up is rewarded by no observation.
        """
        entry = self.lane.forwarded.find(remembered.encoded)
        if entry is not None:
            newer = self._from_entry(remembered.encoded, entry)
            remembered.context, remembered.action = newer.context, newer.action
        elif remembered.encoded in self.lane.earnings.given_up:
            remembered.context = None

    def forget(self, key: str) -> None:
        """Drop what is remembered of the key; its pending decision waits no longer (see LaneWriter.drop)."""
        remembered = self._keys.pop(key, None)
        encoded = remembered.encoded if remembered else encode_key(key, PENDING_KEY_BYTES)
        self._holding(lambda writer: writer.drop(encoded))
        self._tell_completed()

    def clear(self) -> None:
        """Forget every key, and every experience of this lane."""
        self._keys.clear()
        self._holding(LaneWriter.clear)

    def reward(self, encoded: bytes, value: float, final: bool = True) -> bool:
        """Complete the decision pending under the encoded key, wherever it was made; or, if more may follow,
        add to what it has earned.

        True once it will count, whatever becomes of this process or the one that decided; False (counted) if none is
        pending, it has its reward already, or the value is not a number that a record can hold. Raises TandemError if
        the lane is not this process's any more, and nothing else.
        """
        give = LaneWriter.reward if final else LaneWriter.add_reward
        given = self._holding(lambda writer: give(writer, encoded, value))
        self._tell_completed()
        if given is None or isinstance(given, bool):
            return given is True
        self._rewarded()
        if self._completed is not None:
            self._completed(given)
        return True

    def reward_by_id(self, name: DecisionId, value: float, final: bool, reward_hash: int) -> Outcome:
        """`reward` for the decision of that name, and no other. Raises TandemError as `reward`."""
        by_id = self._by_id
        outcome = self._holding(lambda writer: by_id.give(writer, name, value, final, reward_hash))
        self._tell_completed()
        if outcome is None:
            return Outcome.BUSY
        if outcome is Outcome.COUNTED and final:
            self._rewarded()
            if self._completed is not None and by_id.completed is not None:
                self._completed(by_id.completed)
        given: Outcome = outcome
        return given

    def _holding(self, work: Callable[[LaneWriter], Any]) -> Any:
        """What `work` returns, done with the lane's writer; None if the lane was not to be had in time.

        None also if shared memory holds data that make no sense: that is counted, and the next holder settles it.
        """
        lane = self.lane
        try:
            writer = lane.acquire()
            if writer is None:
                return None
            try:
                result = work(writer)
            except BaseException:
                lane.let_go()
                raise
            lane.unlock()
            return result
        except BAD_DATA:
            lane.count("errors")
            self._warn.exception(log, "lane %d: shared memory holds data that make no sense", lane.index)
            return None

    def collect(self) -> None:
        """Complete what was rewarded at other server processes. Raises TandemError as `reward`."""
        lane = self.lane
        lane.check()
        if lane.forwarded.waiting:
            self._holding(LaneWriter.receive)
        self._tell_completed()

    def _tell_completed(self) -> None:
        for row in self.lane.take_arrived():
            self._rewarded()
            if self._completed is not None:
                self._completed(row)

    def record(self, turn: Turn) -> bool:
        """Store the turn's decision; False if it was rejected (counted) because a value is not finite."""
        lane, remembered, verdict = self.lane, turn.remembered, turn.verdict
        draw = turn.draw if turn.draw.probability >= FLOAT32_TINY else turn.draw.storable
        is_trainable = verdict.expected_reward != -math.inf
        expected = verdict.expected_reward if is_trainable else WAIT_FLOOR
        components = verdict.components or self._no_components
        remembered.context = turn.context
        remembered.action = draw.action
        remembered.executed = verdict.send
        confidence, decision = draw.head_probabilities[0], SEND if verdict.send else WAIT
        place = encode_key(turn.territory_id, KEY_BYTES)
        values: tuple[Any, ...] | None = None
        if is_finite_record(turn.features, expected, *components):
            values = (turn.version, turn.timestamp, expected, math.nan, draw.probability, confidence, decision)
            action, offered = draw.action, b"" if turn.offer is None else turn.offer.packed
            if lane.records.values:
                action, offered = (0,), lane.records.of_number(action[0])
            values = (*values, action, turn.features, components, place, offered)
        writer = lane.acquire()
        if writer is None:
            return True
        try:
            stored = self._store(writer, turn, values, is_trainable)
        except BaseException:
            lane.let_go()
            raise
        lane.unlock()
        if not isinstance(stored, bool) and self._completed is not None:
            self._completed(stored)
        self._tell_completed()
        return stored is not False

    def _store(
        self, writer: LaneWriter, turn: Turn, values: tuple[Any, ...] | None, is_trainable: bool
    ) -> np.void | bool:
        """Store a decision of these values (see RecordLayout.pack). False: they are no record.

        The record if it is complete and `completed` is to be told.
        """
        ticket, remembered = writer.next_ticket(), turn.remembered
        payload = None
        if values is not None:
            with contextlib.suppress(struct.error, ValueError, TypeError, OverflowError):
                payload = self.lane.records.pack(ticket, *values)
        if payload is None:
            writer.count("rejected")
            return False
        turn.ticket, turn.series = ticket, self._series
        if remembered.executed:
            context = b"" if remembered.context is None else remembered.context.tobytes()
            request = answer_of(turn.request, turn.verdict.reason) if turn.request else NO_REQUEST
            writer.defer(ticket, payload, remembered.encoded, context, request)
            # Of two decisions under one key the newer one stands already.
            if turn.request and turn.is_single:
                self._give_way(writer, turn)
        elif self._train_on_wait:
            number = writer.append(payload)
            if self._completed is not None and is_trainable:
                return self.lane.ring.record(number)
        else:
            writer.count("untrained")
            writer.count("completed")
        return True

    def _give_way(self, writer: LaneWriter, turn: Turn) -> None:
        """If another process answered the same request meanwhile, its decision stands and this one is taken back.

        Of two that do so at the same moment each may see the other: both are taken back then, and the turn has no
        ticket. Neither is seen only if it came first.
        """
        turn.rival = self.requests.find_elsewhere(turn.request)
        if turn.rival is not None:
            writer.remove(turn.remembered.encoded, "superseded")
            turn.ticket = 0
            turn.rival = self.requests.find_elsewhere(turn.request)
            turn.remembered.context, turn.remembered.executed = None, False

    def expire(self) -> bool:
        """Give up what has waited longer than `pending_timeout`, looked at once a second, by the monotonic clock.

        True if there may be more: a decision that is asked for meanwhile comes first.
        """
        now = time.monotonic_ns()
        if now < self._next_expiry:
            return False
        before = now - int(self._pending_timeout * 1e9)
        most = _EXPIRED_AT_ONCE if self._completed is None else 1
        expired = self._holding(lambda writer: writer.expire(before, most)) or ()
        self._tell_completed()
        if len(expired) == most:
            return True
        self._next_expiry = now + _EXPIRY_INTERVAL
        return False


def _action(records: RecordLayout, entry: np.void) -> tuple[Any, ...]:
    """The action of a pending entry, as the host got it."""
    return tuple(entry["value" if records.values else "action"].tolist())


def _labels(records: RecordLayout, entry: np.void, choices: Choices | None) -> tuple[str, ...]:
    if not records.candidates or choices is None:
        return ()
    return named(choices.candidates, int(entry["candidate_ids"][int(entry["action"][0])]))
