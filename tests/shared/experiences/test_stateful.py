"""Ring and pending table against a plain Python model, through any sequence of calls, restarts and crashes."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import OrderedDict, deque
from typing import Any

import pytest
from channel_kit import (
    add,
    attach_channel,
    balance,
    batch_of,
    key_of,
    make_channel,
    record_layout,
    value_of,
    wait_for_reward,
    wrong_rows,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from proof import Planted, at_line, raise_planted, size
from tandem.shared.memory.segments import remove_instance

CAPACITY, PENDING = 7, 3
keys = st.sampled_from("abcde")


class Buffer(RuleBasedStateMachine):
    """The real lane on one side; a deque, a dictionary and some counters on the other."""

    @initialize()
    def create(self) -> None:
        self.name = f"stateful-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        make_channel(
            self.name, capacity=CAPACITY, pending=PENDING, lanes=1, records=record_layout(2, 1, 1)
        ).control.close()
        self.made = attach_channel(self.name)
        self.lane = self.made.claim()
        self.ring: deque[int] = deque(maxlen=CAPACITY)
        self.waiting: OrderedDict[str, int] = OrderedDict()
        self.stamp = 0
        self.counts = dict.fromkeys(("superseded", "dropped", "expired", "lost"), 0)
        self.added = 0
        self.overtaken = 0

    def next_stamp(self) -> int:
        self.stamp += 1
        return self.stamp

    def append(self, *stamps: int) -> None:
        self.ring.extend(stamps)
        self.added += len(stamps)
        self.overtaken = 0

    @rule()
    def add(self) -> None:
        stamp = self.next_stamp()
        assert add(self.lane, stamp) == self.added + 1
        self.append(stamp)

    @rule(size=st.integers(0, 2 * CAPACITY + 1))
    def add_batch(self, size: int) -> None:
        stamps = [self.next_stamp() for _ in range(size)]
        with self.lane.hold():
            self.lane._writer.append_many(batch_of(self.lane, stamps[0] if stamps else 0, size))
        self.append(*stamps)

    @rule(key=keys)
    def wait(self, key: str) -> None:
        stamp = self.next_stamp()
        wait_for_reward(self.lane, key, stamp)
        if key in self.waiting:
            del self.waiting[key]
            self.counts["superseded"] += 1
        elif len(self.waiting) == PENDING:
            self.waiting.popitem(last=False)
            self.counts["dropped"] += 1
        self.waiting[key] = stamp

    @rule(key=keys)
    def reward(self, key: str) -> None:
        expected = self.waiting.pop(key, None)
        with self.lane.hold():
            row = self.lane._writer.complete(key_of(key), value_of(expected or 0))
        assert (None if row is None else int(row["version"])) == expected
        if expected is not None:
            self.append(expected)

    @rule(key=keys)
    def drop(self, key: str) -> None:
        with self.lane.hold():
            assert self.lane._writer.drop(key_of(key)) == (key in self.waiting)
        self.counts["dropped"] += self.waiting.pop(key, None) is not None

    @rule(share=st.floats(0, 1))
    def expire(self, share: float) -> None:
        entries = list(self.waiting)
        going = entries[: int(share * len(entries))]
        if going and len(going) < len(entries):
            moment = int(self.lane.pending.entry(key_of(entries[len(going)]))["decided_ns"])
            last = int(self.lane.pending.entry(key_of(going[-1]))["decided_ns"])
            if moment == last:
                return
        else:
            moment = 2**62 if going else 0
        with self.lane.hold():
            assert self.lane._writer.expire(moment) == [key_of(key) for key in going]
        for key in going:
            del self.waiting[key]
        self.counts["expired"] += len(going)

    @rule()
    def clear(self) -> None:
        with self.lane.hold():
            self.lane._writer.clear()
        self.ring.clear()
        self.overtaken = 0
        self.counts["dropped"] += len(self.waiting)
        self.waiting.clear()

    @rule()
    def restart(self) -> None:
        self.lane.release()
        self.lane = self.made.claim()

    @rule(line=st.integers(1, 60), key=keys, what=st.sampled_from(["add", "wait", "reward"]))
    def crash(self, line: int, key: str, what: str) -> None:
        """The owner dies somewhere in a call; what it did counts wholly or not at all."""
        stamp = self.next_stamp()
        calls = {
            "add": lambda: add(self.lane, stamp),
            "wait": lambda: wait_for_reward(self.lane, key, stamp),
            "reward": lambda: self.lane._writer.complete(key_of(key), value_of(self.waiting.get(key, 0))),
        }
        with contextlib.suppress(Planted):
            at_line(calls[what], line, raise_planted)
        self.lane.disown()
        self.lane = self.made.claim()
        head = self.lane.get("head")
        assert head - self.added in (0, 1)
        if head > self.added:
            completed = stamp if what == "add" else self.waiting.pop(key)
            self.append(completed)
        elif what != "wait" and len(self.ring) == CAPACITY:
            self.overtaken = 1
        after = {str(bytes(entry), "utf-8"): 0 for entry in self.lane.pending.keys()}  # noqa: SIM118
        found = OrderedDict((name, int(self.lane.pending.entry(key_of(name))["version"])) for name in after)
        if what == "wait":
            gone = {name for name in self.waiting if found.get(name) != self.waiting[name]}
            assert len(gone) <= 1
            assert all(name in self.waiting or found[name] == stamp for name in found)
            self.waiting = found
        assert found == self.waiting
        for name in self.counts:
            grown = self.lane.get(name) - self.counts[name]
            assert 0 <= grown <= 1, (name, grown)
            self.counts[name] += grown

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "lane"):
            return
        reader = self.made.reader(verify=True)
        rows = reader.recent(1000)
        assert wrong_rows(rows) == 0
        versions = sorted(rows["version"].tolist(), key=list(self.ring).index)
        # A crash may have cost the oldest record, which was about to be overwritten.
        assert versions in ([*self.ring], [*self.ring][self.overtaken :])
        assert reader.size() == len(self.ring)
        sample = reader.sample(4)
        assert len(set(sample["version"].tolist())) == len(sample)
        assert set(sample["version"].tolist()) <= set(self.ring)
        assert self.lane.pending.keys() == [key_of(key) for key in self.waiting]
        assert self.lane.get("pending") == len(self.waiting)
        assert self.lane.get("head") == self.added
        for name, value in self.counts.items():
            assert self.lane.get(name) == value, name
        assert balance(self.made.control) == 0

    def teardown(self) -> None:
        if hasattr(self, "lane"):
            self.lane.release()
            self.made.control.close()
            remove_instance(self.name)


Buffer.TestCase.settings = settings(
    max_examples=size(40, 2000), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestBuffer(Buffer.TestCase):  # type: ignore[name-defined,misc]
    """Any sequence of calls leaves the shared memory as the model says."""


def reward_and_compare(machine: Buffer) -> None:
    machine.reward("a")
    machine.agrees()


@pytest.mark.parametrize("mutation", ["forgets", "repeats"])
def test_the_model_can_disagree(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that forgets to supersede, or completes twice, is found."""
    from tandem.shared.experiences.lane_writer import LaneWriter

    original = LaneWriter.complete

    def forget(self: LaneWriter, key: bytes, reward: float) -> Any:
        return None

    def repeat(self: LaneWriter, key: bytes, reward: float) -> Any:
        payload = self.pending.payload_with_reward(key, reward)
        row = original(self, key, reward)
        if payload is not None:
            self.append(payload)
        return row

    monkeypatch.setattr(LaneWriter, "complete", forget if mutation == "forgets" else repeat)
    machine = Buffer()
    try:
        machine.create()
        machine.wait("a")
        with pytest.raises(AssertionError):
            reward_and_compare(machine)
    finally:
        machine.teardown()
