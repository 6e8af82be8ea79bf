"""Writing a lane: every change to its ring, its pending table and the rewards it forwards.

`Lane.hold` gives the writer for as long as the lane is held: what needs the lock cannot be reached without it.
"""

from __future__ import annotations

import math

import numpy as np

from ..memory.claim import WORD, Refusal
from ..values import storable_reward
from .counters import LaneCounters
from .earnings import Earnings
from .forwarded_rewards import SUPERSEDED, ForwardedRewards
from .pending import NO_REQUEST, PendingTable
from .records import key_hash
from .ring import Ring
from .settling import settle


class LaneWriter:
    """The writer of one lane. Not thread-safe: whoever has it holds the lane."""

    def __init__(
        self,
        counters: LaneCounters,
        ring: Ring,
        pending: PendingTable,
        forwarded: ForwardedRewards,
        earnings: Earnings,
    ) -> None:
        self._counters = counters
        self._ring = ring
        self.pending = pending
        self._forwarded = forwarded
        self.earnings = earnings
        self.arrived: list[np.void] = []
        """Records completed without a call of this process for them, until `collect` returns them."""
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

    def settle(self, *, same_owner: bool) -> None:
        """Bring everything into agreement with what was really written."""
        if same_owner:
            self.pending.adopt()
        settle(self._counters, self._ring, self.pending, same_owner=same_owner)
        # Last: until here a mark says that its decision may be complete already.
        self._forwarded.settle()

    def complete(self, key: bytes, reward: float) -> np.void | None:
        """Complete the decision pending under `key` by its last reward; the appended record, or None if there is none.

        None (and `arrived` has the record) also if another lane had acknowledged a reward for it. The record is
        appended before the entry is cleared: a crash in between leaves it in both, and `settle` finds it by its ticket.
        """
        place = self.pending.place_of(key)
        if place is None:
            return None
        ticket = self.pending.ticket_in(place)
        said = self._forwarded.mark(place, ticket)
        if said is None:
            return self._finish(key, place, self.earnings.with_last(place, ticket, reward))
        self._obey(key, place, said)
        return None

    def _finish(self, key: bytes, place: int, reward: float) -> np.void:
        words, floats = self._words, self._floats
        count_at, sum_at, rewarding, due, sum_due = self._reward_words
        pending = self.pending
        payload, ticket = pending.payload_with_reward(key, reward), pending.ticket_in(place)
        assert payload is not None
        count, total = (words[count_at] + 1) & WORD, floats[sum_at] + reward
        # What the counts will be, for whoever finds the record in the ring and this call not ended.
        words[rewarding] = 0
        words[due] = count
        floats[sum_due] = total
        words[rewarding] = ticket
        number = self.append(payload)
        pending.clear(key)
        words[self._pending_word] = len(pending)
        words[count_at] = count
        floats[sum_at] = total
        return self._ring.record(number)

    def _obey(self, key: bytes, place: int, said: float) -> None:
        """Do with a decision what its message says."""
        if math.isnan(said):
            self._end(key, place, "superseded")
        else:
            earned = self.earnings.with_last(place, self.pending.ticket_in(place), said)
            row = self._finish(key, place, earned)
            self.count("delivered")
            self.arrived.append(row)

    def reward(self, key: bytes, reward: float) -> np.void | bool:
        """The reward of the decision that waits under `key`, wherever it was made.

        The record if it was completed here, True if it was sent on and will count. False, with the reason counted, if
        nothing waits under the key or it has its reward already.
        """
        number = self._accepted(reward)
        if number is None:
            return False
        before = len(self.arrived)
        row = self.complete(key, number)
        if row is not None:
            return row
        if len(self.arrived) > before:
            self.count("repeated")
            return False
        found = self._forwarded.look(key)
        if not found:
            self.count("late" if key in self.earnings.given_up else "unmatched")
            return False
        if not self._forwarded.send(found[0], number):
            self.count("repeated")
            return False
        self.count("forwarded")
        return True

    def add_reward(self, key: bytes, reward: float) -> bool:
        """Add to what the decision that waits under `key` has earned so far, wherever it was made; it goes on waiting.

        True once it will count. False, with the reason counted, as `reward`.
        """
        number = self._accepted(reward)
        if number is None:
            return False
        entry = self.pending.entry(key)
        if entry is not None:
            place, ticket = self.pending.place_of(key), int(entry["ticket"])
            assert place is not None
            self.earnings.add(self._counters.index, place, ticket, int(entry["decided_ns"]), number)
        else:
            found = self._forwarded.look(key)
            if not found:
                self.count("late" if key in self.earnings.given_up else "unmatched")
                return False
            other = found[0]
            if self._forwarded.is_settled(other):
                self.count("repeated")
                return False
            self.earnings.add(other.lane, other.place, other.ticket, other.order[0], number)
            if not self._forwarded.will_count(other):
                self.count("repeated")
                return False
        self.count("partial")
        return True

    def _accepted(self, reward: float) -> float | None:
        """The reward as a number that a record can hold, when all that came before is taken in; else None, counted."""
        number = storable_reward(reward)
        if number is None:
            self.count("refused_rewards")
        elif self._forwarded.waiting:
            self.receive()
        return number

    def receive(self) -> None:
        """Take in what other lanes sent; `arrived` gets the completed records."""
        for place, said in self._forwarded.receive(self.pending.tickets):
            key = self.pending.key_in(place)
            if key is not None:
                # A part that comes in from here on is refused: what it says is not looked at any more.
                self._forwarded.mark(place, self.pending.ticket_in(place))
                self._obey(key, place, said)

    def collect(self) -> list[np.void]:
        """Complete the decisions whose rewards arrived at other lanes."""
        self.receive()
        completed, self.arrived = self.arrived, []
        return completed

    def defer(self, ticket: int, payload: bytes, key: bytes, context: bytes, request: bytes = NO_REQUEST) -> None:
        """Let a decision wait for its reward under `key`. Older ones under that key are superseded, in every lane.

        `request`: see PendingTable.store.
        """
        pending = self.pending
        self.earnings.given_up.discard(key)
        replaces, hashed = self._make_room(key), key_hash(key)
        decided = pending.store(ticket, payload, key, context, hashed, request)
        if replaces:
            self.count("superseded")
        self._words[self._pending_word] = len(pending)
        for found in self._forwarded.look(key, hashed):
            if found.order < (decided, self._counters.index):
                self._forwarded.send(found, SUPERSEDED)
            else:
                self.drop(key, "superseded")

    def _make_room(self, key: bytes) -> bool:
        """Settle what must go before a decision can wait under `key`. True if an older one is left to be replaced."""
        pending = self.pending
        place = pending.place_of(key)
        if place is not None:
            self._ask_before_removing(key)
            place = pending.place_of(key)
            if place is not None and (pending.is_full or self.earnings.will_earn(place, pending.ticket_in(place))):
                self._end(key, place, "superseded")
                place = None
        if place is None and pending.is_full:
            # Counted first: whoever sees a decision go sees why.
            self.count("displaced")
            self.drop(pending.oldest())
        return place is not None

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

    def remove(self, key: bytes, reason: str) -> None:
        """Take back the decision that waits under `key`: it is gone, whatever it has earned."""
        self.pending.clear(key)
        self._words[self._pending_word] = len(self.pending)
        self.count(reason)

    def _end(self, key: bytes, place: int, reason: str) -> None:
        """No reward will come: the decision is complete with what it has earned, else with the default reward.

        Without either it is gone, and counted by the reason.
        """
        if reason != "superseded":
            self.earnings.given_up.add(key)
        earned, default = self.earnings.of(place, self.pending.ticket_in(place)), self.earnings.rules.default
        if earned is None and default is None:
            self.remove(key, reason)
            return
        if earned is None:
            self.count("defaulted")
            earned = default
        assert earned is not None
        self.arrived.append(self._finish(key, place, earned))

    def drop(self, key: bytes, reason: str = "dropped") -> bool:
        """Wait no longer for the reward of the decision pending under `key`: it earns what it has, or the default, else
        it is gone. False if there is none, or if it turns out to have its reward.
        """
        self._ask_before_removing(key)
        place = self.pending.place_of(key)
        if place is None:
            return False
        self._end(key, place, reason)
        return True

    def expire(self, before: int, most: int | None = None) -> list[bytes]:
        """`drop` the decisions made before a moment (nanoseconds, monotonic clock), the `most` oldest of them at most.

        Returns their keys.
        """
        return [key for key in self.pending.older_than(before, most) if self.drop(key, "expired")]

    def clear(self) -> None:
        """Forget every experience and every pending decision (a reset)."""
        self.receive()
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self._ask_before_removing(key)
            if key in self.pending:
                self.remove(key, "dropped")
        self.earnings.given_up.clear()
        self._ring.forget()

    def close(self, refusal: Refusal) -> None:
        """The lane is this process's no more."""
        self._words = refusal  # type: ignore[assignment]
