"""Bringing a lane's counters into agreement with what its ring and its pending table hold.

Done when a lane is claimed, for its last owner may have been killed anywhere, and when a call of this process ended in
the middle of something. Whatever lies in memory, afterwards every decision is accounted for and nothing here raises.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from ..memory import layout
from .counters import LaneCounters
from .pending import PendingTable
from .records import TICKET_BITS
from .ring import Ring

log = logging.getLogger(__name__)

ENDS = ("expired", "superseded", "dropped", "rejected")
"""How a decision that did not become an experience ended; `lost` is what is left."""
_SANE = 2**62
"""No counter gets this far."""
_FREE_VALUES = ("owner", "owner_ticks", "ready", "claims", "mail_head", "rewarding", "reward_due", "lost")
_TICKETS = 2**47


def settle(counters: LaneCounters, ring: Ring, pending: PendingTable, *, same_owner: bool) -> None:
    """Settle the lane of these counters. The caller holds it, and its pending table has been adopted."""
    words, floats, at = counters.control.words, counters.control.floats, counters.at
    _clear_nonsense(counters)
    head = _find_head(counters, ring)
    words[at["head"]] = head
    words[at["floor"]] = min(words[at["floor"]], head)
    newest = _ticket_of(ring, head)
    if newest:
        # Stopped between `append` and `clear`: the newest record is pending as well.
        pending.forget_ticket(newest)
        if words[at["rewarding"]] == newest:
            words[at["reward_count"]] = min(words[at["reward_due"]], _SANE)
            due = floats[at["sum_due"]]
            floats[at["reward_sum"]] = due if math.isfinite(due) else 0.0
    words[at["pending"]] = len(pending)
    words[at["completed"]] = head + words[at["untrained"]]
    _raise_tickets(counters, ring, pending)
    _account(counters, pending.replaced, same_owner)
    if pending.damaged:
        counters.count("damaged", pending.damaged)
        text = "lane %d: %d damaged entries of the pending table were dropped"
        log.warning(text, counters.index, pending.damaged)


def _clear_nonsense(counters: LaneCounters) -> None:
    words, floats, bad = counters.control.words, counters.control.floats, []
    for name, (_, kind) in layout.LANE_FIELDS.items():
        at = counters.at[name]
        if kind == "u64":
            if words[at] >= _SANE and name not in _FREE_VALUES:
                words[at] = 0
                bad.append(name)
        elif not math.isfinite(floats[at]):
            floats[at] = 0.0
            bad.append(name)
    if bad:
        log.warning("lane %d: %s held nonsense and begin(s) at 0 again", counters.index, ", ".join(bad))
        counters.count("damaged", len(bad))


def _find_head(counters: LaneCounters, ring: Ring) -> int:
    """The number of the newest record: as counted, or as the rows say if the count cannot be right."""
    head: int = counters.get("head")
    for _ in range(ring.capacity):
        if not ring.is_whole(head + 1):
            break
        head += 1
    if head and ring.is_whole(head):
        return head
    sequences = ring.rows.words[:, 0]
    places = np.arange(ring.capacity, dtype=np.uint64)
    plausible = (
        (sequences > 0) & (sequences < _SANE) & ((sequences - np.uint64(1)) % np.uint64(ring.capacity) == places)
    )
    for number in sorted(sequences[plausible].tolist(), reverse=True):
        if ring.is_whole(number):
            # Its row was damaged, or a batch as long as the ring was stopped: that costs no number.
            return head if number <= head <= number + ring.capacity else int(number)
    return head


def _ticket_of(ring: Ring, number: int) -> int:
    return int(ring.rows.array[(number - 1) % ring.capacity]["ticket"]) if number and ring.is_whole(number) else 0


def _raise_tickets(counters: LaneCounters, ring: Ring, pending: PendingTable) -> None:
    """No ticket is given twice, also if the count of them was lost."""
    words, at = counters.control.words, counters.at["tickets"]
    given = words[at] if words[at] < _TICKETS else 0
    known: Any = [pending.tickets, ring.rows.array["ticket"][ring.rows.words[:, 0] > 0]]
    tickets = np.concatenate(known)
    counts = tickets[tickets >> np.uint64(TICKET_BITS) == counters.index] & np.uint64(2**TICKET_BITS - 1)
    counts = counts[counts < _TICKETS]
    words[at] = max(given, int(counts.max()) if counts.size else 0)


def _account(counters: LaneCounters, replaced: int, same_owner: bool) -> None:
    words, at = counters.control.words, counters.at
    known = words[at["lost"]] if words[at["lost"]] < _SANE else 0
    accounted = words[at["completed"]] + words[at["pending"]] + sum(words[at[name]] for name in ENDS)
    decided = words[at["decided"]]
    if decided > max(words[at["tickets"]], accounted + known) or decided < accounted:
        # Every decision has a ticket: a larger count is nonsense, and so is one below what became of them.
        decided = accounted + known
        words[at["decided"]] = decided
    lost = decided - accounted
    # An entry that was dropped for a newer one was superseded, if its owner had no time to count it.
    superseded = min(replaced, max(0, lost - known))
    words[at["superseded"]] += superseded
    lost -= superseded
    if lost != known and not same_owner:
        log.warning("lane %d: %d decision(s) in flight were lost with its last owner", counters.index, lost)
    words[at["lost"]] = lost
