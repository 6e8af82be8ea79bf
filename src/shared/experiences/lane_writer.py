"""Writing a lane: every change to its ring, its pending table and the rewards it forwards.

`Lane.hold` gives the writer for as long as the lane is held: what needs the lock cannot be reached without it.
"""

from __future__ import annotations

import math

import numpy as np

from ..memory.claim import WORD, Refusal
from ..values import storable_reward
from .counters import LaneCounters
from .forwarded_rewards import SUPERSEDED, ForwardedRewards
from .pending import PendingTable
from .records import key_hash
from .ring import Ring
from .settling import settle


class LaneWriter:
    """The writer of one lane. Not thread-safe: whoever has it holds the lane."""

    def __init__(self, counters: LaneCounters, ring: Ring, pending: PendingTable, forwarded: ForwardedRewards) -> None:
        self._counters = counters
        self._ring = ring
        self.pending = pending
        self._forwarded = forwarded
        self.arrived: list[np.void] = []
        """Records completed by rewards from other lanes, until `collect` returns them."""
        self._words = counters.control.words
        self._floats = counters.control.floats
        self._reward_words = [
            counters.at[name] for name in ("reward_count", "reward_sum", "rewarding", "reward_due", "sum_due")
        ]
        self._pending_word = counters.at["pending"]
        # The same methods, without a call in between.
        self.count = counters.count
        self.next_ticket = counters.next_ticket
        self.next_tickets = counters.next_tickets
        self.append = ring.append
        self.append_many = ring.append_many
        self.record = ring.record

    def settle(self, *, same_owner: bool) -> None:
        """Bring everything into agreement with what was really written."""
        if same_owner:
            self.pending.adopt()
        settle(self._counters, self._ring, self.pending, same_owner=same_owner)
        # Last: until here a mark says that its decision may be complete already.
        self._forwarded.settle()

    def complete(self, key: bytes, reward: float) -> np.void | None:
        """Complete the decision pending under `key`; the appended record, or None if there is none.

        None (and `arrived` has the record) also if another lane had acknowledged a reward for it. The record is
        appended before the entry is cleared: a crash in between leaves it in both, and `settle` finds it by its ticket.
        """
        place = self.pending.place_of(key)
        if place is None:
            return None
        said = self._forwarded.mark(place, self.pending.ticket_in(place))
        if said is None:
            return self._finish(key, place, reward)
        self._obey(key, place, said)
        return None

    def _finish(self, key: bytes, place: int, reward: float) -> np.void:
        words, floats = self._words, self._floats
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
        """The reward of the decision that waits under `key`, wherever it was made.

        The record if it was completed here, True if it was sent on and will count. False, with the reason counted, if
        nothing waits under the key or it has its reward already.
        """
        number = storable_reward(reward)
        if number is None:
            self.count("refused_rewards")
            return False
        if self._forwarded.waiting:
            self.receive()
        before = len(self.arrived)
        row = self.complete(key, number)
        if row is not None:
            return row
        if len(self.arrived) > before:
            self.count("repeated")
            return False
        found = self._forwarded.look(key)
        if not found:
            self.count("unmatched")
            return False
        if not self._forwarded.send(found[0], number):
            self.count("repeated")
            return False
        self.count("forwarded")
        return True

    def receive(self) -> None:
        """Take in what other lanes sent; `arrived` gets the completed records."""
        for place, said in self._forwarded.receive(self.pending.tickets):
            key = self.pending.key_in(place)
            if key is not None:
                self._obey(key, place, said)

    def collect(self) -> list[np.void]:
        """Complete the decisions whose rewards arrived at other lanes."""
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
        for found in self._forwarded.look(key, hashed):
            if found.order < (decided, self._counters.index):
                self._forwarded.send(found, SUPERSEDED)
            else:
                self.drop(key, "superseded")

    def yield_to_newer(self, key: bytes) -> None:
        """Supersede an adopted decision if the key was decided elsewhere while nobody owned the lane."""
        found, entry = self._forwarded.look(key), self.pending.entry(key)
        if found and entry is not None and found[0].order > (int(entry["decided_ns"]), self._counters.index):
            self.drop(key, "superseded")

    def _ask_before_removing(self, key: bytes) -> None:
        """Take in what other lanes have acknowledged for a decision that is about to go."""
        place = self.pending.place_of(key)
        if place is not None:
            said = self._forwarded.mark(place, self.pending.ticket_in(place))
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
        """Forget every experience and every pending decision (a reset)."""
        self.receive()
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self.drop(key)
        self._ring.forget()

    def _sync_pending(self) -> None:
        self._words[self._pending_word] = len(self.pending)

    def close(self, refusal: Refusal) -> None:
        """The lane is this process's no more."""
        self._words = refusal  # type: ignore[assignment]
