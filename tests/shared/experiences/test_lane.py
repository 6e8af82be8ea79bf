"""A writer lane: appending, deferring, completing, counting, owning."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_kit import add, balance, key_of, payload, value_of, wait_for_reward, wrong_rows
from tandem.shared.errors import LaneBusy, SegmentMissing
from tandem.shared.memory import layout
from tandem.shared.memory.durations import DECISION
from tandem.shared.memory.segments import segment_path

MakeChannel = Callable[..., Any]


def test_records_are_numbered_from_one_and_overwrite_the_oldest(channel: MakeChannel) -> None:
    """Record n lies in row (n-1) mod capacity; head counts all that were ever appended."""
    made = channel(capacity=5)
    lane = made.claim()
    assert [add(lane, stamp) for stamp in range(10, 22)] == list(range(1, 13))
    assert lane.get("head") == lane.get("completed") == 12
    rows = made.reader().recent(100)
    assert rows["sequence"].tolist() == [8, 9, 10, 11, 12]
    assert wrong_rows(rows) == 0
    assert rows["version"].tolist() == [17, 18, 19, 20, 21]


def test_tickets_name_lane_and_count(channel: MakeChannel) -> None:
    """No two decisions of an instance share a ticket."""
    made = channel(lanes=2)
    first, second = made.claim(), made.claim()
    tickets = [lane._writer.next_ticket() for lane in (first, second, first, second)]
    assert len(set(tickets)) == 4
    assert first.get("decided") == second.get("decided") == 2


def test_a_batch_is_the_same_as_one_after_the_other(channel: MakeChannel) -> None:
    """append_many leaves the ring as append does, around the end of the ring too."""
    made = channel(capacity=7, lanes=2)
    one, many = made.claim(), made.claim()
    stamp = 0
    for size in (3, 1, 5, 7, 2):
        rows = np.zeros(size, made.records.record)
        for place in range(size):
            stamp += 1
            add(one, stamp)
            body = payload(made.records, many._writer.next_ticket(), stamp, value_of(stamp))
            rows[place] = np.frombuffer(bytes(16) + body, made.records.record)[0]
        assert many._writer.append_many(rows) == one.get("head") == many.get("head")
        reader = made.reader(verify=True)
        for lane in (0, 1):
            left = made.control.get(f"lane.{1 - lane}.floor")
            made.control.set(f"lane.{1 - lane}.floor", made.control.get("lane.0.head"))
            rows_of_lane = reader.recent(100)
            made.control.set(f"lane.{1 - lane}.floor", left)
            assert rows_of_lane["sequence"].tolist() == list(range(max(1, stamp - 6), stamp + 1))
            assert wrong_rows(rows_of_lane) == 0
    assert balance(made.control, 0) == balance(made.control, 1) == 0


def test_an_empty_batch_changes_nothing(channel: MakeChannel) -> None:
    """No rows, no records."""
    made = channel()
    lane = made.claim()
    add(lane, 1)
    assert lane._writer.append_many(np.zeros(0, made.records.record)) == 1
    assert lane.get("head") == 1


def test_a_batch_larger_than_the_ring_is_counted_whole(channel: MakeChannel) -> None:
    """What was overwritten at once was still added."""
    made = channel(capacity=4)
    lane = made.claim()
    rows = np.zeros(10, made.records.record)
    for place in range(10):
        body = payload(made.records, lane._writer.next_ticket(), place, value_of(place))
        rows[place] = np.frombuffer(bytes(16) + body, made.records.record)[0]
    lane._writer.append_many(rows)
    assert lane.get("head") == lane.get("completed") == 10
    assert made.reader().recent(10)["version"].tolist() == [6, 7, 8, 9]
    assert balance(made.control) == 0


def test_a_reward_completes_the_decision_that_waits(channel: MakeChannel) -> None:
    """The record appears in the ring with its reward, the entry goes, the counters follow."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 5)
    assert (lane.get("pending"), lane.get("head")) == (1, 0)
    row = lane._writer.complete(key_of("a"), 0.5)
    assert row is not None
    assert (row["version"], row["actual_reward"], row["sequence"]) == (5, 0.5, 1)
    assert (lane.get("pending"), lane.get("head"), lane.get("reward_count")) == (0, 1, 1)
    assert lane.get("reward_sum") == 0.5
    assert balance(made.control) == 0


def test_a_reward_is_given_once(channel: MakeChannel) -> None:
    """A second reward, or one for a key that nobody knows, changes nothing."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 5)
    lane._writer.complete(key_of("a"), 0.5)
    assert lane._writer.complete(key_of("a"), 0.7) is None
    assert lane._writer.complete(key_of("b"), 0.7) is None
    assert (lane.get("reward_count"), lane.get("head")) == (1, 1)
    assert balance(made.control) == 0


def test_a_newer_decision_under_the_same_key_supersedes(channel: MakeChannel) -> None:
    """One decision waits under a key: the newest."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    wait_for_reward(lane, "a", 2)
    assert (lane.get("pending"), lane.get("superseded")) == (1, 1)
    assert lane._writer.complete(key_of("a"), 0.0)["version"] == 2
    assert balance(made.control) == 0


def test_a_full_table_gives_up_the_oldest(channel: MakeChannel) -> None:
    """The bound holds and the loss is counted."""
    made = channel(pending=3)
    lane = made.claim()
    for stamp, key in enumerate("abcde"):
        wait_for_reward(lane, key, stamp)
    assert (lane.get("pending"), lane.get("dropped")) == (3, 2)
    assert lane.pending.keys() == [key_of(key) for key in "cde"]
    assert balance(made.control) == 0


def test_waiting_too_long_expires(channel: MakeChannel) -> None:
    """Decisions older than the moment go, and their keys are told."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    decided = int(lane.pending.entry(key_of("a"))["decided_ns"])
    assert lane._writer.expire(decided) == []
    assert lane._writer.expire(decided + 1) == [key_of("a")]
    assert (lane.get("pending"), lane.get("expired")) == (0, 1)
    assert balance(made.control) == 0


def test_dropping_counts_under_its_reason(channel: MakeChannel) -> None:
    """A key that went away takes its decision along; one that is not there changes nothing."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    assert lane._writer.drop(key_of("a"))
    assert not lane._writer.drop(key_of("a"))
    assert lane.get("dropped") == 1
    assert balance(made.control) == 0


def test_clearing_forgets_everything_and_counts_it(channel: MakeChannel) -> None:
    """Nothing can be sampled, nothing waits, and the sums still agree."""
    made = channel()
    lane = made.claim()
    for stamp in range(5):
        add(lane, stamp)
    wait_for_reward(lane, "a", 9)
    lane._writer.clear()
    reader = made.reader()
    assert reader.size() == 0
    assert len(reader.sample(10)) == 0
    assert lane.get("pending") == 0
    assert balance(made.control) == 0
    assert add(lane, 6) == 6
    assert reader.sample(10)["version"].tolist() == [6]


def test_the_next_owner_goes_on(channel: MakeChannel) -> None:
    """Records, pending decisions and counters outlive their owner; numbers go on."""
    made = channel()
    lane = made.claim()
    add(lane, 1)
    wait_for_reward(lane, "a", 2)
    ticket = lane._writer.next_ticket()
    lane.count("rejected")
    lane.release()
    lane.release()
    after = made.claim()
    assert after.index == 0
    assert after.get("claims") == 2
    assert after.pending.keys() == [key_of("a")]
    assert after._writer.complete(key_of("a"), 1.0)["sequence"] == 2
    assert after._writer.next_ticket() > ticket
    after.count("rejected")
    assert after.get("lost") == 0
    assert balance(made.control) == 0


def test_every_lane_taken_is_an_error_naming_the_holders(channel: MakeChannel) -> None:
    """The holders are living processes, here this one."""
    import os

    made = channel(lanes=2)
    first, second = made.claim(), made.claim()
    assert {first.index, second.index} == {0, 1}
    with pytest.raises(LaneBusy) as caught:
        made.claim()
    assert caught.value.holders == (os.getpid(), os.getpid())
    first.release()
    assert made.claim().index == 0


def test_claiming_without_segments_is_a_typed_error(channel: MakeChannel) -> None:
    """A lane whose ring went away is missing, not an error of the file system."""
    made = channel()
    import os

    os.unlink(segment_path(made.name, "ring0"))
    with pytest.raises(SegmentMissing):
        made.claim()


def test_a_lock_that_is_not_free_in_time_is_counted_and_told(
    channel: MakeChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller goes on without it."""
    from tandem.shared.experiences.lane import Lane

    made = channel()
    lane = Lane.claim(made.control, made.records, 0.01)
    taken, done = threading.Event(), threading.Event()

    def hog() -> None:
        with lane.hold():
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=hog)
    thread.start()
    taken.wait(30)
    with caplog.at_level(logging.WARNING), lane.hold() as held:
        assert not held
    assert add(lane, 1) == 0
    done.set()
    thread.join(30)
    assert lane.get("lock_timeouts") == 2
    assert "was not free" in caplog.text
    assert add(lane, 1) == 1


def test_decisions_are_counted_by_outcome_and_duration(channel: MakeChannel) -> None:
    """Sends and waits, the newest version, a bucket per duration."""
    made = channel()
    lane = made.claim()
    lane.counters.count_decision(1, 7, 16_000)
    lane.counters.count_decision(0, 8, 10**12)
    assert (lane.get("send"), lane.get("wait"), lane.get("version")) == (1, 1, 8)
    assert lane.get("latency_0") == 1
    assert lane.get(f"latency_{layout.LATENCY_BUCKETS - 1}") == 1


def test_buckets_are_bounded_by_powers_of_the_root_of_two() -> None:
    """Bucket i holds durations of at most 16 us * 2**(i/2)."""
    for i in range(layout.LATENCY_BUCKETS - 1):
        bound = 16_000 * 2 ** (i / 2)
        assert DECISION.bucket(int(bound)) == i
        assert DECISION.bucket(int(bound * 1.01)) == min(i + 1, layout.LATENCY_BUCKETS - 1)
    assert DECISION.bucket(0) == 0
    assert DECISION.bucket(10**15) == layout.LATENCY_BUCKETS - 1


def test_progress_is_visible(channel: MakeChannel) -> None:
    """Each beat counts and is dated on the monotonic clock."""
    made = channel()
    lane = made.claim()
    lane.beat()
    first = lane.get("progress_ns")
    lane.beat()
    assert lane.get("progress") == 2
    assert lane.get("progress_ns") >= first > 0
