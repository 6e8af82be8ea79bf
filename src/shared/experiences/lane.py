"""A writer lane: whose it is, the lock between the threads of its owner, and what is written while it is held.

Nothing here ever waits for another process. If the owner dies half way through a record, the next owner finds an
invalid row (never a half one), settles the counters and goes on with the pending decisions; a call that an exception
ended half way is settled by the next one.
"""

from __future__ import annotations

import gc
import logging
import os
import weakref
from typing import Any

import numpy as np

from ..errors import LaneBusy
from ..memory.arrays import SharedArray
from ..memory.claim import Claim, Refusal, disown_after_fork, is_owned
from ..memory.control import Control
from ..memory.interruptible_lock import OwnedLock
from ..memory.segments import claim_segment
from .counters import LaneCounters
from .earnings import Earnings, RewardRules
from .forwarded_rewards import ForwardedRewards
from .lane_writer import LaneWriter
from .pending import PendingTable
from .records import RecordLayout
from .ring import Ring

log = logging.getLogger(__name__)


class Hold:
    """`with lane.hold() as writer`: calls that belong together. Left by an exception, they are settled later."""

    __slots__ = ("_lane", "_writer")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._writer: LaneWriter | None = None

    def __enter__(self) -> LaneWriter | None:
        self._writer = self._lane.acquire(3)
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            if kind is None:
                self._lane.unlock()
            else:
                self._lane.let_go()


class Lane:
    """The writing end of lane `index`. Claim one with `Lane.claim`. Once released, disowned or lost it raises
    TandemError at every write.
    """

    def __init__(
        self,
        control: Control,
        records: RecordLayout,
        claim: Claim,
        lock_timeout: float,
        rules: RewardRules = RewardRules(),  # noqa: B008 - it is immutable
    ) -> None:
        self.control = control
        self.lock_timeout = lock_timeout
        self.lock = OwnedLock()
        self.is_half_done = False
        """True while somebody holds the lane, and after an exception in the middle of a call."""
        self.counters = LaneCounters(control, claim.index)
        self.ring = Ring(control, records, claim.index, self.counters.at)
        self.forwarded = ForwardedRewards(control, records, claim.index, self.counters.note_damage)
        table = SharedArray(control.instance, f"pending{claim.index}", records.pending, control.get("pending_capacity"))
        self.pending = PendingTable(table, records, claim.index, self.forwarded.filter)
        self._words = control.words
        self._claim = claim
        self._claim_word, self._claim_number = claim.word, claim.number
        self.earnings = Earnings(self.forwarded.cells, claim.index, rules)
        self._writer = LaneWriter(self.counters, self.ring, self.pending, self.forwarded, self.earnings)
        self._let_go = weakref.finalize(self, claim.let_go)
        self._let_go.atexit = False
        disown_after_fork(self)
        self._writer.settle(same_owner=False)
        self._writer.receive()
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self._writer.yield_to_newer(key)

    @classmethod
    def claim(
        cls,
        control: Control,
        records: RecordLayout,
        lock_timeout: float = 5.0,
        rules: RewardRules = RewardRules(),  # noqa: B008 - it is immutable
    ) -> Lane:
        """Take the first free lane; a dead owner's is free. `rules`: what its decisions earn.

        Raises LaneBusy naming the holders' process ids.
        """
        holders = cls._busy(control)
        lane = cls._claim_free(control, records, lock_timeout, rules)
        if lane is None and os.getpid() in holders:
            # A lane of this process's own that nobody refers to any more is free once it is collected.
            gc.collect()
            lane = cls._claim_free(control, records, lock_timeout, rules)
        if lane is None:
            raise LaneBusy(control.instance, cls._busy(control))
        return lane

    @staticmethod
    def _busy(control: Control) -> list[int]:
        return [control.get(f"lane.{index}.owner") for index in range(control.get("lanes"))]

    @classmethod
    def _claim_free(
        cls, control: Control, records: RecordLayout, lock_timeout: float, rules: RewardRules
    ) -> Lane | None:
        for index in range(control.get("lanes")):
            lock_file = claim_segment(control.instance, f"ring{index}")
            if lock_file is None:
                continue
            if is_owned(control, index, lock_file):
                os.close(lock_file)
                continue
            claim = Claim(control, index, lock_file)
            try:
                return cls(control, records, claim, lock_timeout, rules)
            except BaseException:
                claim.let_go()
                raise
        return None

    @property
    def index(self) -> int:
        """Which lane it is."""
        return self.counters.index

    @property
    def records(self) -> RecordLayout:
        """The layout of its records."""
        return self.ring.records

    def get(self, name: str) -> Any:
        """A counter of this lane."""
        return self.counters.get(name)

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter. The caller holds the lane or is the only thread that uses it."""
        self.counters.count(name, amount)

    def acquire(self, depth: int = 2) -> LaneWriter | None:
        """Take the process-local lock, for calls that belong together; None (counted) if it stays taken too long.

        What the last holder left half done is settled first. The frame `depth` calls up from the lock is the one that
        gives it back. Raises TandemError if the lane is not this process's.
        """
        if not self.lock.acquire(self.lock_timeout, depth):
            self.count("lock_timeouts")
            log.warning("lane %d: the lock was not free within %g s", self.index, self.lock_timeout)
            return None
        try:
            if self._words[self._claim_word] != self._claim_number:
                self._defend()
            if self.is_half_done:
                self._writer.settle(same_owner=True)
            self.is_half_done = True
        except BaseException:
            self.lock.release()
            raise
        return self._writer

    def unlock(self) -> None:
        """Give back what `acquire` took: everything that was begun is done."""
        self.is_half_done = False
        self.lock.release()

    def let_go(self) -> None:
        """Give back what `acquire` took in the middle of something, which the next holder settles."""
        self.lock.release()

    def hold(self) -> Hold:
        """`acquire` and `unlock` around a block: `with lane.hold() as writer`. An exception leaves it to be settled."""
        return Hold(self)

    def take_arrived(self) -> list[np.void]:
        """The records that rewards from other lanes completed while the lane was held, once each."""
        writer = self._writer
        if not writer.arrived:
            return []
        arrived, writer.arrived = writer.arrived, []
        return arrived

    def check(self) -> None:
        """Raise TandemError if the lane is not this process's any more."""
        if self._words[self._claim_word] != self._claim_number:
            self._defend()

    def _defend(self) -> None:
        """The lane was claimed again, or its number was damaged: the flock tells which."""
        if self._claim.is_held():
            self._words[self._claim_word] = self._claim_number
            self.counters.note_damage("a claim's number")
            return
        owner = self.get("owner")
        self._refuse(
            f"lane {self.index} of instance {self.control.instance!r} was taken over by process {owner} while this one"
            " still used it; attach again (Engine.attach)"
        )
        self.check()

    def beat(self) -> None:
        """Say that the owner's main loop makes progress."""
        self.check()
        self.counters.beat()

    def release(self) -> None:
        """Give the lane back. Whoever uses it afterwards gets a TandemError. Idempotent."""
        held = self.lock.acquire(self.lock_timeout)
        try:
            if self._let_go.alive:
                self._refuse(
                    f"lane {self.index} of instance {self.control.instance!r} was given back (the engine or buffer was"
                    " closed); attach again (Engine.attach)"
                )
            self._let_go()
        finally:
            if held:
                self.lock.release()

    def disown(self) -> None:
        """Let go of a lane that was inherited by a fork: it stays the parent's, and ends with the parent."""
        self._refuse(
            f"lane {self.index} was claimed before this process forked and belongs to the parent; call Engine.attach in"
            " the child (or make a new ExperienceReplayBuffer)"
        )
        self._let_go.detach()
        self._claim.forget()

    def _refuse(self, why: str) -> None:
        """Write no more: every later write raises TandemError saying why."""
        refusal = Refusal(why)
        self._words = refusal  # type: ignore[assignment]
        for part in (self.counters, self.ring, self.pending, self.forwarded, self._writer):
            part.close(refusal)
