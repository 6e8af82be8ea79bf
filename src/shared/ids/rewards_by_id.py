"""Rewards that name their decision by its id, wherever it was made and whatever became of its server since."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np

from ..experiences.forwarded_rewards import Found
from ..experiences.lane import Lane
from ..experiences.lane_writer import LaneWriter
from ..experiences.records import SEND, TICKET_BITS
from ..memory.arrays import SharedArray
from ..values import storable_reward
from .decision_id import DecisionId
from .reward_journal import Known, RewardJournal

_NEWEST_ROWS = 65_536
"""Records of each lane among which one that is complete is looked for."""


class Outcome(enum.Enum):
    """What became of a reward."""

    COUNTED = "counted"
    REPEATED = "repeated"
    """The decision has its reward already, or this partial one is counted already."""
    GONE = "gone"
    """The decision was made here and waits no longer: it expired, was superseded, dropped or blocked."""
    UNKNOWN = "unknown"
    """No decision has this id."""
    BUSY = "busy"
    """Another process is counting a reward of the decision, or settling it, at this moment: send it again."""
    REFUSED = "refused"
    """The value is not finite as a 32-bit float."""


_COUNTED_AS = {Outcome.REPEATED: "repeated", Outcome.GONE: "late", Outcome.UNKNOWN: "unmatched"}


class RewardsById:
    """Completes decisions by their ids. Not thread-safe: `lane` is held around every call.

    `completed` is the record that the newest call completed here, None if it completed none.
    """

    def __init__(self, lane: Lane) -> None:
        control = lane.control
        self.completed: np.void | None = None
        self._lane = lane
        self._words = control.words
        self._series: int = control.get("series")
        self._forwarded = lane.forwarded
        self._journal = RewardJournal(lane.forwarded.cells, lane.index, lane.forwarded.lives)
        capacity: int = control.get("capacity")
        self._rings = [
            SharedArray(control.instance, f"ring{index}", lane.records.record, capacity)
            for index in range(control.get("lanes"))
        ]

    def give(self, writer: LaneWriter, name: DecisionId, reward: float, final: bool, reward_hash: int = 0) -> Outcome:
        """The last reward of a decision, or (not `final`) one of several; the same `reward_hash` counts once."""
        self.completed = None
        outcome = self._give(writer, name, reward, final, reward_hash)
        counter = _COUNTED_AS.get(outcome)
        if counter is not None:
            writer.count(counter)
        return outcome

    def _give(self, writer: LaneWriter, name: DecisionId, reward: float, final: bool, reward_hash: int) -> Outcome:
        number = storable_reward(reward)
        if number is None:
            writer.count("refused_rewards")
            return Outcome.REFUSED
        if name.series != self._series or not self._was_given(name.ticket):
            return Outcome.UNKNOWN
        if self._forwarded.waiting:
            writer.receive()
        own = self._own_place(name.ticket)
        found = self._forwarded.by_ticket(name.ticket) if own is None else None
        if own is None and found is None:
            return self._ended(name.ticket)
        if final:
            return self._finish(writer, own, found, number)
        return self._add(writer, name.ticket, own, found, number, reward_hash)

    def _was_given(self, ticket: int) -> bool:
        """True if a lane has numbered a decision so."""
        lane, count = ticket >> TICKET_BITS, ticket & (1 << TICKET_BITS) - 1
        return lane < len(self._rings) and 0 < count <= self._lane.control.get(f"lane.{lane}.tickets")

    def _own_place(self, ticket: int) -> int | None:
        if ticket >> TICKET_BITS != self._lane.index:
            return None
        places = np.flatnonzero(self._lane.pending.tickets == ticket)
        return int(places[0]) if len(places) else None

    def _finish(self, writer: LaneWriter, own: int | None, found: Found | None, reward: float) -> Outcome:
        if own is not None:
            key, before = self._lane.pending.key_in(own), len(writer.arrived)
            assert key is not None
            self.completed = writer.complete(key, reward)
            if self.completed is not None:
                return Outcome.COUNTED
            return Outcome.REPEATED if len(writer.arrived) > before else Outcome.GONE
        assert found is not None
        if not self._forwarded.send(found, reward):
            return self._refused(found)
        writer.count("forwarded")
        return Outcome.COUNTED

    # Many parameters: where the decision waits is one of two, and both parts of the reward's name matter.
    def _add(
        self, writer: LaneWriter, ticket: int, own: int | None, found: Found | None, reward: float, reward_hash: int
    ) -> Outcome:
        lane, place, decided = self._lane.index, own, 0
        if found is not None:
            if self._forwarded.is_settled(found):
                return self._refused(found)
            lane, place, decided = found.lane, found.place, found.order[0]
        else:
            assert own is not None
            decided = self._lane.pending.decided_in(own)
        assert place is not None
        journal, cell = self._journal, self._forwarded.cells.of_partial(lane, place)
        if reward_hash:
            known = journal.begin(ticket, reward_hash, cell)
            if known is not Known.NEW:
                return Outcome.REPEATED if known is Known.COUNTED else Outcome.BUSY
        writer.earnings.add(lane, place, ticket, decided, reward, journal.writing if reward_hash else None)
        if reward_hash:
            journal.written()
        if found is not None and not self._forwarded.will_count(found):
            # Whoever cannot name it must not send it again: it lies in its cell, and may count after all.
            return self._refused(found) if reward_hash else Outcome.REPEATED
        writer.count("partial")
        return Outcome.COUNTED

    def _refused(self, found: Found) -> Outcome:
        """Why a decision of another lane took no reward. BUSY while two lanes look at each other, and neither's may
        count: whoever were told that it is counted would not send it again.
        """
        if self._forwarded.by_ticket(found.ticket) is None:
            return self._ended(found.ticket)
        said = self._forwarded.verdict(found)
        if said is None:
            return Outcome.BUSY
        return Outcome.GONE if math.isnan(said) else Outcome.REPEATED

    def _ended(self, ticket: int) -> Outcome:
        """What became of a decision that does not wait."""
        row = self._record(ticket >> TICKET_BITS, ticket)
        return Outcome.REPEATED if row is not None and int(row["decision"]) == SEND else Outcome.GONE

    def _record(self, lane: int, ticket: int) -> Any:
        """The record of a decision that is complete, or None if it is not among the newest."""
        ring, head = self._rings[lane].array, int(self._lane.control.get(f"lane.{lane}.head"))
        size = min(head, len(ring), _NEWEST_ROWS)
        start = (head - size) % len(ring)
        for first, last in ((start, min(start + size, len(ring))), (0, max(0, start + size - len(ring)))):
            places = np.flatnonzero(ring["ticket"][first:last] == ticket)
            if len(places):
                return ring[first + int(places[-1])].copy()
        return None
