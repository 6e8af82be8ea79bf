"""A writer lane: the ring and the pending table of one server process, and their counters.

Nothing here ever waits for another process. If the owner dies half way through a record, the next owner finds an
invalid row (never a half one), settles the counters and goes on with the pending decisions; a call that an exception
ended half way is settled by the next one.
"""

from __future__ import annotations

import gc
import math
import os

import numpy as np

from ..errors import LaneBusy
from ..memory.arrays import SharedArray
from ..memory.claim import WORD, Claim, Refusal, is_owned
from ..memory.control import Control
from ..memory.segments import claim_segment
from ..values import storable_reward
from .forwarded_rewards import SUPERSEDED, ForwardedRewards
from .pending import PendingTable
from .records import RecordLayout, key_hash
from .ring import RingWriter
from .ring import latency_bucket as latency_bucket
from .settling import settle


class Lane(RingWriter):
    """The writing end of lane `index`. Claim one with `Lane.claim`."""

    def __init__(self, control: Control, records: RecordLayout, claim: Claim, lock_timeout: float) -> None:
        super().__init__(control, records, claim, lock_timeout)
        self.forwarded = ForwardedRewards(control, records, self.index, self.note_damage)
        self._reward_words = [
            self.at[name] for name in ("reward_count", "reward_sum", "rewarding", "reward_due", "sum_due")
        ]
        self.arrived: list[np.void] = []
        """Records completed by rewards from other lanes, until `collect` returns them."""
        capacity = control.get("pending_capacity")
        table = SharedArray(control.instance, f"pending{self.index}", records.pending, capacity)
        self.pending = PendingTable(table, records, self.index, self.forwarded.filter)
        self.settle(same_owner=False)
        self.receive()
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self._yield_to_newer(key)

    @classmethod
    def claim(cls, control: Control, records: RecordLayout, lock_timeout: float = 5.0) -> Lane:
        """Take the first free lane; a dead owner's is free. Raises LaneBusy naming the holders' process ids."""
        holders = cls._busy(control)
        lane = cls._claim_free(control, records, lock_timeout)
        if lane is None and os.getpid() in holders:
            # A lane of this process's own that nobody refers to any more is free once it is collected.
            gc.collect()
            lane = cls._claim_free(control, records, lock_timeout)
        if lane is None:
            raise LaneBusy(control.instance, cls._busy(control))
        return lane

    @staticmethod
    def _busy(control: Control) -> list[int]:
        return [control.get(f"lane.{index}.owner") for index in range(control.get("lanes"))]

    @classmethod
    def _claim_free(cls, control: Control, records: RecordLayout, lock_timeout: float) -> Lane | None:
        for index in range(control.get("lanes")):
            lock_file = claim_segment(control.instance, f"ring{index}")
            if lock_file is None:
                continue
            if is_owned(control, index, lock_file):
                os.close(lock_file)
                continue
            claim = Claim(control, index, lock_file)
            try:
                return cls(control, records, claim, lock_timeout)
            except BaseException:
                claim.let_go()
                raise
        return None

    def settle(self, *, same_owner: bool = True) -> None:
        """Bring everything into agreement with what was really written. Called while holding the lane."""
        if same_owner:
            self.pending.adopt()
        settle(self, same_owner=same_owner)
        # Last: until here a mark says that its decision may be complete already.
        self.forwarded.settle()

    def complete(self, key: bytes, reward: float) -> np.void | None:
        """Complete the decision pending under `key`; the appended record, or None if there is none.

        None (and `arrived` has the record) also if another lane had acknowledged a reward for it. The record is
        appended before the entry is cleared: a crash in between leaves it in both, and `settle` finds it by its ticket.
        """
        place = self.pending.place_of(key)
        if place is None:
            return None
        said = self.forwarded.mark(place, self.pending.ticket_in(place))
        if said is None:
            return self._finish(key, place, reward)
        self._obey(key, place, said)
        return None

    def _finish(self, key: bytes, place: int, reward: float) -> np.void:
        words, floats = self._words, self.control.floats
        count_at, sum_at, rewarding, due, sum_due = self._reward_words
        payload = self.pending.payload_with_reward(key, reward)
        assert payload is not None
        count, total = (words[count_at] + 1) & WORD, floats[sum_at] + reward
        # What the counts will be, for whoever finds the record in the ring and this call not ended.
        words[rewarding] = 0
        words[due] = count
        floats[sum_due] = total
        words[rewarding] = self.pending.ticket_in(place)
        number = self.append(payload)
        self.pending.clear(key)
        self._sync_pending()
        words[count_at] = count
        floats[sum_at] = total
        return self.record(number)

    def _obey(self, key: bytes, place: int, said: float) -> None:
        """Do with a decision what its message says."""
        if math.isnan(said):
            self._remove(key, "superseded")
        else:
            row = self._finish(key, place, said)
            self.count("delivered")
            self.arrived.append(row)

    def reward(self, key: bytes, reward: float) -> np.void | bool:
        """The reward of the decision that waits under `key`, wherever it was made. Called while holding the lane.

        The record if it was completed here, True if it was sent on and will count. False, with the reason counted, if
        nothing waits under the key or it has its reward already.
        """
        number = storable_reward(reward)
        if number is None:
            self.count("refused_rewards")
            return False
        if self.forwarded.waiting:
            self.receive()
        before = len(self.arrived)
        row = self.complete(key, number)
        if row is not None:
            return row
        if len(self.arrived) > before:
            self.count("repeated")
            return False
        found = self.forwarded.look(key)
        if not found:
            self.count("unmatched")
            return False
        if not self.forwarded.send(found[0], number):
            self.count("repeated")
            return False
        self.count("forwarded")
        return True

    def receive(self) -> None:
        """Take in what other lanes sent; `arrived` gets the completed records. Called while holding the lane."""
        for place, said in self.forwarded.receive(self.pending.tickets):
            key = self.pending.key_in(place)
            if key is not None:
                self._obey(key, place, said)

    def collect(self) -> list[np.void]:
        """Complete the decisions whose rewards arrived at other lanes. Called while holding the lane."""
        self.receive()
        completed, self.arrived = self.arrived, []
        return completed

    def defer(self, ticket: int, payload: bytes, key: bytes, context: bytes) -> None:
        """Let a decision wait for its reward under `key`. Older ones under that key are superseded, in every lane."""
        pending = self.pending
        if key in pending:
            self._ask_before_removing(key)
        if pending.is_full:
            # The key's own older entry, if there is one, is the one to go.
            older = key in pending
            self.drop(key if older else pending.oldest(), "superseded" if older else "dropped")
        replaces, hashed = key in pending, key_hash(key)
        decided = pending.store(ticket, payload, key, context, hashed)
        if replaces:
            self.count("superseded")
        self._sync_pending()
        for found in self.forwarded.look(key, hashed):
            if found.order < (decided, self.index):
                self.forwarded.send(found, SUPERSEDED)
            else:
                self.drop(key, "superseded")

    def _yield_to_newer(self, key: bytes) -> None:
        """Supersede an adopted decision if the key was decided elsewhere while nobody owned the lane."""
        found, entry = self.forwarded.look(key), self.pending.entry(key)
        if found and entry is not None and found[0].order > (int(entry["decided_ns"]), self.index):
            self.drop(key, "superseded")

    def _ask_before_removing(self, key: bytes) -> None:
        """Take in what other lanes have acknowledged for a decision that is about to go."""
        place = self.pending.place_of(key)
        if place is not None:
            said = self.forwarded.mark(place, self.pending.ticket_in(place))
            if said is not None:
                self._obey(key, place, said)

    def _remove(self, key: bytes, reason: str) -> None:
        self.pending.clear(key)
        self._sync_pending()
        self.count(reason)

    def drop(self, key: bytes, reason: str = "dropped") -> bool:
        """Give up the decision pending under `key`; False if there is none, or if it turns out to have its reward."""
        self._ask_before_removing(key)
        if key not in self.pending:
            return False
        self._remove(key, reason)
        return True

    def expire(self, before: int) -> list[bytes]:
        """Drop the decisions made before a moment (nanoseconds, monotonic clock) and return their keys."""
        return [key for key in self.pending.older_than(before) if self.drop(key, "expired")]

    def clear(self) -> None:
        """Forget every experience and every pending decision (a reset). Called while holding the lane."""
        self.receive()
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self.drop(key)
        self._words[self.at["floor"]] = self._words[self._head_word]

    def refuse(self, why: str) -> Refusal:
        """See RingWriter."""
        refusal = super().refuse(why)
        self.pending.close(refusal)
        self.forwarded.close(refusal)
        return refusal

    def _sync_pending(self) -> None:
        self._words[self.at["pending"]] = len(self.pending)
