"""Bringing a lane's counters into agreement with what its ring and its pending table hold.

Done when a lane is claimed, for its last owner may have been killed anywhere, and when a call of this process ended in
the middle of something. Whatever lies in memory, afterwards every decision is accounted for and nothing here raises.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..memory import layout
from .records import TICKET_BITS

if TYPE_CHECKING:
    from .lane import Lane

log = logging.getLogger(__name__)

ENDS = ("expired", "superseded", "dropped", "rejected")
"""How a decision that did not become an experience ended; `lost` is what is left."""
_SANE = 2**62
"""No counter gets this far."""
_FREE_VALUES = ("owner", "owner_ticks", "ready", "claims", "mail_head", "rewarding", "reward_due", "lost")
_TICKETS = 2**47


def settle(lane: Lane, *, same_owner: bool) -> None:
    """Settle the lane. The caller holds it, and its pending table has been adopted."""
    words, at = lane.control.words, lane.at
    _clear_nonsense(lane)
    head = _find_head(lane)
    words[at["head"]] = head
    words[at["floor"]] = min(words[at["floor"]], head)
    newest = _ticket_of(lane, head)
    if newest:
        # Stopped between `append` and `clear`: the newest record is pending as well.
        lane.pending.forget_ticket(newest)
        if words[at["rewarding"]] == newest:
            words[at["reward_count"]] = min(words[at["reward_due"]], _SANE)
            due = lane.control.floats[at["sum_due"]]
            lane.control.floats[at["reward_sum"]] = due if math.isfinite(due) else 0.0
    words[at["pending"]] = len(lane.pending)
    words[at["completed"]] = head + words[at["untrained"]]
    _raise_tickets(lane, head)
    _account(lane, same_owner)
    if lane.pending.damaged:
        lane.count("damaged", lane.pending.damaged)
        log.warning("lane %d: %d damaged entries of the pending table were dropped", lane.index, lane.pending.damaged)


def _clear_nonsense(lane: Lane) -> None:
    words, bad = lane.control.words, []
    for name, (_, kind) in layout.LANE_FIELDS.items():
        at = lane.at[name]
        if kind == "u64":
            if words[at] >= _SANE and name not in _FREE_VALUES:
                words[at] = 0
                bad.append(name)
        elif not math.isfinite(lane.control.floats[at]):
            lane.control.floats[at] = 0.0
            bad.append(name)
    if bad:
        log.warning("lane %d: %s held nonsense and begin(s) at 0 again", lane.index, ", ".join(bad))
        lane.count("damaged", len(bad))


def _find_head(lane: Lane) -> int:
    """The number of the newest record: as counted, or as the rows say if the count cannot be right."""
    head: int = lane.get("head")
    for _ in range(lane.capacity):
        if not lane.is_whole(head + 1):
            break
        head += 1
    if head and lane.is_whole(head):
        return head
    sequences = lane.rows.words[:, 0]
    places = np.arange(lane.capacity, dtype=np.uint64)
    plausible = (
        (sequences > 0) & (sequences < _SANE) & ((sequences - np.uint64(1)) % np.uint64(lane.capacity) == places)
    )
    for number in sorted(sequences[plausible].tolist(), reverse=True):
        if lane.is_whole(number):
            # Its row was damaged, or a batch as long as the ring was stopped: that costs no number.
            return head if number <= head <= number + lane.capacity else int(number)
    return head


def _ticket_of(lane: Lane, number: int) -> int:
    return int(lane.rows.array[(number - 1) % lane.capacity]["ticket"]) if number and lane.is_whole(number) else 0


def _raise_tickets(lane: Lane, head: int) -> None:
    """No ticket is given twice, also if the count of them was lost."""
    words, at = lane.control.words, lane.at["tickets"]
    given = words[at] if words[at] < _TICKETS else 0
    known: Any = [lane.pending.tickets, lane.rows.array["ticket"][lane.rows.words[:, 0] > 0]]
    tickets = np.concatenate(known)
    counts = tickets[tickets >> np.uint64(TICKET_BITS) == lane.index] & np.uint64(2**TICKET_BITS - 1)
    counts = counts[counts < _TICKETS]
    words[at] = max(given, int(counts.max()) if counts.size else 0)


def _account(lane: Lane, same_owner: bool) -> None:
    words, at = lane.control.words, lane.at
    known = words[at["lost"]] if words[at["lost"]] < _SANE else 0
    accounted = words[at["completed"]] + words[at["pending"]] + sum(words[at[name]] for name in ENDS)
    decided = words[at["decided"]]
    if decided > max(words[at["tickets"]], accounted + known) or decided < accounted:
        # Every decision has a ticket: a larger count is nonsense, and so is one below what became of them.
        decided = accounted + known
        words[at["decided"]] = decided
    lost = decided - accounted
    # An entry that was dropped for a newer one was superseded, if its owner had no time to count it.
    superseded = min(lane.pending.replaced, max(0, lost - known))
    words[at["superseded"]] += superseded
    lost -= superseded
    if lost != known and not same_owner:
        log.warning("lane %d: %d decision(s) in flight were lost with its last owner", lane.index, lost)
    words[at["lost"]] = lost
